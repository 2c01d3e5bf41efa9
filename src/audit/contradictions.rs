//! Dead letters whose records have an effect all the same.
//!
//! Such a record was replayed, which is marked, and took its place in the order behind those that went on meanwhile. Where
//! nothing marks a replay, the log says two things of it.

use super::judge::{Audit, completions_of};
use super::order::OrderTable;
use super::pending::Letter;
use super::report::Finding;
use super::subject::{Kind, Place, Subject};
use super::{AuditError, Step};
use std::collections::HashMap;

/// Letters whose records have an effect, by where the letters stand, until it is known which were replayed.
#[derive(Default)]
struct Contradictions {
    letters: HashMap<Place, Letter>,
    bytes: usize,
}

impl Audit<'_> {
    /// Reads the dead letters, and what is parked: what types are handled, which records may be late, which letters say
    /// otherwise than the store.
    pub(super) fn read_letters(&mut self, order: &mut OrderTable) -> Result<(), AuditError> {
        let letters = self.letters();
        let mut found = Contradictions::default();
        let (mut batch, mut bytes, mut done) = (Vec::new(), 0, 0);
        letters.each(&mut |letter| {
            if !self.is_judged(letter.subject.place) {
                return Ok(());
            }
            bytes += letter.subject.bytes();
            batch.push(letter);
            if batch.len() >= self.limits.batch_records || bytes >= self.limits.batch_bytes {
                done += batch.len() as u64;
                self.compare(std::mem::take(&mut batch), order, &mut found)?;
                bytes = 0;
                self.tell(Step::Letters, done, 0);
            }
            Ok(())
        })?;
        self.compare(batch, order, &mut found)?;
        self.report_contradictions(&mut found)?;
        if self.is_first_pass() {
            letters.failed(&mut |subject| {
                self.is_handled(subject.kind);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn is_judged(&self, place: Place) -> bool {
        self.report.partitions.iter().any(|part| {
            part.partition == place.partition && (part.from..part.settled()).contains(&place.offset)
        })
    }

    /// Compares letters with the store.
    fn compare(
        &mut self,
        batch: Vec<Letter>,
        order: &mut OrderTable,
        found: &mut Contradictions,
    ) -> Result<(), AuditError> {
        let completed = self.completed(batch.iter().map(|letter| &letter.subject))?;
        for (letter, completed) in batch.into_iter().zip(completions_of(completed)) {
            let (subject, is_skip) = (&letter.subject, letter.is_skip);
            if !is_skip && self.is_first_pass() {
                self.is_handled(subject.kind.clone());
            }
            // What is no event is known by what it says, which such a letter does not tell: it may have been replayed.
            let may_have = letter.is_unlike && !matches!(subject.kind, Kind::Event(_));
            if completed.first_ms.is_none() && !may_have {
                continue;
            }
            if let Some(lane) = subject.lane {
                order.excuse(lane, subject.place);
            }
            // One that was skipped may be a copy of an event that was handled.
            if !is_skip && completed.first_ms.is_some() && self.is_first_pass() {
                found.bytes += subject.bytes();
                found.letters.insert(letter.place, letter);
                if found.bytes >= self.limits.contradictions_bytes {
                    self.report_contradictions(found)?;
                }
            }
        }
        Ok(())
    }

    /// Reports the letters that nobody replayed.
    fn report_contradictions(&mut self, found: &mut Contradictions) -> Result<(), AuditError> {
        let letters = std::mem::take(found).letters;
        if letters.is_empty() {
            return Ok(());
        }
        let mut is_replayed: HashMap<Place, bool> = HashMap::new();
        self.evidence.replays(&mut |letter, replayed| {
            if let Some(of) = letters.get(&letter) {
                let is_marked = replayed.is_some_and(|replayed| replayed.is_of(of.written_ms));
                is_replayed.insert(letter, is_marked);
            }
        })?;
        let mut contradictions: Vec<(Place, Subject)> = letters
            .into_iter()
            .map(|(place, letter)| (place, letter.subject))
            .filter(|(letter, _)| !is_replayed.get(letter).is_some_and(|is_marked| *is_marked))
            .collect();
        contradictions.sort_by_key(|(letter, subject)| (subject.place, *letter));
        let listed_max = self.settings.listed_max;
        for (letter, subject) in contradictions {
            self.report.doubled.add(listed_max, || {
                let Place { partition, offset } = letter;
                Finding::new(
                    &subject,
                    format!("had an effect, and has the dead letter {partition}@{offset}, which was never replayed"),
                )
            });
        }
        Ok(())
    }
}

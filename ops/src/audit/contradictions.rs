//! Dead letters whose records have an effect nevertheless.
//!
//! A replay explains such a pair: the replay log has a mark for the dead letter, and the record
//! lost its place in the order of its key to the later records. Without a mark, the logs and the
//! store contradict each other.

use super::identity::{Identity, Kind, Place};
use super::pending::AuditedDeadLetter;
use super::reordering::OrderTable;
use super::report::Finding;
use super::verify::{Audit, completions_of};
use super::{AuditError, Step};
use std::collections::HashMap;

/// Dead letters whose records have an effect, by position, until the replay log was read.
#[derive(Default)]
struct Contradictions {
    dead_letters: HashMap<Place, AuditedDeadLetter>,
    bytes: usize,
}

impl Audit<'_> {
    /// Reads the dead letters and the parked records. Learns which types the group handles, which
    /// records may take effect late, and which dead letters contradict the store.
    pub(super) fn read_dead_letters(&mut self, order: &mut OrderTable) -> Result<(), AuditError> {
        let dead_letters = self.dead_letters();
        let mut found = Contradictions::default();
        let (mut batch, mut bytes, mut done) = (Vec::new(), 0, 0);
        dead_letters.each(&mut |dead_letter| {
            if !self.is_audited(dead_letter.subject.place) {
                return Ok(());
            }
            bytes += dead_letter.subject.bytes();
            batch.push(dead_letter);
            if batch.len() >= self.limits.batch_records || bytes >= self.limits.batch_bytes {
                done += batch.len() as u64;
                self.compare(std::mem::take(&mut batch), order, &mut found)?;
                bytes = 0;
                self.report_progress(Step::DeadLetters, done, 0);
            }
            Ok(())
        })?;
        self.compare(batch, order, &mut found)?;
        self.report_contradictions(&mut found)?;
        if self.is_first_pass() {
            dead_letters.failed(&mut |subject| {
                self.mark_handled(subject.kind);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn is_audited(&self, place: Place) -> bool {
        self.report.partitions.iter().any(|part| {
            part.partition == place.partition && (part.from..part.settled()).contains(&place.offset)
        })
    }

    /// Compares dead letters with the store.
    fn compare(
        &mut self,
        batch: Vec<AuditedDeadLetter>,
        order: &mut OrderTable,
        found: &mut Contradictions,
    ) -> Result<(), AuditError> {
        let completed = self.completed(batch.iter().map(|dead_letter| &dead_letter.subject))?;
        for (dead_letter, completed) in batch.into_iter().zip(completions_of(completed)) {
            let (subject, is_skip) = (&dead_letter.subject, dead_letter.is_skip);
            if !is_skip && self.is_first_pass() {
                self.mark_handled(subject.kind.clone());
            }
            // A raw record is identified by its content, and this dead letter lacks the original
            // content: the record may have been replayed.
            let may_have = dead_letter.has_other_content && !matches!(subject.kind, Kind::Event(_));
            if completed.first_ms.is_none() && !may_have {
                continue;
            }
            if let Some(lane) = subject.lane {
                order.excuse(lane, subject.place);
            }
            // A skipped record may be a copy of an event that was handled.
            if !is_skip && completed.first_ms.is_some() && self.is_first_pass() {
                found.bytes += subject.bytes();
                found.dead_letters.insert(dead_letter.place, dead_letter);
                if found.bytes >= self.limits.contradictions_bytes {
                    self.report_contradictions(found)?;
                }
            }
        }
        Ok(())
    }

    /// Reports the dead letters that were never replayed.
    fn report_contradictions(&mut self, found: &mut Contradictions) -> Result<(), AuditError> {
        let dead_letters = std::mem::take(found).dead_letters;
        if dead_letters.is_empty() {
            return Ok(());
        }
        let mut is_replayed: HashMap<Place, bool> = HashMap::new();
        self.sources.replays(&mut |dead_letter, replayed| {
            if let Some(of) = dead_letters.get(&dead_letter) {
                let is_marked = replayed.is_some_and(|replayed| replayed.is_of(of.written_ms));
                is_replayed.insert(dead_letter, is_marked);
            }
        })?;
        let mut contradictions: Vec<(Place, Identity)> = dead_letters
            .into_iter()
            .map(|(place, dead_letter)| (place, dead_letter.subject))
            .filter(|(dead_letter, _)| {
                !is_replayed
                    .get(dead_letter)
                    .is_some_and(|is_marked| *is_marked)
            })
            .collect();
        contradictions.sort_by_key(|(dead_letter, subject)| (subject.place, *dead_letter));
        let listed_max = self.settings.listed_max;
        for (dead_letter, subject) in contradictions {
            self.report.doubled.add(listed_max, || {
                let Place { partition, offset } = dead_letter;
                Finding::new(
                    &subject,
                    format!("had an effect, and has the dead letter {partition}@{offset}, which was never replayed"),
                )
            });
        }
        Ok(())
    }
}

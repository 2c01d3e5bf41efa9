//! Completions that seem to have come too early.
//!
//! A copy of an event that stood on the topic before was completed with the first of them, long before its neighbours. It
//! cannot be known while the topic is read, as nobody remembers 100 million ids; so what is suspicious is kept, and the topic
//! read once more for copies.

use super::evidence::Offsets;
use super::judge::{Audit, length};
use super::order::{Last, OrderTable};
use super::report::Finding;
use super::subject::{Place, Subject};
use super::{AuditError, Step};
use std::collections::HashMap;

/// A completion before that of an earlier record of its key.
struct Suspect {
    lane: u128,
    subject: Subject,
    at_ms: i64,
    before: Last,
}

/// The suspicious completions of a pass.
#[derive(Default)]
pub(super) struct Suspects {
    all: Vec<Suspect>,
    bytes: usize,
    /// Up to what offset a lane was reported that has more suspects than there is room for.
    reported: HashMap<u128, i64>,
}

impl Suspects {
    fn add(&mut self, suspect: Suspect) {
        self.bytes += suspect.subject.bytes();
        self.all.push(suspect);
    }

    /// Whether it was reported before its pass came to its end.
    fn is_reported(&self, lane: u128, place: Place) -> bool {
        let upto = self.reported.get(&lane);
        upto.is_some_and(|upto| place.offset <= *upto)
    }

    /// Forgets those that another pass will find again.
    fn keep(&mut self, order: &OrderTable) {
        self.all.retain(|suspect| order.has(suspect.lane));
        self.bytes = self.all.iter().map(|suspect| suspect.subject.bytes()).sum();
    }
}

impl Audit<'_> {
    /// Looks at a completion in the order of its lane.
    pub(super) fn see(
        &mut self,
        lane: u128,
        subject: Subject,
        at_ms: i64,
        order: &mut OrderTable,
    ) -> Result<(), AuditError> {
        let identity = subject.identity();
        let Some(before) = order.see(lane, subject.place, at_ms, identity) else {
            return Ok(());
        };
        if self.suspects.is_reported(lane, subject.place) {
            return Ok(());
        }
        self.suspects.add(Suspect {
            lane,
            subject,
            at_ms,
            before,
        });
        while self.suspects.bytes >= self.limits.suspects_bytes {
            let is_less = order.halve();
            self.suspects.keep(order);
            if !is_less {
                self.report_early(order)?;
            }
        }
        Ok(())
    }

    /// Reports what cannot be left to another pass, as all of it is of one lane.
    fn report_early(&mut self, order: &OrderTable) -> Result<(), AuditError> {
        let all = self.suspects.all.iter();
        let upto: Vec<(u128, i64)> = all
            .map(|suspect| (suspect.lane, suspect.subject.place.offset))
            .collect();
        self.verify(order)?;
        // In offset order, so the last of a lane counts.
        self.suspects.reported.extend(upto);
        Ok(())
    }

    /// Reports those of the suspects that are no copies, nor compared with one.
    pub(super) fn verify(&mut self, order: &OrderTable) -> Result<(), AuditError> {
        self.suspects.keep(order);
        self.suspects.bytes = 0;
        let suspects = std::mem::take(&mut self.suspects.all);
        if suspects.is_empty() {
            return Ok(());
        }
        let mut by_identity: HashMap<u128, Vec<(usize, Place)>> = HashMap::new();
        for (at, suspect) in suspects.iter().enumerate() {
            for (identity, place) in suspect.pair() {
                let places = by_identity.entry(identity).or_default();
                places.push((at, place));
            }
        }
        let mut is_copy = vec![false; suspects.len()];
        let parts = self.whole();
        let (evidence, total) = (self.evidence, length(&parts));
        let mut done = 0;
        evidence.topic(&parts, &mut |record| {
            let other = Subject::of(&record);
            for (at, own) in by_identity.get(&other.identity()).into_iter().flatten() {
                let stood_before = other.place.offset < own.offset;
                is_copy[*at] |= other.place.partition != own.partition || stood_before;
            }
            done += 1;
            if done % 65_536 == 0 {
                self.tell(Step::Copies, done, total);
            }
            Ok(())
        })?;
        let listed_max = self.settings.listed_max;
        for (suspect, is_copy) in suspects.iter().zip(is_copy) {
            if !is_copy {
                let found = &mut self.report.out_of_order;
                found.add(listed_max, || suspect.finding());
            }
        }
        Ok(())
    }

    /// All that stands on the topic up to where it is judged: copies may stand before.
    fn whole(&self) -> Vec<Offsets> {
        let parts = self.report.partitions.iter().map(|part| Offsets {
            partition: part.partition,
            start: part.low,
            end: part.settled(),
        });
        parts.filter(|part| part.start < part.end).collect()
    }
}

impl Suspect {
    /// The two records whose completions are compared, by identity.
    fn pair(&self) -> [(u128, Place); 2] {
        let own = self.subject.place;
        let before = Place {
            offset: self.before.offset,
            ..own
        };
        [
            (self.subject.identity(), own),
            (self.before.identity, before),
        ]
    }

    fn finding(&self) -> Finding {
        let Last { offset, at_ms, .. } = self.before;
        let ms = at_ms - self.at_ms;
        let detail = format!("had its effect {ms} ms before offset {offset} of the same key");
        Finding::new(&self.subject, detail)
    }
}

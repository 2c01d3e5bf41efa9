//! Decides which candidates are reorderings: reads the topic and the store for the records around
//! them.

use super::candidates::ReorderCandidate;
use super::order_table::OrderTable;
use crate::audit::identity::{Identity, Place};
use crate::audit::sources::{Offsets, length};
use crate::audit::verify::Audit;
use crate::audit::{AuditError, Step};
use std::collections::HashMap;

impl Audit<'_> {
    /// Checks a completion against the order of its lane.
    pub(in crate::audit) fn check_order(
        &mut self,
        lane: u128,
        subject: Identity,
        at_ms: i64,
        order: &mut OrderTable,
    ) -> Result<(), AuditError> {
        let identity = subject.identity();
        let Some(before) = order.add_completion(lane, subject.place, at_ms, identity) else {
            return Ok(());
        };
        if self.candidates.is_reported(lane, subject.place) {
            return Ok(());
        }
        self.candidates.add(ReorderCandidate {
            lane,
            subject,
            at_ms,
            before,
        });
        while self.candidates.bytes >= self.limits.candidates_bytes {
            let is_less = order.halve();
            self.candidates.drop_uncovered(order);
            if !is_less {
                self.report_early(order)?;
            }
        }
        Ok(())
    }

    /// Reports candidates that no later pass can take, because all of them belong to one lane.
    fn report_early(&mut self, order: &OrderTable) -> Result<(), AuditError> {
        let all = self.candidates.all.iter();
        let upto: Vec<(u128, i64)> = all
            .map(|candidate| (candidate.lane, candidate.subject.place.offset))
            .collect();
        self.verify(order)?;
        // In offset order, so the last one of a lane is stored.
        self.candidates.reported.extend(upto);
        Ok(())
    }

    /// Reports the candidates that are neither copies nor compared with one.
    pub(in crate::audit) fn verify(&mut self, order: &OrderTable) -> Result<(), AuditError> {
        self.candidates.drop_uncovered(order);
        self.candidates.bytes = 0;
        let candidates = std::mem::take(&mut self.candidates.all);
        if candidates.is_empty() {
            return Ok(());
        }
        let mut by_identity: HashMap<u128, Vec<(usize, Place)>> = HashMap::new();
        for (at, candidate) in candidates.iter().enumerate() {
            for (identity, place) in candidate.pair() {
                let places = by_identity.entry(identity).or_default();
                places.push((at, place));
            }
        }
        let mut is_copy = vec![false; candidates.len()];
        let parts = self.all_offsets();
        let (sources, total) = (self.sources, length(&parts));
        let mut done = 0;
        sources.topic(&parts, &mut |record| {
            let other = Identity::of(&record);
            for (at, own) in by_identity.get(&other.identity()).into_iter().flatten() {
                let is_earlier = other.place.offset < own.offset;
                is_copy[*at] |= other.place.partition != own.partition || is_earlier;
            }
            done += 1;
            if done % 65_536 == 0 {
                self.report_progress(Step::Copies, done, total);
            }
            Ok(())
        })?;
        let listed_max = self.settings.listed_max;
        for (candidate, is_copy) in candidates.iter().zip(is_copy) {
            if !is_copy {
                let found = &mut self.report.out_of_order;
                found.add(listed_max, || candidate.finding());
            }
        }
        Ok(())
    }

    /// All offsets of the topic up to the end of the audited range: copies may precede the range.
    fn all_offsets(&self) -> Vec<Offsets> {
        let parts = self.report.partitions.iter().map(|part| Offsets {
            partition: part.partition,
            start: part.low,
            end: part.settled(),
        });
        parts.filter(|part| part.start < part.end).collect()
    }
}

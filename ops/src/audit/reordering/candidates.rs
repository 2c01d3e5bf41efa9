//! Completions that seem to be too early.
//!
//! A copy of an earlier event has the completion time of its first occurrence, long before its
//! neighbours. The pass over the topic cannot recognise copies, because it does not keep 100
//! million ids. It keeps the suspicious completions, and a second read of the topic looks for their
//! copies.

use super::order_table::{LatestCompletion, OrderTable};
use crate::audit::identity::{Identity, Place};
use crate::audit::report::Finding;
use std::collections::HashMap;

/// A completion before that of an earlier record of its key.
pub(super) struct ReorderCandidate {
    pub(super) lane: u128,
    pub(super) subject: Identity,
    pub(super) at_ms: i64,
    pub(super) before: LatestCompletion,
}

/// The suspicious completions of one pass.
#[derive(Default)]
pub(in crate::audit) struct ReorderCandidates {
    pub(super) all: Vec<ReorderCandidate>,
    pub(super) bytes: usize,
    /// Lanes that were reported early because they have more candidates than fit, with the offset
    /// up to which they were reported.
    pub(super) reported: HashMap<u128, i64>,
}

impl ReorderCandidates {
    pub(super) fn add(&mut self, candidate: ReorderCandidate) {
        self.bytes += candidate.subject.bytes();
        self.all.push(candidate);
    }

    /// Whether it was reported before its pass ended.
    pub(super) fn is_reported(&self, lane: u128, place: Place) -> bool {
        let upto = self.reported.get(&lane);
        upto.is_some_and(|upto| place.offset <= *upto)
    }

    /// Drops the candidates that a later pass will find again.
    pub(super) fn drop_uncovered(&mut self, order: &OrderTable) {
        self.all.retain(|candidate| order.covers(candidate.lane));
        self.bytes = self
            .all
            .iter()
            .map(|candidate| candidate.subject.bytes())
            .sum();
    }
}

impl ReorderCandidate {
    /// The two records whose completions are compared, by identity.
    pub(super) fn pair(&self) -> [(u128, Place); 2] {
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

    pub(super) fn finding(&self) -> Finding {
        let LatestCompletion { offset, at_ms, .. } = self.before;
        let ms = at_ms - self.at_ms;
        let detail = format!("had its effect {ms} ms before offset {offset} of the same key");
        Finding::new(&self.subject, detail)
    }
}

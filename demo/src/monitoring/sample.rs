//! One sample of all services: lag of the groups, effects in the stores. Pure.

use std::collections::BTreeMap;

/// The progress of one service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Number of records that it has not settled, parked or not, as far as known.
    pub(crate) lag: i64,
    /// Number of records that it has settled.
    pub(crate) settled: i64,
    /// Number of effects.
    pub(crate) effects: u64,
    /// Number of partitions that `lag` and `settled` are of.
    pub(crate) known: usize,
    /// Number of its other partitions. They have never answered, so their lag is unknown.
    pub(crate) unknown: usize,
}

impl Progress {
    /// Adds a partition: its first offset, its end and the committed offset. Records that retention
    /// deleted do not count, and the end may have been read before a later commit.
    pub(super) fn add(&mut self, first: i64, end: i64, committed: Option<i64>) {
        let end = end.max(first);
        let next = committed.unwrap_or(first).clamp(first, end);
        self.lag += end - next;
        self.settled += next;
        self.known += 1;
    }
}

/// One sample of all services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) services: BTreeMap<&'static str, Progress>,
    /// Sum of the source topics' end offsets: the number of records ever published to them.
    pub(crate) published: i64,
    /// Sum of the end offsets of all topics that the groups read, retry topics among them.
    pub(crate) end: i64,
    /// Number of partitions that these sums are of.
    pub(crate) logs: usize,
    /// Whether a service or a gateway has committed events that are not published yet.
    pub(crate) is_unpublished: bool,
}

impl Sample {
    /// The numbers of partitions that the sums are of: of logs, and of positions in all groups.
    /// Sums of two samples can be compared only if these are equal.
    pub(crate) fn known(&self) -> (usize, usize) {
        let known = self.services.values().map(|progress| progress.known);
        (self.logs, known.sum())
    }

    /// Number of partitions that have never answered, counted in every group that reads them.
    pub(crate) fn unknown(&self) -> usize {
        let unknown = self.services.values().map(|progress| progress.unknown);
        unknown.sum()
    }

    /// Number of records that some group has not settled, parked or not, as far as known.
    pub(crate) fn lag(&self) -> i64 {
        self.services.values().map(|progress| progress.lag).sum()
    }

    /// Number of records that all groups have settled.
    pub(crate) fn settled(&self) -> i64 {
        let settled = self.services.values().map(|progress| progress.settled);
        settled.sum()
    }

    /// Number of effects of all services.
    pub(crate) fn effects(&self) -> u64 {
        let effects = self.services.values().map(|progress| progress.effects);
        effects.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_never_negative_and_deleted_records_do_not_count() {
        for (first, end, committed, lag) in [
            (0, 10, Some(4), 6),
            (0, 10, None, 10),
            (3, 10, None, 7),
            (3, 10, Some(1), 7),
            (0, 10, Some(12), 0),
            (5, 0, None, 0),
        ] {
            let mut progress = Progress::default();
            progress.add(first, end, committed);
            assert_eq!(progress.known, 1);
            assert_eq!(progress.lag, lag, "{first} {end} {committed:?}");
            assert_eq!(progress.settled + lag, end.max(first));
        }
    }
}

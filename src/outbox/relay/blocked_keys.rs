//! Counts the held keys of each topic, and decides when they stop the topic.
//!
//! Owns the two limits; knows no key.
//!
//! Without these limits a topic that does not exist would cost an attempt for each of its keys, and
//! memory for each of them. A stopped topic costs a read that passes over its rows.

use std::collections::BTreeMap;

/// When this many keys of a topic are refused, the topic is the cause: no more of its keys are
/// tried until one of these is published.
const REFUSED_KEYS_MAX: usize = 16;

/// When this many keys of a topic are held by rows that are unfit, each for a reason of its own,
/// the rest of the topic waits too: a relay remembers each held key and excludes it in every read,
/// which must be bounded.
pub(super) const UNFIT_KEYS_MAX: usize = 10_000;

/// Why a key is held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum BlockReason {
    /// It is not held.
    No,
    /// Its row is unfit.
    Unfit,
    /// The topic refuses its row, like others.
    Refused,
}

/// The topics that have held keys.
#[derive(Default)]
pub(super) struct BlockedKeys {
    by_topic: BTreeMap<String, Count>,
}

/// The held keys of a topic, by reason. A topic without any has no entry.
#[derive(Default, PartialEq)]
struct Count {
    unfit: usize,
    refused: usize,
}

impl BlockedKeys {
    /// Adds a held key. Returns whether that stops the topic.
    pub(super) fn block(&mut self, topic: &str, held: BlockReason) -> bool {
        let count = self.by_topic.entry(topic.to_owned()).or_default();
        let was_stopped = count.stops();
        *count.of(held) += 1;
        !was_stopped && count.stops()
    }

    /// Removes a held key. Returns whether the topic had been stopped.
    pub(super) fn unblock(&mut self, topic: &str, held: BlockReason) -> bool {
        let Some(count) = self.by_topic.get_mut(topic) else {
            return false;
        };
        let was_stopped = count.stops();
        *count.of(held) -= 1;
        if *count == Count::default() {
            self.by_topic.remove(topic);
        }
        was_stopped
    }

    /// The topics of which no more keys are tried.
    pub(super) fn stopped(&self) -> Vec<String> {
        let stopped = self.by_topic.iter().filter(|(_, count)| count.stops());
        stopped.map(|(topic, _)| topic.clone()).collect()
    }
}

impl Count {
    fn of(&mut self, held: BlockReason) -> &mut usize {
        match held {
            BlockReason::Refused => &mut self.refused,
            BlockReason::Unfit | BlockReason::No => &mut self.unfit,
        }
    }

    /// Whether this many held keys stop their topic.
    fn stops(&self) -> bool {
        self.refused >= REFUSED_KEYS_MAX || self.unfit >= UNFIT_KEYS_MAX
    }
}

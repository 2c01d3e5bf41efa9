//! How many keys of each topic are held, and when that stops the topic.
//!
//! Owns the two limits; knows no key.

use std::collections::BTreeMap;

/// When so many keys of a topic are refused, it is the topic: no more of its keys are tried until one of these gets through.
const REFUSED_KEYS_MAX: usize = 16;

/// When so many keys of a topic are held by rows that are unfit each for itself, the rest of the topic waits as well: a relay
/// remembers each of them and names it in every read, which has to end somewhere.
pub(super) const UNFIT_KEYS_MAX: usize = 10_000;

/// Whether and why a key is held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Held {
    No,
    /// For what its row is.
    Unfit,
    /// As others of its topic.
    Refused,
}

/// The topics that have held keys.
#[derive(Default)]
pub(super) struct HeldKeys {
    by_topic: BTreeMap<String, Count>,
}

#[derive(Default, PartialEq)]
struct Count {
    unfit: usize,
    refused: usize,
}

impl HeldKeys {
    /// One more key is held; whether that stops the topic.
    pub(super) fn hold(&mut self, topic: &str, held: Held) -> bool {
        let count = self.by_topic.entry(topic.to_owned()).or_default();
        let was_stopped = count.stops();
        *count.of(held) += 1;
        !was_stopped && count.stops()
    }

    /// One key less is held; whether the topic had been stopped.
    pub(super) fn let_go(&mut self, topic: &str, held: Held) -> bool {
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
    fn of(&mut self, held: Held) -> &mut usize {
        match held {
            Held::Refused => &mut self.refused,
            Held::Unfit | Held::No => &mut self.unfit,
        }
    }

    fn stops(&self) -> bool {
        self.refused >= REFUSED_KEYS_MAX || self.unfit >= UNFIT_KEYS_MAX
    }
}

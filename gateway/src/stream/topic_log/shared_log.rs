//! One topic as its subscriptions see it: the ring, and whether its reader runs.
//!
//! Owns the comparison of the ring with the topic. Knows no client and no task.

use super::facts::FactsCache;
use crate::http::{Problem, ProblemKind};
use crate::stream::cursor::TopicIdentity;
use crate::stream::frame::StreamedEvent;
use crate::stream::ring::{Joined, LogEntry, Place, Restart, Ring, Taken};
use crate::stream::source::{PlaceOfReturn, TopicFacts};
use crate::stream::telemetry;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::sync::watch;

/// The reading of one topic.
#[derive(Debug)]
pub(in crate::stream) struct TopicLog {
    pub(in crate::stream) topic: Arc<str>,
    state: RwLock<LogState>,
    /// Counts the changes of the state.
    changes: watch::Sender<u64>,
    pub(super) subscriptions: AtomicUsize,
    pub(super) facts: FactsCache,
}

/// Whether the reader of a topic runs.
#[derive(Debug)]
pub(super) enum LogState {
    Starting,
    Running(Option<TopicIdentity>, Ring),
    /// The reader has ended, and the log left the list.
    Ended(Problem),
}

/// The end of a ring.
#[derive(Debug)]
pub(in crate::stream) struct LogEnd {
    /// The id of the topic, if the brokers know ids.
    pub(in crate::stream) identity: Option<TopicIdentity>,
    /// The generation of the offsets.
    pub(in crate::stream) generation: u64,
    /// The next offset of each partition.
    pub(in crate::stream) next: Vec<i64>,
}

impl TopicLog {
    pub(super) fn new(topic: &str) -> Self {
        Self {
            topic: topic.into(),
            state: RwLock::new(LogState::Starting),
            changes: watch::Sender::new(0),
            subscriptions: AtomicUsize::new(0),
            facts: FactsCache::default(),
        }
    }

    /// Receives a value at each change.
    pub(in crate::stream) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// See [`Ring::join`]. Returns also the id of the topic that the place is in now.
    ///
    /// # Errors
    /// The reason for which the log ended.
    pub(in crate::stream) fn join(
        &self,
        place: &mut Place,
    ) -> Result<(Option<TopicIdentity>, Joined), Problem> {
        self.with_ring(|identity, ring| (identity, ring.join(place)))
    }

    /// See [`Ring::take`].
    ///
    /// # Errors
    /// The reason for which the log ended.
    pub(in crate::stream) fn take(
        &self,
        place: &mut Place,
        is_wanted: impl Fn(&StreamedEvent) -> bool,
    ) -> Result<Taken, Problem> {
        self.with_ring(|_, ring| ring.take(place, is_wanted))
    }

    /// The end of the ring.
    ///
    /// # Errors
    /// The reason for which the log ended.
    pub(in crate::stream) fn end(&self) -> Result<LogEnd, Problem> {
        self.with_ring(|identity, ring| LogEnd {
            identity,
            generation: ring.generation(),
            next: ring.next().to_vec(),
        })
    }

    fn with_ring<T>(
        &self,
        read: impl FnOnce(Option<TopicIdentity>, &Ring) -> T,
    ) -> Result<T, Problem> {
        match &*self.read_state() {
            LogState::Running(identity, ring) => Ok(read(*identity, ring)),
            LogState::Ended(problem) => Err(problem.clone()),
            LogState::Starting => Err(ended()),
        }
    }

    pub(super) fn read_state(&self) -> RwLockReadGuard<'_, LogState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_state(&self, state: LogState) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Changes the ring, and wakes the subscriptions.
    fn change<T>(&self, change: impl FnOnce(&mut Option<TopicIdentity>, &mut Ring) -> T) -> T
    where
        T: Default,
    {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let LogState::Running(identity, ring) = &mut *state else {
            return T::default();
        };
        let result = change(identity, ring);
        let bytes = ring.bytes();
        drop(state);
        telemetry::ring_changed(&self.topic, bytes);
        self.changes.send_modify(|changes| *changes += 1);
        result
    }

    /// Appends to the ring what was read.
    pub(in crate::stream) fn append<T: Into<LogEntry>>(&self, entries: Vec<T>) {
        if entries.is_empty() {
            return;
        }
        self.change(|_, ring| {
            for entry in entries {
                match entry.into() {
                    LogEntry::Item(item) => ring.append(item),
                    LogEntry::Gap(gap) => ring.append_gap(gap),
                }
            }
        });
    }

    /// The next offset of each partition.
    pub(super) fn positions(&self) -> Vec<i64> {
        self.end().map(|end| end.next).unwrap_or_default()
    }

    /// Compares the ring with the topic. `before` are its positions when the facts were requested,
    /// `cut` the place where the client found that a partition was cut. Returns the positions at
    /// which to read on, if the reader has to be replaced.
    pub(super) fn reconcile(
        &self,
        before: &[i64],
        cut: Option<(i32, i64)>,
        facts: &TopicFacts,
    ) -> Option<Vec<i64>> {
        let was_recreated = match &*self.read_state() {
            LogState::Running(Some(known), _) => facts.identity.is_some_and(|id| id != *known),
            _ => false,
        };
        let kept = |partition: usize, next: i64| {
            let high = facts.partitions.get(partition).and_then(|at| at.high);
            let was_at = before.get(partition).copied().unwrap_or(0);
            let end = high.filter(|high| was_at > *high).unwrap_or(i64::MAX);
            let cut = cut.filter(|(cut, _)| usize::try_from(*cut) == Ok(partition));
            next.min(end)
                .min(cut.map_or(i64::MAX, |(_, offset)| offset))
        };
        let next = self.positions();
        let left = (0..).zip(&next).map(|(at, next)| kept(at, *next));
        let mut left: Vec<i64> = left.collect();
        let is_cut = left != next;
        if was_recreated || is_cut {
            telemetry::log_restarted(&self.topic, was_recreated);
        }
        self.change(|identity, ring| {
            if facts.identity.is_some() {
                *identity = facts.identity;
            }
            if was_recreated || ring.next().len() > facts.partitions.len() {
                ring.restart(facts.lows(), Restart::Recreated);
                return Some(ring.next().to_vec());
            }
            if is_cut {
                left.resize(facts.partitions.len(), 0);
                ring.restart(left, Restart::Truncated);
                return Some(ring.next().to_vec());
            }
            ring.grow(facts.partitions.len())
                .then(|| ring.next().to_vec())
        })
    }
}

/// Whether these positions are beyond the end of a partition.
pub(super) fn is_beyond(positions: &[i64], facts: &TopicFacts) -> bool {
    let mut ends = positions.iter().zip(&facts.partitions);
    ends.any(|(next, bounds)| bounds.high.is_some_and(|high| *next > high))
}

/// Whether the log of a partition ends at this place or before it: it was cut once more since.
pub(super) fn is_at_end(place: PlaceOfReturn, facts: &TopicFacts) -> bool {
    let bounds = usize::try_from(place.partition).ok();
    let bounds = bounds.and_then(|at| facts.partitions.get(at));
    bounds.is_none_or(|bounds| bounds.high.is_some_and(|high| high <= place.offset))
}

/// The answer if a log ends between two calls.
pub(super) fn ended() -> Problem {
    Problem::new(
        ProblemKind::Unavailable,
        "the reading of the topic ended; try again",
    )
    .with_retry_after(Duration::from_secs(1))
}

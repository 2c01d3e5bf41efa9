//! Decides which deliveries form the next batch. Pure: deliveries arrive and batches end; the queue
//! returns the next step.
//!
//! Owns the waiting deliveries. Knows no handler, no task and no clock: the caller passes the time
//! and says which waiters are gone.
//!
//! At most one batch runs at a time. [`Queue::start`] and [`Queue::ended`] pair up; between them
//! the caller calls [`Queue::next`] until it returns a batch or nothing.

use crate::inbox::InboxKey;
use foldhash::fast::RandomState;
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::time::Duration;
use tokio::time::Instant;

/// A waiting delivery, with the caller's value (`W`).
pub(super) struct Waiting<W> {
    /// `None` if no inbox distinguishes deliveries.
    pub(super) key: Option<InboxKey>,
    /// The attempt, from 1.
    pub(super) attempt: u32,
    pub(super) since: Instant,
    pub(super) member: W,
}

impl<W> Waiting<W> {
    fn into_parts(self) -> (Option<InboxKey>, W) {
        (self.key, self.member)
    }
}

/// The maximum size of a batch, and how long its first delivery waits for others.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) records_max: usize,
    pub(super) wait_max: Duration,
}

/// The next step of a batch that was started.
pub(super) enum NextStep<W> {
    /// Handle these deliveries, in the order of their arrival.
    Batch(Vec<(Option<InboxKey>, W)>),
    /// Call again at this time, or when another delivery has arrived.
    At(Instant),
    /// End: no delivery waits any more.
    Nothing,
}

/// The deliveries that wait for a batch handler.
pub(super) struct Queue<W> {
    waiting: VecDeque<Waiting<W>>,
    is_running: bool,
    hasher: RandomState,
}

impl<W> Queue<W> {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            is_running: false,
            hasher: RandomState::default(),
        }
    }

    /// Adds a waiting delivery.
    pub(super) fn push(&mut self, waiting: Waiting<W>) {
        self.waiting.push_back(waiting);
    }

    /// The waiting delivery that arrived first.
    pub(super) fn first(&self) -> Option<&W> {
        self.waiting.front().map(|waiting| &waiting.member)
    }

    /// Whether a batch must be started now: none runs, and a delivery waits. If true, the caller
    /// calls [`Queue::ended`] later.
    pub(super) fn start(&mut self) -> bool {
        let starts = !self.is_running && !self.waiting.is_empty();
        self.is_running |= starts;
        starts
    }

    /// Records that the started batch has ended.
    pub(super) fn ended(&mut self) {
        self.is_running = false;
    }

    /// Returns the next step of the started batch, after removing the deliveries for which
    /// `is_gone` is true.
    ///
    /// The delivery that arrived first is in the batch. A delivery that failed before is handled
    /// alone, so that it cannot fail others again. Of two deliveries with the same key one waits
    /// for the next batch: by then it is a duplicate, or fresh again.
    pub(super) fn next(
        &mut self,
        limits: Limits,
        now: Instant,
        is_gone: impl Fn(&W) -> bool,
    ) -> NextStep<W> {
        self.waiting.retain(|waiting| !is_gone(&waiting.member));
        let Some(first) = self.waiting.front() else {
            return NextStep::Nothing;
        };
        if first.attempt > 1 {
            let alone = self.waiting.pop_front().into_iter();
            return NextStep::Batch(alone.map(Waiting::into_parts).collect());
        }
        let until = first.since + limits.wait_max;
        let new = self.waiting.iter().filter(|waiting| waiting.attempt == 1);
        if now < until && new.count() < limits.records_max {
            return NextStep::At(until);
        }
        NextStep::Batch(self.take(limits.records_max))
    }

    /// Takes up to `records_max` first attempts with distinct keys, in the order of arrival. All
    /// others stay, in their order.
    fn take(&mut self, records_max: usize) -> Vec<(Option<InboxKey>, W)> {
        let mut batch = Vec::new();
        // Two keys with the same hash only wait for each other.
        let mut keys = HashSet::new();
        let mut later = VecDeque::new();
        while batch.len() < records_max
            && let Some(waiting) = self.waiting.pop_front()
        {
            let key = waiting.key.as_ref();
            let key = key.map(|key| self.hasher.hash_one(key));
            if waiting.attempt == 1 && key.is_none_or(|key| keys.insert(key)) {
                batch.push(waiting.into_parts());
            } else {
                later.push_back(waiting);
            }
        }
        later.append(&mut self.waiting);
        self.waiting = later;
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMITS: Limits = Limits {
        records_max: 500,
        wait_max: Duration::ZERO,
    };

    fn waiting(id: u32, attempt: u32, since: Instant) -> Waiting<u32> {
        let key = InboxKey {
            group: "g".to_owned(),
            handler: "h".to_owned(),
            source: "/s".to_owned(),
            id: id.to_string(),
            content: None,
        };
        Waiting {
            key: Some(key),
            attempt,
            since,
            member: id,
        }
    }

    /// A queue of ids with their attempts, all waiting since `now`.
    fn queue(now: Instant, ids: &[(u32, u32)]) -> Queue<u32> {
        let mut queue = Queue::new();
        for (id, attempt) in ids {
            queue.push(waiting(*id, *attempt, now));
        }
        queue
    }

    fn all(queue: &mut Queue<u32>, limits: Limits, now: Instant) -> Vec<Vec<u32>> {
        let mut batches = Vec::new();
        while let Step::Batch(batch) = next(queue, limits, now) {
            batches.push(batch);
        }
        batches
    }

    /// [`NextStep`], without the keys.
    #[derive(Debug, PartialEq, Eq)]
    enum Step {
        Batch(Vec<u32>),
        At(Instant),
        Nothing,
    }

    fn next(queue: &mut Queue<u32>, limits: Limits, now: Instant) -> Step {
        next_without(queue, limits, now, |_| false)
    }

    fn next_without(
        queue: &mut Queue<u32>,
        limits: Limits,
        now: Instant,
        is_gone: impl Fn(&u32) -> bool,
    ) -> Step {
        match queue.next(limits, now, is_gone) {
            NextStep::Batch(batch) => Step::Batch(batch.into_iter().map(|(_, id)| id).collect()),
            NextStep::At(until) => Step::At(until),
            NextStep::Nothing => Step::Nothing,
        }
    }

    fn check(ids: &[(u32, u32)], limits: Limits, expected: &[&[u32]]) {
        let now = Instant::now();
        assert_eq!(all(&mut queue(now, ids), limits, now), expected);
    }

    #[test]
    fn waiting_deliveries_form_a_batch_in_order_of_arrival() {
        check(&[(3, 1), (1, 1), (2, 1)], NO_LIMITS, &[&[3, 1, 2]]);
        check(&[], NO_LIMITS, &[]);
    }

    #[test]
    fn a_batch_is_no_larger_than_it_may_be() {
        let limits = Limits {
            records_max: 2,
            ..NO_LIMITS
        };
        let ids = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)];
        check(&ids, limits, &[&[1, 2], &[3, 4], &[5]]);
    }

    #[test]
    fn a_retried_delivery_runs_alone_and_waits_for_none() {
        let ids = [(1, 1), (2, 2), (3, 1), (4, 3), (5, 1)];
        check(&ids, NO_LIMITS, &[&[1, 3, 5], &[2], &[4]]);
        check(&[(2, 2), (3, 1), (5, 1)], NO_LIMITS, &[&[2], &[3, 5]]);
    }

    #[test]
    fn of_the_same_key_one_is_in_a_batch() {
        check(
            &[(1, 1), (1, 1), (2, 1), (1, 1)],
            NO_LIMITS,
            &[&[1, 2], &[1], &[1]],
        );
        let now = Instant::now();
        let mut queue = queue(now, &[(1, 1), (1, 1)]);
        queue
            .waiting
            .iter_mut()
            .for_each(|waiting| waiting.key = None);
        assert_eq!(
            all(&mut queue, NO_LIMITS, now),
            [[1, 1]],
            "without an inbox equal keys may share a batch"
        );
    }

    #[test]
    fn one_batch_runs_at_a_time() {
        let now = Instant::now();
        let mut queue = queue(now, &[]);
        assert!(!queue.start(), "nothing waits");
        queue.push(waiting(1, 1, now));
        assert!(queue.start());
        queue.push(waiting(2, 1, now));
        assert!(!queue.start(), "one runs");
        queue.ended();
        assert!(queue.start());
    }

    #[test]
    fn the_first_delivery_waits_no_longer_than_its_limit() {
        let limits = Limits {
            records_max: 3,
            wait_max: Duration::from_secs(1),
        };
        let now = Instant::now();
        let mut queue = queue(now, &[(1, 1)]);
        let until = now + limits.wait_max;
        assert_eq!(next(&mut queue, limits, now), Step::At(until));
        let later = now + limits.wait_max / 2;
        queue.push(waiting(2, 1, later));
        queue.push(waiting(3, 2, later));
        assert_eq!(next(&mut queue, limits, later), Step::At(until));
        assert_eq!(next(&mut queue, limits, until), Step::Batch(vec![1, 2]));
        assert_eq!(next(&mut queue, limits, until), Step::Batch(vec![3]));
        (4..7).for_each(|id| queue.push(waiting(id, 1, until)));
        let full = Step::Batch(vec![4, 5, 6]);
        assert_eq!(next(&mut queue, limits, until), full, "no wait");
    }

    #[test]
    fn a_cancelled_delivery_is_in_no_batch() {
        let now = Instant::now();
        let mut queue = queue(now, &[(1, 2), (2, 1), (3, 1)]);
        assert_eq!(
            next_without(&mut queue, NO_LIMITS, now, |id| *id < 3),
            Step::Batch(vec![3])
        );
        assert_eq!(
            next_without(&mut queue, NO_LIMITS, now, |_| true),
            Step::Nothing
        );
    }
}

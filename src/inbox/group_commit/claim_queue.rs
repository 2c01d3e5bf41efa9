//! Decides which claims share the next transaction. Pure: claims arrive and groups end; the queue
//! returns the next step.
//!
//! Owns the waiting claims and the keys in open transactions. Knows no store, no task and no clock.
//!
//! A transaction takes its claims when it has begun: those that arrive meanwhile share it, and none
//! waits for that.
//!
//! The size of a group follows its duration, like a congestion window: it doubles after a full
//! group that took less than half of the target duration, halves after one that took longer than
//! the target, and restarts at one after a failure. A claim never waits for company, so a low rate
//! has groups of one and a high rate large ones.

use super::contention::{Contention, Level};
use crate::inbox::InboxKey;
use foldhash::fast::RandomState;
use std::collections::{HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Default limit of the claims of one transaction. A higher limit would save nothing: one disk wait
/// is already shared by this many claims.
pub(crate) const GROUP_MAX: u32 = 256;

/// Target duration of a transaction. The first claim of a group waits for the last, and so do other
/// transactions that need the same rows; a disk write takes a tenth of it.
const TARGET_DURATION: Duration = Duration::from_millis(50);

/// Bounds the remembered claims that were refused together; above it all are treated as new.
const SUSPECTS_MAX: usize = 4 * GROUP_MAX as usize;

/// The claims that wait for a transaction, with the callers' values (`W`).
pub(super) struct Queue<W> {
    waiting: VecDeque<(InboxKey, W)>,
    /// Keys in open transactions.
    claimed: HashSet<InboxKey, RandomState>,
    /// Keys whose transaction was refused while it held other claims too. Each runs alone next,
    /// which shows the one that causes the refusal.
    suspects: HashSet<InboxKey, RandomState>,
    /// Open transactions of groups; those of batches are not counted here.
    open: usize,
    /// How many of them have not taken their claims yet.
    beginning: usize,
    /// The most transactions that may be open.
    open_max: usize,
    /// The most claims of the next group, from 1 to `size_max`.
    size: usize,
    /// The bound of `size`, from the settings of the store.
    size_max: usize,
    contention: Contention,
}

/// How a group ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupEnd {
    /// Its transaction was committed, or had nothing to commit, after this time.
    After(Duration),
    /// Its transaction failed, and every claim in it.
    Lost,
    /// Its transaction failed because of the data written in it.
    Refused,
    /// Another transaction was in its way: it ended early, or was lost.
    Collided,
}

impl<W> Queue<W> {
    /// Creates a queue for at most `open_max` transactions at a time, each with at most `size_max`
    /// claims.
    pub(super) fn new(open_max: u32, size_max: u32, now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            claimed: HashSet::default(),
            suspects: HashSet::default(),
            open: 0,
            beginning: 0,
            open_max: open_max.max(1) as usize,
            size: 1,
            size_max: size_max.max(1) as usize,
            contention: Contention::new(now),
        }
    }

    /// The level of a transaction that is opened now.
    pub(super) fn level(&mut self, now: Instant) -> Level {
        self.contention.level(now)
    }

    /// Records that a transaction opened at `level` collided with another one, at this cost.
    /// Returns how long a stricter level holds from now on; `None` if the level does not change.
    pub(super) fn collided(&mut self, level: Level, cost: f64, now: Instant) -> Option<Duration> {
        self.contention.collided(level, cost, now)
    }

    /// Adds a waiting claim.
    pub(super) fn push(&mut self, key: InboxKey, caller: W) {
        self.waiting.push_back((key, caller));
    }

    /// Returns claims to the front of the queue, in the order of their arrival: their transaction
    /// ended before their turn.
    pub(super) fn push_back_to_front(&mut self, claims: Vec<(InboxKey, W)>) {
        for claim in claims.into_iter().rev() {
            self.waiting.push_front(claim);
        }
    }

    /// Marks a delivery to be alone in its next transaction.
    pub(super) fn mark_suspect(&mut self, key: InboxKey) {
        if self.suspects.len() >= SUSPECTS_MAX {
            self.suspects.clear();
        }
        self.suspects.insert(key);
    }

    /// Whether a transaction is to be opened now for a waiting claim. If so, the caller calls
    /// [`Queue::take`] once it has begun, and [`Queue::ended`] at its end.
    ///
    /// After collisions one transaction at a time is open.
    pub(super) fn may_open(&mut self, now: Instant) -> bool {
        let (open_max, _) = self.limits(now);
        let may_open = self.open < open_max && self.has_claim_to_spare();
        self.open += usize::from(may_open);
        self.beginning += usize::from(may_open);
        may_open
    }

    /// Whether a claim is left if each transaction that is beginning takes only one. A transaction
    /// takes one claim of a key.
    fn has_claim_to_spare(&self) -> bool {
        let mut taken: Vec<&InboxKey> = Vec::with_capacity(self.beginning);
        self.waiting.iter().any(|(key, _)| {
            if self.claimed.contains(key) || taken.contains(&key) {
                return false;
            }
            if taken.len() == self.beginning {
                return true;
            }
            taken.push(key);
            false
        })
    }

    /// Takes the claims of a transaction that has begun, in the order of their arrival. None if
    /// other transactions took them meanwhile.
    ///
    /// Claims are spread over the transactions that may be open. A claim whose key is in an open
    /// transaction waits for its end: it is then a duplicate, or fresh again. A claim that was
    /// refused together with others is alone.
    pub(super) fn take(&mut self, now: Instant) -> (Vec<(InboxKey, W)>, Level) {
        let (open_max, size_max) = self.limits(now);
        let level = self.level(now);
        let with_claims = self.open - self.beginning;
        self.beginning -= 1;
        // If the level became stricter meanwhile, more are open than its maximum.
        let sharing = open_max.saturating_sub(with_claims).max(1);
        let size = self.waiting.len().div_ceil(sharing).min(size_max);
        let mut group = Vec::with_capacity(size);
        let mut later = VecDeque::new();
        while group.len() < size
            && let Some((key, caller)) = self.waiting.pop_front()
        {
            let is_suspect = self.suspects.contains(&key);
            if self.claimed.contains(&key) || is_suspect && !group.is_empty() {
                later.push_back((key, caller));
                continue;
            }
            self.suspects.remove(&key);
            self.claimed.insert(key.clone());
            group.push((key, caller));
            if is_suspect {
                break;
            }
        }
        later.append(&mut self.waiting);
        self.waiting = later;
        (group, level)
    }

    /// The most transactions at the present level, and the most claims of each.
    fn limits(&mut self, now: Instant) -> (usize, usize) {
        match self.level(now) {
            Level::Parallel => (self.open_max, self.size),
            Level::Exclusive => (1, self.size),
            Level::Single => (1, 1),
        }
    }

    /// Takes all waiting callers, because the store no longer answers.
    pub(super) fn take_waiting(&mut self) -> impl Iterator<Item = W> + use<W> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().map(|(_, caller)| caller)
    }

    /// Records the end of the transaction of these claims.
    ///
    /// Groups grow while they stay below the target duration, and restart with single claims after
    /// a failed transaction. A collision does not change their size. Returns how long a stricter
    /// level holds from now on; `None` if the level does not change.
    pub(super) fn ended(
        &mut self,
        keys: &[InboxKey],
        ended: GroupEnd,
        level: Level,
        now: Instant,
    ) -> Option<Duration> {
        let count = keys.len();
        for key in keys {
            self.claimed.remove(key);
        }
        if ended == GroupEnd::Refused && count > 1 {
            if self.suspects.len() + count > SUSPECTS_MAX {
                self.suspects.clear();
            }
            self.suspects.extend(keys.iter().cloned());
        }
        self.open -= 1;
        let hold = match ended {
            GroupEnd::After(took) if took > TARGET_DURATION => {
                self.contention.exceeded_target(level, now)
            }
            _ => None,
        };
        self.size = match ended {
            GroupEnd::Lost | GroupEnd::Refused => 1,
            GroupEnd::After(took) if took > TARGET_DURATION => (self.size / 2).max(1),
            GroupEnd::After(took) if took < TARGET_DURATION / 2 && count >= self.size => {
                (self.size * 2).min(self.size_max)
            }
            GroupEnd::After(_) | GroupEnd::Collided => self.size,
        };
        hold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: GroupEnd = GroupEnd::After(Duration::from_millis(1));

    fn key(id: u32) -> InboxKey {
        InboxKey {
            group: "g".to_owned(),
            handler: "h".to_owned(),
            source: "/s".to_owned(),
            id: id.to_string(),
            content: None,
        }
    }

    fn queue(open_max: u32, size: usize, ids: impl Iterator<Item = u32>) -> Queue<u32> {
        let mut queue = Queue::new(open_max, GROUP_MAX, Instant::now());
        queue.size = size;
        ids.for_each(|id| queue.push(key(id), id));
        queue
    }

    fn open(queue: &mut Queue<u32>) -> Vec<u32> {
        open_at(queue, Instant::now()).0
    }

    /// Opens a transaction that begins at once.
    fn open_at(queue: &mut Queue<u32>, now: Instant) -> (Vec<u32>, Level) {
        match queue.may_open(now) {
            true => take_at(queue, now),
            false => (Vec::new(), queue.level(now)),
        }
    }

    fn take_at(queue: &mut Queue<u32>, now: Instant) -> (Vec<u32>, Level) {
        let (claims, level) = queue.take(now);
        (claims.into_iter().map(|(_, id)| id).collect(), level)
    }

    fn end(queue: &mut Queue<u32>, ids: &[u32], ended: GroupEnd) {
        let keys: Vec<InboxKey> = ids.iter().map(|id| key(*id)).collect();
        queue.ended(&keys, ended, Level::Parallel, Instant::now());
    }

    #[test]
    fn one_alone_is_opened_at_once() {
        let mut queue = queue(1, 64, 0..1);
        assert_eq!(open(&mut queue), [0]);
        assert_eq!(open(&mut queue), [0; 0]);
    }

    #[test]
    fn waiting_claims_share_the_next_transaction() {
        let mut queue = queue(1, 64, 0..1);
        open(&mut queue);
        (1..4).for_each(|id| queue.push(key(id), id));
        assert_eq!(open(&mut queue), [0; 0], "one is open");
        end(&mut queue, &[0], FAST);
        assert_eq!(open(&mut queue), [1, 2, 3]);
    }

    #[test]
    fn claims_that_arrive_while_a_transaction_begins_share_it() {
        let mut queue = queue(1, 64, 0..1);
        let now = Instant::now();
        assert!(queue.may_open(now));
        (1..4).for_each(|id| queue.push(key(id), id));
        assert!(!queue.may_open(now), "one is open");
        assert_eq!(take_at(&mut queue, now).0, [0, 1, 2, 3]);
    }

    #[test]
    fn transactions_that_begin_together_share_the_claims() {
        let mut queue = queue(4, 64, 0..1);
        let now = Instant::now();
        assert!(queue.may_open(now));
        (1..10).for_each(|id| queue.push(key(id), id));
        assert!(queue.may_open(now));
        let taken: Vec<usize> = (0..2).map(|_| take_at(&mut queue, now).0.len()).collect();
        assert_eq!(taken, [3, 3]);
        let opened: Vec<usize> = (0..3).map(|_| open(&mut queue).len()).collect();
        assert_eq!(opened, [2, 2, 0]);
    }

    #[test]
    fn no_transaction_is_opened_for_claims_that_others_will_take() {
        let mut queue = queue(4, 64, [1, 1].into_iter());
        let now = Instant::now();
        assert!(queue.may_open(now));
        assert!(!queue.may_open(now), "one of a key to a transaction");
        queue.push(key(2), 2);
        assert!(queue.may_open(now));
        assert!(!queue.may_open(now), "each has a claim");
        assert_eq!(take_at(&mut queue, now).0, [1]);
        assert_eq!(take_at(&mut queue, now).0, [2]);
        end(&mut queue, &[2], FAST);
        assert!(!queue.may_open(now), "its key is claimed");
        end(&mut queue, &[1], FAST);
        assert_eq!(open(&mut queue), [1]);
    }

    /// The level became stricter while they began, so the first takes all.
    #[test]
    fn a_transaction_may_find_that_others_took_all_claims() {
        let mut queue = queue(2, 64, 1..3);
        let now = Instant::now();
        assert!(queue.may_open(now) && queue.may_open(now));
        queue.collided(Level::Parallel, 1.0, now);
        queue.collided(Level::Parallel, 1.0, now);
        let all = take_at(&mut queue, now);
        assert_eq!(all, (vec![1, 2], Level::Exclusive));
        assert_eq!(take_at(&mut queue, now).0, [0; 0]);
        end(&mut queue, &[], FAST);
        end(&mut queue, &[1, 2], FAST);
        assert!(!queue.may_open(now), "nothing waits");
    }

    #[test]
    fn claims_are_spread_over_the_transactions_that_may_be_open() {
        let mut queue = queue(4, 64, 0..10);
        let opened: Vec<usize> = (0..5).map(|_| open(&mut queue).len()).collect();
        assert_eq!(opened, [3, 3, 2, 2, 0]);
    }

    #[test]
    fn a_key_is_in_one_transaction_and_blocks_no_other() {
        let mut queue = queue(2, 64, [1, 1, 1, 2, 3].into_iter());
        assert_eq!(open(&mut queue), [1, 2, 3]);
        assert_eq!(open(&mut queue), [0; 0], "all that wait are claimed");
        end(&mut queue, &[1, 2, 3], FAST);
        assert_eq!(open(&mut queue), [1], "and one of a key to a transaction");
    }

    #[test]
    fn refused_claims_are_tried_alone_and_later_ones_together() {
        let mut queue = queue(1, 64, 0..3);
        let refused = open(&mut queue);
        end(&mut queue, &refused, GroupEnd::Refused);
        queue.size = 64;
        for id in [8, 0, 9, 2, 1] {
            queue.push(key(id), id);
        }
        for expected in [&[8, 9][..], &[0], &[2], &[1]] {
            assert_eq!(open(&mut queue), expected);
            end(&mut queue, expected, FAST);
        }
        for id in [0, 2] {
            queue.push(key(id), id);
        }
        assert_eq!(open(&mut queue), [0, 2], "each was alone once");
    }

    #[test]
    fn groups_grow_while_fast_and_full_and_shrink_when_slow() {
        let mut queue = queue(1, 1, 0..1000);
        let group = |queue: &mut Queue<u32>, ended| {
            let ids = open(queue);
            end(queue, &ids, ended);
            ids.len()
        };
        let sizes: Vec<usize> = (0..10).map(|_| group(&mut queue, FAST)).collect();
        assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
        (0..200).for_each(|id| queue.push(key(1000 + id), id));
        let slow = GroupEnd::After(TARGET_DURATION * 2);
        assert_eq!(group(&mut queue, slow), 256);
        assert_eq!(group(&mut queue, GroupEnd::Lost), 128);
        assert_eq!(group(&mut queue, GroupEnd::After(TARGET_DURATION)), 1);
        assert_eq!(group(&mut queue, FAST), 1);
        assert_eq!(group(&mut queue, FAST), 2);
    }

    #[test]
    fn all_waiting_claims_can_be_failed_at_once() {
        let mut queue = queue(1, 1, 0..3);
        let opened = open(&mut queue);
        assert_eq!(queue.take_waiting().collect::<Vec<_>>(), [1, 2]);
        end(&mut queue, &opened, GroupEnd::Lost);
        assert_eq!(open(&mut queue), [0; 0]);
    }

    #[test]
    fn groups_below_the_limit_do_not_change_it() {
        let mut queue = queue(1, 8, 0..3);
        let ids = open(&mut queue);
        end(&mut queue, &ids, FAST);
        assert_eq!(queue.size, 8);
    }

    #[test]
    fn after_collisions_one_group_has_all_waiting_claims() {
        let mut queue = queue(4, 64, 0..8);
        let now = Instant::now();
        let groups: Vec<_> = (0..4).map(|_| open_at(&mut queue, now)).collect();
        assert!(groups.iter().all(|(_, level)| *level == Level::Parallel));
        (8..20).for_each(|id| queue.push(key(id), id));
        queue.collided(Level::Parallel, 1.0, now);
        let hold = queue
            .collided(Level::Parallel, 1.0, now)
            .expect("it changes");
        for (ids, _) in &groups {
            assert_eq!(open_at(&mut queue, now).0, [0; 0], "others are open");
            end(&mut queue, ids, GroupEnd::Collided);
        }
        let all: Vec<u32> = (8..20).collect();
        assert_eq!(open_at(&mut queue, now), (all, Level::Exclusive));
        queue.push(key(20), 20);
        queue.push(key(21), 21);
        assert_eq!(open_at(&mut queue, now).0, [0; 0]);
        let later = open_at(&mut queue, now + hold);
        assert_eq!(later, (vec![20], Level::Parallel), "they are spread again");
    }

    #[test]
    fn a_stricter_level_after_slow_groups_is_reported() {
        let mut queue = queue(2, 64, 0..2);
        let now = Instant::now();
        let ids = open(&mut queue);
        let keys: Vec<_> = ids.into_iter().map(key).collect();
        assert_eq!(queue.collided(Level::Parallel, 1.0, now), None);
        let slow = GroupEnd::After(TARGET_DURATION + Duration::from_millis(1));
        let hold = queue.ended(&keys, slow, Level::Parallel, now);
        assert!(hold.is_some());
        assert_eq!(queue.level(now), Level::Exclusive);
    }

    #[test]
    fn returned_claims_come_first_and_collided_ones_run_alone() {
        let mut queue = queue(1, 64, 0..3);
        let opened = open(&mut queue);
        assert_eq!(opened, [0, 1, 2]);
        queue.push(key(3), 3);
        queue.push(key(0), 0);
        queue.mark_suspect(key(0));
        queue.push_back_to_front(vec![(key(1), 1), (key(2), 2)]);
        end(&mut queue, &opened, GroupEnd::Collided);
        for expected in [&[1, 2, 3][..], &[0]] {
            assert_eq!(open(&mut queue), expected);
            end(&mut queue, expected, FAST);
        }
    }
}

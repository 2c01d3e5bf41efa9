//! Decides which claims share the next transaction. Pure: claims arrive and groups end; the queue
//! returns the next step.
//!
//! Owns the waiting claims and the keys in open transactions. Knows no store, no task and no clock.
//!
//! A transaction takes its claims when it has begun: those that arrive meanwhile share it, and none
//! waits for that. Until then it reserves one claim, for which no other transaction is opened. One
//! that begins slowly, as on a dead connection, reserves none.
//!
//! The size of a group follows its duration, like a congestion window: it doubles after a full
//! group that took less than half of the target duration, halves after one that took longer than
//! the target, and restarts at one after a failure. A claim never waits for company, so a low rate
//! has groups of one and a high rate large ones.

use super::contention::{Contention, Level};
use crate::inbox::InboxKey;
use foldhash::fast::RandomState;
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

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
    /// The hashes of the keys in open transactions. No two of them are equal: of two keys with one
    /// hash, the second waits as it would for the first's own end.
    claimed: HashSet<u64, RandomState>,
    /// Keys whose transaction was refused while it held other claims too. Each runs alone next,
    /// which shows the one that causes the refusal.
    suspects: HashSet<InboxKey, RandomState>,
    /// Open transactions of groups; those of batches are not counted here.
    open: usize,
    /// How many of them have not taken their claims yet.
    beginning: usize,
    /// How many of those begin slowly.
    slow: usize,
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
    /// Its transaction failed because of the data written in it, or because one of its handlers
    /// ended it, and which one is not known.
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
            slow: 0,
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

    /// Returns claims to the front of the queue, in the order of their arrival: they must wait, or
    /// their transaction ended before their turn.
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

    /// Records that a transaction takes long to begin. The caller asks [`Queue::may_open`] again,
    /// and calls [`Queue::take_late`] instead of [`Queue::take`].
    pub(super) fn begins_slowly(&mut self) {
        self.slow += 1;
    }

    /// The claims that transactions will take soon, at least.
    fn reserved(&self) -> usize {
        self.beginning - self.slow
    }

    /// Whether a claim is left if each transaction that begins soon takes only one. A transaction
    /// takes one claim of a key.
    fn has_claim_to_spare(&self) -> bool {
        let reserved = self.reserved();
        let mut taken: Vec<u64> = Vec::with_capacity(reserved);
        self.waiting.iter().any(|(key, _)| {
            let hash = self.hash_of(key);
            if self.claimed.contains(&hash) || taken.contains(&hash) {
                return false;
            }
            if taken.len() == reserved {
                return true;
            }
            taken.push(hash);
            false
        })
    }

    /// Stands for the key in `claimed`, which so needs no copy of it.
    fn hash_of(&self, key: &InboxKey) -> u64 {
        self.claimed.hasher().hash_one(key)
    }

    /// Takes the claims of a transaction that has begun, in the order of their arrival. None if
    /// other transactions took them meanwhile.
    ///
    /// Claims are spread over the transactions that may be open. A claim whose key is in an open
    /// transaction waits for its end: it is then a duplicate, or fresh again. A claim that was
    /// refused together with others is alone.
    pub(super) fn take(&mut self, now: Instant) -> (Vec<(InboxKey, W)>, Level) {
        self.take_at_most(usize::MAX, now)
    }

    /// As [`Queue::take`], after [`Queue::begins_slowly`].
    ///
    /// One that did not begin (`has_begun`) fails the claims that it takes. So it takes none while
    /// the store serves another transaction, and leaves one to each that begins soon.
    pub(super) fn take_late(
        &mut self,
        has_begun: bool,
        now: Instant,
    ) -> (Vec<(InboxKey, W)>, Level) {
        let is_served = self.open > self.beginning;
        let at_most = match has_begun {
            true => usize::MAX,
            false if is_served => 0,
            false => self.waiting.len().saturating_sub(self.reserved()),
        };
        self.slow -= 1;
        self.take_at_most(at_most, now)
    }

    fn take_at_most(&mut self, at_most: usize, now: Instant) -> (Vec<(InboxKey, W)>, Level) {
        let (open_max, size_max) = self.limits(now);
        let level = self.level(now);
        let with_claims = self.open - self.beginning;
        self.beginning -= 1;
        // If the level became stricter meanwhile, more are open than its maximum.
        let sharing = open_max.saturating_sub(with_claims).max(1);
        let size = self.waiting.len().div_ceil(sharing);
        let size = size.min(size_max).min(at_most);
        let mut group = Vec::with_capacity(size);
        let mut later = Vec::new();
        while group.len() < size
            && let Some((key, caller)) = self.waiting.pop_front()
        {
            let is_suspect = self.suspects.contains(&key);
            let hash = self.hash_of(&key);
            if self.claimed.contains(&hash) || is_suspect && !group.is_empty() {
                later.push((key, caller));
                continue;
            }
            self.suspects.remove(&key);
            self.claimed.insert(hash);
            group.push((key, caller));
            if is_suspect {
                break;
            }
        }
        self.push_back_to_front(later);
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
            let hash = self.hash_of(key);
            self.claimed.remove(&hash);
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

//! Decides which relay gets which slots. Pure: the clock is an argument.
//!
//! Owns the decision which slots to keep, claim and release, and the end of each lease of this
//! relay. Knows no store: it requests slots, and the store grants or refuses them.
//!
//! # Clocks
//! The store measures leases by its own clock and returns the time left; this relay measures by its
//! monotonic clock, from before the call. Its lease therefore ends earlier than the one in the
//! store, whatever the clocks of other machines show.
//!
//! # Convergence
//! Each relay computes the same shares from the registered names, without talking to the others:
//! surplus slots are released first and taken by others in their next round. No slot is taken from
//! an owner whose lease holds.

use crate::outbox::row::SLOTS;
use crate::outbox::store::{RelaysAndLeases, SlotLease};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// The next steps for the slots.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SlotPlan {
    /// Renew or claim these.
    pub(super) wanted: Vec<i16>,
    /// Release these, once none of their rows is being sent.
    pub(super) surplus: Vec<i16>,
    /// When a lease of another relay expires, unless it is renewed, or is about to be released:
    /// decide again then.
    pub(super) recheck_after: Option<Duration>,
}

/// When the slots of a relay that has deregistered are checked again. It keeps them until its last
/// rows are acknowledged, which usually takes less.
const RELEASE_CHECK: Duration = Duration::from_millis(200);

/// Decides for `me`. `mine` are the slots that it considers its own.
///
/// Each of n relays gets an n-th of the slots; the first by name get one more while a remainder is
/// left. A relay keeps its slots up to its share, takes free slots up to its share, and releases
/// the rest, so that slots move only when relays join or leave.
pub(super) fn plan_slots(me: &str, registered: &RelaysAndLeases, mine: &BTreeSet<i16>) -> SlotPlan {
    let share = share_of(me, &registered.relays);
    let until_free = |lease: &SlotLease| match registered.relays.contains(&lease.owner) {
        true => lease.expires_in,
        false => lease.expires_in.min(RELEASE_CHECK),
    };
    let others: BTreeMap<i16, Duration> = registered
        .leases
        .iter()
        .filter(|lease| lease.owner != me)
        .map(|lease| (lease.slot, until_free(lease)))
        .collect();
    let held = mine.iter().filter(|slot| !others.contains_key(*slot));
    let free = (0..SLOTS).filter(|slot| !mine.contains(slot) && !others.contains_key(slot));
    SlotPlan {
        surplus: held.clone().skip(share).copied().collect(),
        wanted: held.copied().chain(free).take(share).collect(),
        recheck_after: others.values().min().copied(),
    }
}

/// How many slots `me` gets.
fn share_of(me: &str, relays: &[String]) -> usize {
    let slots = SLOTS as usize;
    let count = relays.len().max(1);
    let rank = relays.iter().position(|relay| relay == me).unwrap_or(count);
    slots / count + usize::from(rank < slots % count)
}

/// This relay's slots, each until a time of this process's clock.
#[derive(Debug, Default)]
pub(super) struct SlotLeases {
    /// When each lease ends by this process's clock, with a margin.
    until: BTreeMap<i16, Instant>,
    /// Still leased, but no more of their rows are taken.
    leaving: BTreeSet<i16>,
}

impl SlotLeases {
    /// Records that the store granted these slots until then, counted from before the call. All
    /// other slots are lost. Returns the lost ones.
    pub(super) fn granted(&mut self, slots: &[i16], until: Instant) -> Vec<i16> {
        let lost = self
            .until
            .keys()
            .filter(|slot| !slots.contains(slot) && !self.leaving.contains(slot))
            .copied()
            .collect();
        self.until.retain(|slot, _| self.leaving.contains(slot));
        for slot in slots {
            self.leaving.remove(slot);
            self.until.insert(*slot, until);
        }
        lost
    }

    /// Stops sending from these slots.
    pub(super) fn leave(&mut self, slots: &[i16]) {
        self.leaving
            .extend(slots.iter().filter(|slot| self.until.contains_key(*slot)));
    }

    /// Records that these slots were released.
    pub(super) fn released(&mut self, slots: &[i16]) {
        for slot in slots {
            self.leaving.remove(slot);
            self.until.remove(slot);
        }
    }

    /// Removes the expired leases and returns their slots.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<i16> {
        let over = self.until.iter().filter(|(_, until)| **until <= now);
        let over: Vec<i16> = over.map(|(slot, _)| *slot).collect();
        self.released(&over);
        over
    }

    /// The time until which rows of this slot may be sent; `None` if the slot is not leased.
    pub(super) fn until(&self, slot: i16) -> Option<Instant> {
        let until = self.until.get(&slot).copied();
        until.filter(|_| !self.leaving.contains(&slot))
    }

    /// The slots from which rows may be sent.
    pub(super) fn slots(&self) -> BTreeSet<i16> {
        let ours = self
            .until
            .keys()
            .filter(|slot| !self.leaving.contains(slot));
        ours.copied().collect()
    }

    /// All slots that this relay has, also those to be released.
    pub(super) fn leased(&self) -> Vec<i16> {
        self.until.keys().copied().collect()
    }

    /// The slots to be released.
    pub(super) fn leaving(&self) -> Vec<i16> {
        self.leaving.iter().copied().collect()
    }

    /// The end of the first lease that expires.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.until.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the decisions of these relays in turn, for some rounds. Returns the slots of each at
    /// the end.
    fn settle(relays: &[&str], mut owners: BTreeMap<i16, String>) -> BTreeMap<String, usize> {
        for _ in 0..4 {
            for me in relays {
                let registered = RelaysAndLeases {
                    relays: relays.iter().map(|relay| (*relay).to_owned()).collect(),
                    leases: owners
                        .iter()
                        .map(|(slot, owner)| SlotLease {
                            slot: *slot,
                            owner: owner.clone(),
                            expires_in: Duration::from_secs(1),
                        })
                        .collect(),
                };
                let mine = owners.iter().filter(|(_, owner)| owner == me);
                let mine = mine.map(|(slot, _)| *slot).collect();
                let shares = plan_slots(me, &registered, &mine);
                owners.retain(|slot, _| !shares.surplus.contains(slot));
                for slot in shares.wanted {
                    let previous = owners.insert(slot, (*me).to_owned());
                    assert!(previous.is_none_or(|owner| owner == *me), "taken away");
                }
            }
        }
        assert_eq!(owners.len(), SLOTS as usize, "every slot has an owner");
        let mut counts = BTreeMap::new();
        for owner in owners.into_values() {
            *counts.entry(owner).or_default() += 1;
        }
        counts
    }

    #[test]
    fn shares_become_equal_from_any_start() {
        let all_of = |owner: &str| (0..SLOTS).map(|slot| (slot, owner.to_owned())).collect();
        let check = |relays: &[&str], owners, expected: &[usize]| {
            let counts: Vec<usize> = settle(relays, owners).into_values().collect();
            assert_eq!(counts, expected, "{relays:?}");
        };
        check(&["a"], BTreeMap::new(), &[64]);
        check(&["a", "b"], all_of("a"), &[32, 32]);
        check(&["a", "b", "c"], all_of("c"), &[22, 21, 21]);
    }

    /// The plan of `a`, which has no slot, while slot 3 belongs to `owner` for 7 s.
    fn plan_beside(owner: &str, relays: &[&str]) -> SlotPlan {
        let registered = RelaysAndLeases {
            relays: relays.iter().map(|relay| (*relay).to_owned()).collect(),
            leases: vec![SlotLease {
                slot: 3,
                owner: owner.to_owned(),
                expires_in: Duration::from_secs(7),
            }],
        };
        plan_slots("a", &registered, &BTreeSet::new())
    }

    #[test]
    fn a_lease_of_another_relay_is_checked_when_it_ends() {
        let shares = plan_beside("killed", &["a", "killed"]);
        assert_eq!(shares.recheck_after, Some(Duration::from_secs(7)));
        assert_eq!(shares.wanted.len(), 32);
        assert!(!shares.wanted.contains(&3));
    }

    #[test]
    fn a_slot_of_a_relay_that_deregistered_is_checked_soon() {
        let shares = plan_beside("leaving", &["a"]);
        assert_eq!(shares.recheck_after, Some(RELEASE_CHECK));
        assert_eq!(shares.wanted.len(), 63);
        assert!(!shares.wanted.contains(&3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_held_until_it_expires_or_is_left() {
        let (mut leases, now) = (SlotLeases::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert!(leases.granted(&[1, 2, 3], now + second).is_empty());
        assert_eq!(leases.granted(&[1, 2], now + second * 2), [3]);
        leases.leave(&[2, 9]);
        assert_eq!(leases.until(1), Some(now + second * 2));
        assert_eq!((leases.until(2), leases.until(3)), (None, None));
        assert_eq!((leases.leaving(), leases.leased()), (vec![2], vec![1, 2]));
        assert!(
            leases.granted(&[1], now + second * 3).is_empty(),
            "2 is left, not lost"
        );
        assert_eq!(leases.expire(now + second * 2), [2]);
        assert_eq!(leases.expire(now + second * 3), [1]);
        assert_eq!(leases.next_end(), None);
    }
}

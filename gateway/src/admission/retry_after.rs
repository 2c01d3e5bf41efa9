//! The ledger of callers that were told to come back.
//!
//! Each refusal books a place in the future, so that not more callers come back at a time than can
//! be served. `Retry-After` has whole seconds: a caller that is refused 0.3 s after a full second
//! comes back 0.3 s after another. The ledger therefore counts places in three widths: 20 ms,
//! 200 ms and a second. The short ones bound how many come at once, the long one how many come in
//! all.
//!
//! A booked place is also a right to be served before new requests: see
//! [`RetryLedger::redeem`]. It expires [`GRACE_S`] after its time.
//!
//! Memory: the counters have a fixed size, about 15 KB for a horizon of 60 s, and there are at most
//! [`BOOKINGS_MAX`] places, of about 100 bytes each. Knows nothing of the load: rates are arguments.

use super::settings::AdmissionSettings;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// The most places that are booked at a time. Above it callers are told to wait for the horizon.
const BOOKINGS_MAX: usize = 20_000;
/// How long a place is kept for a caller that comes late, in seconds.
const GRACE_S: u64 = 5;
/// The widths in which places are counted, in milliseconds.
const WIDTHS_MS: [u64; 3] = [20, 200, SECOND_MS];
const SECOND_MS: u64 = 1_000;

/// Identifies a request that comes back, or only its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RetryKey {
    /// Of the caller and the key of the request, if it has one.
    pub(super) hash: u64,
    /// Whether the request has a key of its own, so that it holds one place however often it asks.
    pub(super) is_unique: bool,
}

/// A refused request, for which a place is booked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused {
    /// Who it is.
    pub(super) key: RetryKey,
    /// The time before which it is of no use to come back.
    pub(super) earliest: Duration,
    /// Requests per second that can be served.
    pub(super) per_second: f64,
    /// Requests that may come back at once.
    pub(super) burst: u32,
    /// A random number from 0 to 1.
    pub(super) random: f64,
}

/// The booked places of the seconds to come.
#[derive(Debug)]
pub(super) struct RetryLedger {
    start: Instant,
    horizon_s: u64,
    share: f64,
    jitter: f64,
    counters: [Counters; 3],
    /// For each key the seconds of its places, and their number.
    places: HashMap<u64, Vec<(u64, u32)>>,
    /// For each second the keys with a place in it, also those that have used it.
    keys: BTreeMap<u64, Vec<u64>>,
    /// The length of all lists in `keys`.
    keys_len: usize,
}

impl RetryLedger {
    /// Without places. `settings` are in their range.
    pub(super) fn new(settings: &AdmissionSettings, now: Instant) -> Self {
        let horizon_s = settings.retry_horizon.as_secs();
        Self {
            start: now,
            horizon_s,
            share: settings.retry_share,
            jitter: settings.retry_jitter,
            counters: WIDTHS_MS.map(|width_ms| Counters::new(width_ms, horizon_s * SECOND_MS)),
            places: HashMap::new(),
            keys: BTreeMap::new(),
            keys_len: 0,
        }
    }

    /// Books the first place with room, at times a later one by chance. A request with a key that
    /// has a place to come keeps it. Without room up to the horizon, nothing is booked.
    ///
    /// Returns the time to wait: whole seconds, at least one.
    pub(super) fn book(&mut self, refused: &Refused, now: Instant) -> Duration {
        let now_ms = self.advance(now);
        if let Some(wait_s) = self.kept_place(refused.key, now_ms) {
            return Duration::from_secs(wait_s);
        }
        let earliest_s = refused.earliest.as_secs_f64().ceil() as u64;
        let first = earliest_s.clamp(1, self.horizon_s);
        let last = if self.keys_len < BOOKINGS_MAX {
            self.horizon_s
        } else {
            0
        };
        let found = (first..=last).find(|wait_s| self.has_room(refused, now_ms, *wait_s));
        let later = |wait_s: u64| wait_s + (refused.random * self.jitter * wait_s as f64) as u64;
        let Some(wait_s) = found else {
            return Duration::from_secs(later(self.horizon_s));
        };
        let by_chance = later(wait_s).min(self.horizon_s);
        let wait_s = if self.has_room(refused, now_ms, by_chance) {
            by_chance
        } else {
            wait_s
        };
        self.add(refused.key, now_ms + wait_s * SECOND_MS);
        Duration::from_secs(wait_s)
    }

    /// Uses the place of this key, if one is due. Then the request goes before new ones.
    pub(super) fn redeem(&mut self, key: RetryKey, now: Instant) -> bool {
        let second = self.advance(now) / SECOND_MS;
        let Some(places) = self.places.get_mut(&key.hash) else {
            return false;
        };
        let Some(index) = places.iter().position(|(due, _)| *due <= second) else {
            return false;
        };
        places[index].1 -= 1;
        if places[index].1 == 0 {
            places.swap_remove(index);
        }
        if places.is_empty() {
            self.places.remove(&key.hash);
        }
        true
    }

    /// Forgets what is past. Returns the milliseconds since the start.
    fn advance(&mut self, now: Instant) -> u64 {
        let now_ms = now.saturating_duration_since(self.start).as_millis() as u64;
        for counters in &mut self.counters {
            counters.advance(now_ms);
        }
        let second = now_ms / SECOND_MS;
        while let Some(first) = self.keys.first_entry()
            && first.key() + GRACE_S < second
        {
            let (expired, keys) = first.remove_entry();
            self.keys_len -= keys.len();
            for key in keys {
                if let Some(places) = self.places.get_mut(&key) {
                    places.retain(|(due, _)| *due != expired);
                    if places.is_empty() {
                        self.places.remove(&key);
                    }
                }
            }
        }
        now_ms
    }

    /// The seconds until the place that this request has already.
    fn kept_place(&self, key: RetryKey, now_ms: u64) -> Option<u64> {
        if !key.is_unique {
            return None;
        }
        let second = now_ms / SECOND_MS;
        let places = self.places.get(&key.hash)?;
        let due = places
            .iter()
            .map(|(due, _)| *due)
            .find(|due| *due > second)?;
        // A place is known to the second. The next one is surely not too early.
        Some(due + 1 - second)
    }

    fn has_room(&self, refused: &Refused, now_ms: u64, wait_s: u64) -> bool {
        let at_ms = now_ms + wait_s * SECOND_MS;
        self.counters
            .iter()
            .all(|counters| counters.at(at_ms) < places_in(counters.width_ms, refused, self.share))
    }

    fn add(&mut self, key: RetryKey, at_ms: u64) {
        for counters in &mut self.counters {
            counters.add(at_ms);
        }
        let second = at_ms / SECOND_MS;
        // Most keys have one place.
        let places = self.places.entry(key.hash);
        let places = places.or_insert_with(|| Vec::with_capacity(1));
        match places.iter_mut().find(|(due, _)| *due == second) {
            Some((_, count)) => *count += 1,
            None => places.push((second, 1)),
        }
        self.keys.entry(second).or_default().push(key.hash);
        self.keys_len += 1;
    }
}

/// The places that there are in a time of this width.
fn places_in(width_ms: u64, refused: &Refused, share: f64) -> u32 {
    let served = (share * refused.per_second * width_ms as f64 / SECOND_MS as f64) as u32;
    if width_ms == SECOND_MS {
        served.max(1)
    } else {
        served.saturating_add(refused.burst.max(1))
    }
}

/// The booked places up to the horizon, in times of one width. A ring.
#[derive(Debug)]
struct Counters {
    width_ms: u64,
    counts: Vec<u32>,
    /// The number of the first time that is not past.
    first: u64,
}

impl Counters {
    fn new(width_ms: u64, horizon_ms: u64) -> Self {
        let len = horizon_ms / width_ms + 2;
        Self {
            width_ms,
            counts: vec![0; len as usize],
            first: 0,
        }
    }

    fn index(&self, number: u64) -> usize {
        (number % self.counts.len() as u64) as usize
    }

    fn advance(&mut self, now_ms: u64) {
        let first = (now_ms / self.width_ms).max(self.first);
        let past = (first - self.first).min(self.counts.len() as u64);
        for number in self.first..self.first + past {
            let index = self.index(number);
            self.counts[index] = 0;
        }
        self.first = first;
    }

    fn at(&self, at_ms: u64) -> u32 {
        self.counts[self.index(at_ms / self.width_ms)]
    }

    fn add(&mut self, at_ms: u64) {
        let index = self.index(at_ms / self.width_ms);
        self.counts[index] = self.counts[index].saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ledger(jitter: f64, start: Instant) -> RetryLedger {
        let horizon = Duration::from_secs(60);
        let settings = AdmissionSettings::default().with_retries(horizon, 0.5, jitter);
        RetryLedger::new(&settings.in_range(), start)
    }

    fn unique(hash: u64) -> RetryKey {
        RetryKey {
            hash,
            is_unique: true,
        }
    }

    fn refused(hash: u64, per_second: f64) -> Refused {
        Refused {
            key: unique(hash),
            earliest: Duration::ZERO,
            per_second,
            burst: 1_000,
            random: 0.0,
        }
    }

    fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn callers_are_spread_over_the_seconds() {
        let now = Instant::now();
        let mut ledger = ledger(0.0, now);
        // Half of 20 per second.
        let waits: Vec<_> = (0..30)
            .map(|n| ledger.book(&refused(n, 20.0), now))
            .collect();
        for (n, wait) in waits.into_iter().enumerate() {
            assert_eq!(wait, secs(1 + n as u64 / 10), "{n}");
        }
    }

    #[test]
    fn not_more_than_a_burst_comes_back_at_once() {
        let now = Instant::now();
        let mut ledger = ledger(0.0, now);
        let busy = |n| Refused {
            burst: 3,
            ..refused(n, 100.0)
        };
        let waits: Vec<_> = (0..8)
            .map(|n| ledger.book(&busy(n), now).as_secs())
            .collect();
        // In 20 ms 3, and 1 by the rate.
        assert_eq!(waits, [1, 1, 1, 1, 2, 2, 2, 2]);
        // A little later in the second there is room.
        let later = now + Duration::from_millis(500);
        assert_eq!(ledger.book(&busy(9), later), secs(1));
    }

    #[test]
    fn without_room_the_horizon_is_named() {
        let now = Instant::now();
        let mut ledger = ledger(0.2, now);
        for n in 0..60 {
            ledger.book(&refused(n, 0.1), now);
        }
        let full = Refused {
            random: 0.5,
            ..refused(100, 0.1)
        };
        assert_eq!(ledger.book(&full, now), secs(66));
        assert!(!ledger.redeem(unique(100), now + secs(66)));
    }

    #[test]
    fn nobody_comes_before_it_is_of_use() {
        let now = Instant::now();
        let mut ledger = ledger(0.0, now);
        for (earliest_ms, seconds) in [(0, 1), (7_001, 8), (3_600_000, 60)] {
            let earliest = Duration::from_millis(earliest_ms);
            let refused = Refused {
                earliest,
                ..refused(earliest_ms, 100.0)
            };
            assert_eq!(ledger.book(&refused, now), secs(seconds), "{earliest:?}");
        }
    }

    #[test]
    fn a_place_is_used_once_and_not_early() {
        let start = Instant::now();
        let mut ledger = ledger(0.0, start);
        let now = start + Duration::from_millis(300);
        assert_eq!(ledger.book(&refused(1, 10.0), now), secs(1));
        assert!(!ledger.redeem(unique(1), now + Duration::from_millis(600)));
        assert!(!ledger.redeem(unique(2), now + secs(1)));
        assert!(ledger.redeem(unique(1), now + secs(1)));
        assert!(!ledger.redeem(unique(1), now + secs(1)));
    }

    #[test]
    fn a_place_expires_after_the_grace() {
        for (late_s, is_kept) in [(GRACE_S, true), (GRACE_S + 2, false)] {
            let now = Instant::now();
            let mut ledger = ledger(0.0, now);
            ledger.book(&refused(1, 10.0), now);
            assert_eq!(
                ledger.redeem(unique(1), now + secs(1 + late_s)),
                is_kept,
                "{late_s}"
            );
            ledger.advance(now + secs(60));
            assert_eq!((ledger.keys_len, ledger.places.len()), (0, 0));
        }
    }

    #[test]
    fn a_request_that_asks_too_often_keeps_its_one_place() {
        let now = Instant::now();
        let mut ledger = ledger(0.0, now);
        ledger.book(
            &Refused {
                earliest: secs(10),
                ..refused(1, 10.0)
            },
            now,
        );
        for second in 0..9 {
            let wait = ledger.book(&refused(1, 10.0), now + secs(second));
            assert_eq!(wait, secs(11 - second), "after {second} s");
        }
        assert_eq!(ledger.keys_len, 1);
    }

    #[test]
    fn a_caller_without_keys_has_as_many_places_as_refusals() {
        let now = Instant::now();
        let mut ledger = ledger(0.0, now);
        let caller = RetryKey {
            hash: 7,
            is_unique: false,
        };
        for _ in 0..5 {
            ledger.book(
                &Refused {
                    key: caller,
                    ..refused(0, 100.0)
                },
                now,
            );
        }
        let redeemed = (0..10)
            .filter(|_| ledger.redeem(caller, now + secs(1)))
            .count();
        assert_eq!(redeemed, 5);
    }

    #[test]
    fn the_number_of_places_is_bounded() {
        let now = Instant::now();
        let mut ledger = ledger(0.0, now);
        let many = |n| Refused {
            burst: u32::MAX,
            ..refused(n, 1e9)
        };
        for n in 0..BOOKINGS_MAX as u64 {
            assert_eq!(ledger.book(&many(n), now), secs(1));
        }
        assert_eq!(ledger.book(&many(u64::MAX), now), secs(60));
        assert_eq!(ledger.keys_len, BOOKINGS_MAX);
    }

    proptest! {
        #[test]
        fn no_second_is_booked_beyond_its_places(
            per_second in 0.1_f64..500.0,
            burst in 1_u32..20,
            steps in proptest::collection::vec((0_u64..300, 0.0_f64..1.0, 1_u32..30), 1..100),
        ) {
            let start = Instant::now();
            let mut ledger = ledger(0.3, start);
            let mut now = start;
            let mut booked: HashMap<u64, u32> = HashMap::new();
            let mut hash = 0;
            for (pause_ms, random, count) in steps {
                now += Duration::from_millis(pause_ms);
                for _ in 0..count {
                    hash += 1;
                    let refused = Refused { burst, random, ..refused(hash, per_second) };
                    let places_before = ledger.keys_len;
                    let wait = ledger.book(&refused, now);
                    prop_assert!(wait >= secs(1) && wait <= secs(78), "{wait:?}");
                    prop_assert_eq!(wait.subsec_nanos(), 0);
                    if ledger.keys_len > places_before {
                        let at_ms = (now + wait).duration_since(start).as_millis() as u64;
                        *booked.entry(at_ms / SECOND_MS).or_default() += 1;
                    }
                }
            }
            let places = ((0.5 * per_second) as u32).max(1);
            for (second, count) in booked {
                prop_assert!(count <= places, "{count} of {places} in second {second}");
            }
        }
    }
}

//! Limits the rate at which records are taken: a token bucket.
//!
//! Pure: the time is an argument.
//!
//! The bucket refills continuously at the rate, up to its capacity. `remove_tokens` may make it
//! negative, for example by a burst that was taken before the rate was set; nothing is taken until it is
//! positive again, so that the mean rate is kept.

use std::num::NonZeroU32;
use std::time::Duration;

/// The bucket holds the tokens of this time: short enough for an even flow, long enough for
/// batches.
const BURST: Duration = Duration::from_millis(100);

/// A token bucket of records.
#[derive(Debug, Clone)]
pub(crate) struct TokenBucket {
    records_per_second: NonZeroU32,
    tokens: f64,
    at: Duration,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub(crate) fn new(records_per_second: NonZeroU32, now: Duration) -> Self {
        let mut bucket = Self {
            records_per_second,
            tokens: 0.0,
            at: now,
        };
        bucket.tokens = bucket.capacity();
        bucket
    }

    /// The rate of the bucket.
    pub(crate) fn rate(&self) -> NonZeroU32 {
        self.records_per_second
    }

    /// How many records may be taken now.
    pub(crate) fn room(&mut self, now: Duration) -> usize {
        let passed = now.saturating_sub(self.at);
        self.at = now.max(self.at);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.per_second()).min(self.capacity());
        self.tokens as usize
    }

    /// Removes the tokens of records that were taken.
    pub(crate) fn remove_tokens(&mut self, records: usize) {
        self.tokens -= records as f64;
    }

    fn per_second(&self) -> f64 {
        f64::from(self.records_per_second.get())
    }

    /// At least one, as otherwise no record could ever be taken.
    fn capacity(&self) -> f64 {
        (self.per_second() * BURST.as_secs_f64()).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn bucket(rate: u32) -> TokenBucket {
        TokenBucket::new(
            NonZeroU32::new(rate).expect("more than none"),
            Duration::ZERO,
        )
    }

    /// At least one record.
    #[test]
    fn a_burst_is_a_tenth_of_a_second() {
        assert_eq!(bucket(1000).room(Duration::ZERO), 100);
        assert_eq!(bucket(2).room(Duration::ZERO), 1);
        assert_eq!(bucket(1000).room(Duration::from_secs(60)), 100);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut bucket = bucket(1000);
        bucket.room(500 * MS);
        bucket.remove_tokens(100);
        assert_eq!(bucket.room(400 * MS), 0);
        assert_eq!(bucket.room(500 * MS), 0);
        assert_eq!(bucket.room(510 * MS), 10);
    }

    proptest! {
        #[test]
        fn the_rate_holds_however_often_room_is_requested(
            rate in 1..5_000_u32,
            steps in proptest::collection::vec(1..50_u32, 100..200),
        ) {
            let mut bucket = bucket(rate);
            let (mut now, mut taken) = (Duration::ZERO, 0);
            for step in steps {
                now += step * MS;
                let room = bucket.room(now);
                bucket.remove_tokens(room);
                taken += room;
            }
            let due = now.as_secs_f64() * f64::from(rate);
            let burst = (f64::from(rate) / 10.0).max(1.0);
            prop_assert!(taken as f64 <= due + burst + 1.0, "{} of {}", taken, due);
            prop_assert!(taken as f64 >= due - 1.0 || rate < 20 , "{} of {}", taken, due);
        }
    }
}

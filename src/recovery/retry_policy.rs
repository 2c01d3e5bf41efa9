//! The retry policy. Pure: clock and randomness are arguments.
//!
//! Decides what follows a failed attempt. Knows neither record nor handler nor task. The caller
//! counts: outages and transient failures apart, so that an outage uses up no attempt.

use crate::failure::{Backoff, Class};
use std::time::Duration;

/// How failed attempts are retried: in place first, then parked, then not any more.
///
/// Only transient failures use up attempts, and timeouts while other records of the dependency do
/// not time out: while a dependency is down every record fails, and counting those attempts would
/// empty the topic into the dead-letter topic.
///
/// | setting | default | bounds |
/// |---|---|---|
/// | [`attempts_max`](Self::attempts_max) | 5 | attempts in place |
/// | [`backoff`](Self::backoff) | 100 ms, doubled up to 30 s | waits between them |
/// | [`park_delays`](Self::park_delays) | 10 s, 1 min, 10 min | waits in the retry topic |
///
/// With the defaults a record has eight attempts in about 11 minutes. Later records of its key wait
/// all that time, those of other keys do not.
///
/// ```
/// use evenkeel::recovery::RetryPolicy;
/// use std::time::Duration;
///
/// let policy = RetryPolicy::default()
///     .with_attempts_max(3)
///     .with_park_delays([Duration::from_secs(30), Duration::from_secs(300)]);
/// assert_eq!(policy.backoff.initial, Duration::from_millis(100));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Bounds the attempts in place of a record with transient failures. Default 5. 0 counts as 1.
    /// At the bound the record is parked, or dead-lettered without
    /// [`park_delays`](Self::park_delays). The attempts of one delivery count: a restart or a
    /// rebalance starts again at 1.
    pub attempts_max: u32,
    /// The waits between the attempts in place. Default 100 ms at first, doubled with each attempt
    /// up to 30 s, of which up to a fifth is random. During an outage the waits grow the same way,
    /// and the record also waits for the dependency's breaker. The tries to write a dead letter or
    /// a retry entry, which never end, have the same waits.
    ///
    /// A waiting record holds memory and the offset of its partition, but no place in
    /// [`concurrency`](crate::consumer::ConsumerSettings::concurrency). Waits of minutes belong in
    /// [`park_delays`](Self::park_delays).
    pub backoff: Backoff,
    /// How long a record is parked before each of its further attempts, one after each delay. Then
    /// it is dead-lettered. Default 10 s, 1 min and 10 min. Without delays, and without a retry
    /// topic, it is dead-lettered after the attempts in place.
    ///
    /// A parked record survives a restart and holds back no offset. Kafka must not delete records
    /// of the retry topic by time or size; the consumer creates the topic so, and checks it.
    pub park_delays: Vec<Duration>,
}

/// What follows a failed attempt.
///
/// [`RetryPolicy::decide`] returns it. A program that consumes without this library's consumer can
/// apply the same policy with it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
#[must_use]
pub enum RetryDecision {
    /// Wait this long, then try again in place.
    RetryAfter(Duration),
    /// Park the record for this long. Its key waits, and its partition continues.
    Park(Duration),
    /// Write the record to the dead-letter topic.
    DeadLetter,
}

impl RetryPolicy {
    /// Sets [`attempts_max`](Self::attempts_max).
    #[must_use]
    pub fn with_attempts_max(mut self, attempts_max: u32) -> Self {
        self.attempts_max = attempts_max;
        self
    }

    /// Sets [`backoff`](Self::backoff).
    #[must_use]
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets [`park_delays`](Self::park_delays).
    #[must_use]
    pub fn with_park_delays(mut self, park_delays: impl IntoIterator<Item = Duration>) -> Self {
        self.park_delays = park_delays.into_iter().collect();
        self
    }

    /// Decides after attempt number `attempt` (from 1) failed with `class`. `random` is uniform in
    /// [0, 1). `rounds` is how often the record was parked before.
    ///
    /// After a transient failure or a timeout, the record is retried until the attempts in place
    /// are used up, and then parked until the delays are used up. After an outage it is always
    /// retried, after a permanent failure never. A record that was parked before (`rounds` above 0)
    /// has one attempt after each delay.
    ///
    /// ```
    /// use evenkeel::handler::Class;
    /// use evenkeel::recovery::{RetryDecision, RetryPolicy};
    /// use std::time::Duration;
    ///
    /// let policy = RetryPolicy::default();
    /// let first_park = RetryDecision::Park(Duration::from_secs(10));
    /// assert_eq!(policy.decide(Class::Transient, 5, 0, 0.5), first_park);
    /// assert_eq!(policy.decide(Class::Transient, 1, 3, 0.5), RetryDecision::DeadLetter);
    /// assert_eq!(policy.decide(Class::Permanent, 1, 0, 0.5), RetryDecision::DeadLetter);
    /// ```
    pub fn decide(&self, class: Class, attempt: u32, rounds: u32, random: f64) -> RetryDecision {
        let again = RetryDecision::RetryAfter(self.backoff.delay(attempt, random));
        match class {
            Class::Permanent => RetryDecision::DeadLetter,
            Class::Outage => again,
            Class::Transient | Class::Timeout if rounds == 0 && attempt < self.attempts_max => {
                again
            }
            Class::Transient | Class::Timeout => match self.park_delays.get(rounds as usize) {
                Some(delay) => RetryDecision::Park(*delay),
                None => RetryDecision::DeadLetter,
            },
        }
    }

    /// The same decision, with a wait of at least `after` if the failure requests one
    /// ([`HandlerError::retry_after`](crate::handler::HandlerError::retry_after)). A longer wait
    /// than all of this policy's is cut to the longest of them, so that no answer of a server can
    /// make a record wait for ever.
    ///
    /// ```
    /// use evenkeel::recovery::{RetryDecision, RetryPolicy};
    /// use std::time::Duration;
    ///
    /// let policy = RetryPolicy::default();
    /// let soon = RetryDecision::RetryAfter(Duration::from_millis(100));
    /// let longer = policy.apply_retry_after(soon, Some(Duration::from_secs(5)));
    /// assert_eq!(longer, RetryDecision::RetryAfter(Duration::from_secs(5)));
    /// let bounded = policy.apply_retry_after(soon, Some(Duration::from_secs(86_400)));
    /// assert_eq!(bounded, RetryDecision::RetryAfter(Duration::from_secs(600)));
    /// ```
    pub fn apply_retry_after(
        &self,
        decision: RetryDecision,
        after: Option<Duration>,
    ) -> RetryDecision {
        let longest = self.park_delay_max().max(self.backoff.max);
        let after = after.unwrap_or_default().min(longest);
        match decision {
            RetryDecision::RetryAfter(delay) => RetryDecision::RetryAfter(delay.max(after)),
            RetryDecision::Park(delay) => RetryDecision::Park(delay.max(after)),
            RetryDecision::DeadLetter => RetryDecision::DeadLetter,
        }
    }

    /// The longest time for which a record is parked at once.
    pub(crate) fn park_delay_max(&self) -> Duration {
        self.park_delays.iter().copied().max().unwrap_or_default()
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            backoff: Backoff {
                initial: Duration::from_millis(100),
                max: Duration::from_secs(30),
                factor: 2.0,
                jitter: 0.2,
            },
            park_delays: [10, 60, 600].map(Duration::from_secs).to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::DELAY_MIN;
    use proptest::prelude::*;

    /// Without jitter, so that the delays are exact.
    fn policy(attempts_max: u32) -> RetryPolicy {
        RetryPolicy {
            attempts_max,
            backoff: Backoff {
                jitter: 0.0,
                ..RetryPolicy::default().backoff
            },
            park_delays: [10, 60].map(Duration::from_secs).to_vec(),
        }
    }

    fn after_ms(ms: u64) -> RetryDecision {
        RetryDecision::RetryAfter(Duration::from_millis(ms))
    }

    #[test]
    fn the_class_and_the_attempt_decide() {
        let check = |class, attempts_max, attempt, expected| {
            let decided = policy(attempts_max).decide(class, attempt, 0, 0.5);
            assert_eq!(decided, expected, "{class:?} {attempt} of {attempts_max}");
        };
        let parked = RetryDecision::Park(Duration::from_secs(10));
        check(Class::Transient, 3, 1, after_ms(100));
        check(Class::Transient, 3, 2, after_ms(200));
        check(Class::Transient, 3, 3, parked);
        check(Class::Transient, 3, u32::MAX, parked);
        check(Class::Transient, 1, 1, parked);
        check(Class::Transient, 0, 1, parked);
        check(Class::Permanent, 10, 1, RetryDecision::DeadLetter);
        check(Class::Permanent, u32::MAX, 0, RetryDecision::DeadLetter);
        check(Class::Timeout, 3, 2, after_ms(200));
        check(Class::Timeout, 3, 3, parked);
        check(Class::Outage, 3, 3, after_ms(400));
        check(Class::Outage, 0, 1, after_ms(100));
        check(Class::Outage, 3, 1_000, after_ms(30_000));
        check(Class::Outage, 3, u32::MAX, after_ms(30_000));
    }

    #[test]
    fn each_wait_allows_one_attempt_the_last_dead_letters() {
        let check = |class, rounds, expected| {
            assert_eq!(
                policy(5).decide(class, 1, rounds, 0.5),
                expected,
                "{class:?} {rounds}"
            );
        };
        check(
            Class::Transient,
            1,
            RetryDecision::Park(Duration::from_secs(60)),
        );
        check(Class::Transient, 2, RetryDecision::DeadLetter);
        check(Class::Transient, u32::MAX, RetryDecision::DeadLetter);
        check(Class::Permanent, 1, RetryDecision::DeadLetter);
        check(Class::Outage, u32::MAX, after_ms(100));
        let in_place = RetryPolicy {
            park_delays: Vec::new(),
            ..policy(1)
        };
        assert_eq!(
            in_place.decide(Class::Transient, 1, 0, 0.5),
            RetryDecision::DeadLetter
        );
    }

    #[test]
    fn a_requested_wait_is_respected_up_to_a_limit() {
        let seconds = Duration::from_secs;
        for (decided, after, expected) in [
            (after_ms(100), None, after_ms(100)),
            (after_ms(100), Some(seconds(7)), after_ms(7_000)),
            (after_ms(9_000), Some(seconds(7)), after_ms(9_000)),
            (after_ms(100), Some(Duration::MAX), after_ms(60_000)),
            (
                RetryDecision::Park(seconds(10)),
                Some(seconds(33)),
                RetryDecision::Park(seconds(33)),
            ),
            (
                RetryDecision::DeadLetter,
                Some(seconds(7)),
                RetryDecision::DeadLetter,
            ),
        ] {
            assert_eq!(
                policy(3).apply_retry_after(decided, after),
                expected,
                "{after:?}"
            );
        }
    }

    #[test]
    fn jitter_takes_its_share_and_no_more() {
        let backoff = RetryPolicy::default().backoff;
        assert_eq!(backoff.delay(1, 0.0), Duration::from_millis(80));
        assert_eq!(backoff.delay(1, 0.5), Duration::from_millis(90));
        assert_eq!(backoff.delay(1, 1.0), Duration::from_millis(100));
    }

    #[test]
    fn a_policy_of_zeros_still_waits() {
        let backoff = Backoff {
            initial: Duration::ZERO,
            max: Duration::ZERO,
            factor: f64::INFINITY,
            jitter: 1.0,
        };
        assert_eq!(backoff.delay(u32::MAX, 0.0), DELAY_MIN);
    }

    proptest! {
        #[test]
        fn any_numbers_give_a_wait_within_bounds(
            initial_ms in any::<u64>(),
            max_ms in any::<u64>(),
            factor in any::<f64>(),
            jitter in any::<f64>(),
            attempt in any::<u32>(),
            random in any::<f64>(),
        ) {
            let max = Duration::from_millis(max_ms);
            let backoff = Backoff { initial: Duration::from_millis(initial_ms), max, factor, jitter };
            let delay = backoff.delay(attempt, random);
            prop_assert!(delay >= DELAY_MIN);
            // Seconds as f64 have 53 bits: a delay of centuries may round up by fractions of a
            // second.
            let rounding = max.mul_f64(1e-15);
            prop_assert!(delay <= max.max(DELAY_MIN) + rounding, "{delay:?} above {max:?}");
        }
    }
}

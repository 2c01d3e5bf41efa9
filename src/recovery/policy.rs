//! The retry policy: pure; clock and randomness come in as arguments.
//!
//! Owns the decision what to do after a failed attempt. Knows no record, no handler and no task.

use crate::durations::bound;
use crate::handler::Class;
use std::time::Duration;

/// The shortest wait between attempts: a policy of zeros must not turn a failing record into a busy loop.
const DELAY_MIN: Duration = Duration::from_millis(1);

/// Jittered exponential backoff.
///
/// Numbers that make no sense (negative, not a number, infinite) are read as the nearest that does: a growth below 1 as
/// 1, a jitter outside 0 to 1 as its nearer end. A wait is never below 1 ms and never above `max` (where that is more).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Delay before the second attempt.
    pub initial: Duration,
    /// Delay at most.
    pub max: Duration,
    /// Growth per attempt.
    pub factor: f64,
    /// Share of the delay that is random, 0 to 1. It only shortens the delay, so that `max` holds.
    pub jitter: f64,
}

/// How failed attempts are retried: in place first, then parked, then not any more.
///
/// Only transient failures use up attempts, and timeouts of which others are spared: while a dependency is down every record
/// fails, and counting those attempts would empty the topic into the dead-letter topic.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in place at a transiently failing record before it is parked; 0 is read as 1.
    pub attempts_max: u32,
    /// The waits between them.
    pub backoff: Backoff,
    /// How long a record is parked before each of its further attempts, one after each wait. Then it is dead-lettered; at once
    /// where there are none.
    pub park_delays: Vec<Duration>,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decision {
    /// Wait that long, then try again.
    RetryAfter(Duration),
    /// Park it for that long: its key waits, and its partition goes on.
    Park(Duration),
    /// Write it to the dead-letter topic.
    DeadLetter,
}

impl Backoff {
    /// The same with durations that can be reckoned with.
    pub(crate) fn bounded(mut self) -> Self {
        bound([&mut self.initial, &mut self.max]);
        self
    }

    /// The wait after attempt number `attempt` (from 1); `random` is uniform in [0, 1).
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let factor = if self.factor >= 1.0 { self.factor } else { 1.0 };
        let exponent = f64::from(attempt.max(1) - 1);
        let grown = self.initial.as_secs_f64() * factor.powf(exponent);
        // Zero times an overflowed growth is not a number; the initial delay of zero is what was asked for.
        let grown = if grown.is_nan() { 0.0 } else { grown };
        let capped = grown.min(self.max.as_secs_f64());
        let random_part = capped * share(self.jitter) * (1.0 - share(random));
        Duration::try_from_secs_f64(capped - random_part)
            .unwrap_or(self.max)
            .max(DELAY_MIN)
    }
}

/// The nearest number from 0 to 1; 0 for what is not a number.
fn share(number: f64) -> f64 {
    if number.is_nan() {
        0.0
    } else {
        number.clamp(0.0, 1.0)
    }
}

impl RetryPolicy {
    /// Decides after attempt number `attempt` (from 1) failed with `class`; `random` is uniform in [0, 1). `rounds` is how often
    /// the record was parked before.
    ///
    /// A transient failure, or a timeout, is tried again until the attempts in place are used up, then parked until the delays are, an
    /// outage is tried again always, a permanent one never.
    pub fn decide(&self, class: Class, attempt: u32, rounds: u32, random: f64) -> Decision {
        let again = Decision::RetryAfter(self.backoff.delay(attempt, random));
        match class {
            Class::Permanent => Decision::DeadLetter,
            Class::Outage => again,
            Class::Transient | Class::Timeout if rounds == 0 && attempt < self.attempts_max => {
                again
            }
            Class::Transient | Class::Timeout => match self.park_delays.get(rounds as usize) {
                Some(delay) => Decision::Park(*delay),
                None => Decision::DeadLetter,
            },
        }
    }

    /// The longest that a record is parked at a time.
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
    use proptest::prelude::*;

    /// Without jitter, so that delays can be written down.
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

    fn after_ms(ms: u64) -> Decision {
        Decision::RetryAfter(Duration::from_millis(ms))
    }

    #[test]
    fn the_class_and_the_attempt_decide() {
        let check = |class, attempts_max, attempt, expected| {
            let decided = policy(attempts_max).decide(class, attempt, 0, 0.5);
            assert_eq!(decided, expected, "{class:?} {attempt} of {attempts_max}");
        };
        let parked = Decision::Park(Duration::from_secs(10));
        check(Class::Transient, 3, 1, after_ms(100));
        check(Class::Transient, 3, 2, after_ms(200));
        check(Class::Transient, 3, 3, parked);
        check(Class::Transient, 3, u32::MAX, parked);
        check(Class::Transient, 1, 1, parked);
        check(Class::Transient, 0, 1, parked);
        check(Class::Permanent, 10, 1, Decision::DeadLetter);
        check(Class::Permanent, u32::MAX, 0, Decision::DeadLetter);
        check(Class::Timeout, 3, 2, after_ms(200));
        check(Class::Timeout, 3, 3, parked);
        check(Class::Outage, 3, 3, after_ms(400));
        check(Class::Outage, 0, 1, after_ms(100));
        check(Class::Outage, 3, 1_000, after_ms(30_000));
        check(Class::Outage, 3, u32::MAX, after_ms(30_000));
    }

    #[test]
    fn each_wait_of_a_parked_record_ends_in_one_attempt_and_the_last_in_a_dead_letter() {
        let check = |class, rounds, expected| {
            assert_eq!(
                policy(5).decide(class, 1, rounds, 0.5),
                expected,
                "{class:?} {rounds}"
            );
        };
        check(Class::Transient, 1, Decision::Park(Duration::from_secs(60)));
        check(Class::Transient, 2, Decision::DeadLetter);
        check(Class::Transient, u32::MAX, Decision::DeadLetter);
        check(Class::Permanent, 1, Decision::DeadLetter);
        check(Class::Outage, u32::MAX, after_ms(100));
        let in_place = RetryPolicy {
            park_delays: Vec::new(),
            ..policy(1)
        };
        assert_eq!(
            in_place.decide(Class::Transient, 1, 0, 0.5),
            Decision::DeadLetter
        );
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
            // Seconds as f64 hold 53 bits: a delay of centuries may round up by parts of a second.
            let rounding = max.mul_f64(1e-15);
            prop_assert!(delay <= max.max(DELAY_MIN) + rounding, "{delay:?} above {max:?}");
        }
    }
}

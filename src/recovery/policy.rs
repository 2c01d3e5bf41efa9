//! The retry policy: pure; clock and randomness come in as arguments.
//!
//! Owns the decision what to do after a failed attempt. Knows no record, no handler and no task.

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

/// How failed attempts are retried in place.
///
/// Only transient failures use up attempts: while a dependency is down every record fails, and counting those attempts
/// would empty the topic into the dead-letter topic.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts at a transiently failing record before it is dead-lettered; 0 is read as 1.
    pub attempts_max: u32,
    /// The waits between them.
    pub backoff: Backoff,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decision {
    /// Wait that long, then try again.
    RetryAfter(Duration),
    /// Write it to the dead-letter topic.
    DeadLetter,
}

impl Backoff {
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
    /// Decides after attempt number `attempt` (from 1) failed with `class`; `random` is uniform in [0, 1).
    ///
    /// A transient failure is tried again until the attempts are used up, an outage always, a permanent one never.
    pub fn decide(&self, class: Class, attempt: u32, random: f64) -> Decision {
        match class {
            Class::Permanent => Decision::DeadLetter,
            Class::Transient if attempt >= self.attempts_max.max(1) => Decision::DeadLetter,
            Class::Transient | Class::Outage => {
                Decision::RetryAfter(self.backoff.delay(attempt, random))
            }
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 10,
            backoff: Backoff {
                initial: Duration::from_millis(100),
                max: Duration::from_secs(30),
                factor: 2.0,
                jitter: 0.2,
            },
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
        }
    }

    fn after_ms(ms: u64) -> Decision {
        Decision::RetryAfter(Duration::from_millis(ms))
    }

    #[test]
    fn the_class_and_the_attempt_decide() {
        let check = |class, attempts_max, attempt, expected| {
            let decided = policy(attempts_max).decide(class, attempt, 0.5);
            assert_eq!(decided, expected, "{class:?} {attempt} of {attempts_max}");
        };
        check(Class::Transient, 3, 1, after_ms(100));
        check(Class::Transient, 3, 2, after_ms(200));
        check(Class::Transient, 3, 3, Decision::DeadLetter);
        check(Class::Transient, 3, u32::MAX, Decision::DeadLetter);
        check(Class::Transient, 1, 1, Decision::DeadLetter);
        check(Class::Transient, 0, 1, Decision::DeadLetter);
        check(Class::Permanent, 10, 1, Decision::DeadLetter);
        check(Class::Permanent, u32::MAX, 0, Decision::DeadLetter);
        check(Class::Outage, 3, 3, after_ms(400));
        check(Class::Outage, 0, 1, after_ms(100));
        check(Class::Outage, 3, 1_000, after_ms(30_000));
        check(Class::Outage, 3, u32::MAX, after_ms(30_000));
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

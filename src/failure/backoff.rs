//! Jittered exponential backoff. Pure: the randomness is an argument.

use crate::durations::bound;
use std::time::Duration;

/// The shortest wait between attempts: a policy of zeros must not turn a failing record into a busy
/// loop.
pub(crate) const DELAY_MIN: Duration = Duration::from_millis(1);

/// Jittered exponential backoff.
///
/// Invalid numbers (negative, not a number, infinite) are replaced by the nearest valid one: a
/// growth below 1 by 1, a jitter outside of 0 to 1 by its nearer end. A wait is never below 1 ms,
/// and never above `max` (if that is longer).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The delay before the second attempt.
    pub initial: Duration,
    /// The longest delay.
    pub max: Duration,
    /// The factor by which the delay grows with each attempt.
    pub factor: f64,
    /// The random share of the delay, 0 to 1. It only shortens the delay, so that `max` holds.
    pub jitter: f64,
}

impl Backoff {
    /// Bounds the durations, so that arithmetic with them cannot overflow.
    pub(crate) fn bounded(mut self) -> Self {
        bound([&mut self.initial, &mut self.max]);
        self
    }

    /// The delay after attempt number `attempt` (from 1). `random` is uniform in [0, 1).
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let factor = if self.factor >= 1.0 { self.factor } else { 1.0 };
        let exponent = f64::from(attempt.max(1) - 1);
        let grown = self.initial.as_secs_f64() * factor.powf(exponent);
        // Zero times an overflowed growth is not a number. The configured delay is zero.
        let grown = if grown.is_nan() { 0.0 } else { grown };
        let capped = grown.min(self.max.as_secs_f64());
        let random_part = capped * share(self.jitter) * (1.0 - share(random));
        Duration::try_from_secs_f64(capped - random_part)
            .unwrap_or(self.max)
            .max(DELAY_MIN)
    }
}

/// The nearest number from 0 to 1. 0 if it is not a number.
pub(crate) fn share(number: f64) -> f64 {
    if number.is_nan() {
        0.0
    } else {
        number.clamp(0.0, 1.0)
    }
}

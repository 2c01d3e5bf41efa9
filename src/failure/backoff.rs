//! Jittered exponential backoff. Pure: the randomness is an argument.
//!
//! Shared by retries in place, breaker probes, outbox relays and writes that must succeed. The
//! jitter is subtractive: it shortens a delay and never extends it, so that `max` is a real bound
//! and clients that failed together do not try again together.

use crate::durations::bound;
use std::time::Duration;

/// The shortest wait between attempts: a policy of zeros must not turn a failing record into a busy
/// loop.
pub(crate) const DELAY_MIN: Duration = Duration::from_millis(1);

/// Jittered exponential backoff: the delays between the attempts at one thing.
///
/// The delay after attempt `n` (from 1) is `min(initial × factor^(n - 1), max)`, of which up to the
/// share `jitter` is taken off at random. Invalid numbers (negative, not a number, infinite) are
/// replaced by the nearest valid one: a growth below 1 by 1, a jitter outside of 0 to 1 by its
/// nearer end. A wait is never below 1 ms, and never above `max` (if that is longer).
///
/// It has no default of its own: [`RetryPolicy::backoff`](crate::recovery::RetryPolicy::backoff)
/// and [`BreakerPolicy::probe`](crate::recovery::BreakerPolicy::probe) name theirs.
///
/// ```
/// use evenkeel::recovery::Backoff;
/// use std::time::Duration;
///
/// let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5)).with_jitter(0.0);
/// assert_eq!(backoff.delay(1, 0.5), Duration::from_millis(200));
/// assert_eq!(backoff.delay(2, 0.5), Duration::from_millis(400));
/// assert_eq!(backoff.delay(100, 0.5), Duration::from_secs(5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Backoff {
    /// The delay before the second attempt. At least 1 ms is waited, also if it is zero.
    pub initial: Duration,
    /// Bounds the delay. At the bound the delay no longer grows; attempts go on.
    pub max: Duration,
    /// The factor by which the delay grows with each attempt. 1 keeps the delay constant.
    pub factor: f64,
    /// The random share of the delay, 0 to 1. It only shortens the delay, so that `max` holds. 0
    /// makes delays equal, and clients that failed together then try again together.
    pub jitter: f64,
}

impl Backoff {
    /// Creates a backoff that starts at `initial`, doubles up to `max`, and has 20 % jitter.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            factor: 2.0,
            jitter: 0.2,
        }
    }

    /// Sets [`initial`](Self::initial).
    #[must_use]
    pub fn with_initial(mut self, initial: Duration) -> Self {
        self.initial = initial;
        self
    }

    /// Sets [`max`](Self::max).
    #[must_use]
    pub fn with_max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// Sets [`factor`](Self::factor).
    #[must_use]
    pub fn with_factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Sets [`jitter`](Self::jitter).
    #[must_use]
    pub fn with_jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// Bounds the durations, so that arithmetic with them cannot overflow.
    pub(crate) fn bounded(mut self) -> Self {
        bound([&mut self.initial, &mut self.max]);
        self
    }

    /// The delay after attempt number `attempt` (from 1; 0 counts as 1). `random` is uniform in
    /// `[0, 1)` and chosen by the caller, so that the result is reproducible in tests.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let factor = if self.factor >= 1.0 { self.factor } else { 1.0 };
        let exponent = f64::from(attempt.max(1) - 1);
        let grown = self.initial.as_secs_f64() * factor.powf(exponent);
        // Zero times an overflowed growth is not a number. The configured delay is zero.
        let grown = if grown.is_nan() { 0.0 } else { grown };
        let capped = grown.min(self.max.as_secs_f64());
        let random_part = capped * clamped_share(self.jitter) * (1.0 - clamped_share(random));
        Duration::try_from_secs_f64(capped - random_part)
            .unwrap_or(self.max)
            .max(DELAY_MIN)
    }
}

/// The nearest number from 0 to 1. 0 if it is not a number.
pub(crate) fn clamped_share(number: f64) -> f64 {
    if number.is_nan() {
        0.0
    } else {
        number.clamp(0.0, 1.0)
    }
}

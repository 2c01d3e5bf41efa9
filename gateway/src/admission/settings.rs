//! The settings of admission. Owns their meaning and defaults; knows no limiter.

use std::time::Duration;

/// One caller has at most this part of the uploads, by default.
const UPLOAD_SHARE_DIVISOR: usize = 4;
/// The least that this part is.
const UPLOAD_SHARE_MIN: usize = 4;

/// The settings of admission. Values out of range are moved to the nearest that is allowed, so that
/// no setting can make the gateway refuse everything by mistake.
///
/// ```
/// use evenkeel_gateway::admission::AdmissionSettings;
/// use std::time::Duration;
///
/// let settings = AdmissionSettings::brokers()
///     .with_concurrency(20, 5, 500)
///     .with_queue_age_max(Duration::from_millis(500));
/// assert_eq!(settings.backlog_events_max, None);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AdmissionSettings {
    /// The concurrency limit before any latency is measured: requests at a time. Default 50.
    pub limit_initial: u32,
    /// The least that the concurrency limit shrinks to. Default 10, at least 1.
    pub limit_min: u32,
    /// The most that the concurrency limit grows to. Default 1,000. It bounds the memory for
    /// request bodies: this number, as many (at least 8) that return as they were told, and
    /// [`uploads_max`](Self::uploads_max), times the largest body.
    pub limit_max: u32,
    /// How many times the normal latency counts as normal. Above it the limit shrinks. Default
    /// 1.25, at least 1. A larger value accepts more requests at a higher latency.
    pub latency_tolerance: f64,
    /// Events that may wait in the store for the brokers. Above it new requests are refused until
    /// the brokers have taken enough. Default 1,000,000 for an outbox; none: no bound.
    pub backlog_events_max: Option<u64>,
    /// Age of the oldest event that waits for the brokers, above which new requests are refused.
    /// Default 1 s for a store whose answers wait for the brokers. None, the default for an outbox:
    /// no bound, so that an outage of the brokers refuses nobody.
    pub queue_age_max: Option<Duration>,
    /// The time that a request may take if its caller sets no earlier deadline. Then it is answered
    /// with 504. It bounds the time for which a stalled store holds a place. Begins after the body.
    /// Default 30 s.
    pub request_time_max: Duration,
    /// The most bytes of a body that the middleware reads before it admits a request. Above it 413.
    /// Default 1 MiB. Keep it at or above the bounds of the routes, such as that of `PostLimits`:
    /// their answers name the bound.
    pub body_bytes_max: usize,
    /// How long such a body may take. Then 408. Default 20 s. An earlier deadline of the caller
    /// counts instead.
    pub body_time_max: Duration,
    /// Bodies that arrive at the same time. Above it requests are refused with 503, as long as
    /// none of them ends. Default 256, at least 1. Empty bodies do not count.
    pub uploads_max: usize,
    /// Those of one caller. Above it its requests are refused with 429. Default none: a quarter of
    /// [`uploads_max`](Self::uploads_max), at least 4. A gateway with one caller needs them all.
    pub uploads_per_caller_max: Option<usize>,
    /// The longest time that a caller is told to wait. When all places up to then are booked,
    /// callers are told this time without a place. Default 60 s, from 1 s to 600 s.
    pub retry_horizon: Duration,
    /// The share of the measured capacity that is booked for callers told to come back. The rest is
    /// for new ones. Default 0.5, from 0.01 to 1.
    pub retry_share: f64,
    /// The part of a wait that is added at random, so that several gateways do not send their
    /// callers back at the same time. Default 0.2, from 0 to 1.
    pub retry_jitter: f64,
    /// The rate of callers that have none of their own, in requests per second. Default none: no
    /// limit. A caller may use two seconds of its rate at once.
    pub rate_default: Option<u32>,
    /// Callers whose rate is tracked at the same time. Above it those with the full burst are
    /// forgotten first, then those that were longest away. Default 10,000, at least 8.
    pub principals_max: usize,
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        Self::outbox()
    }
}

impl AdmissionSettings {
    /// The defaults for a store with an outbox: an outage of the brokers refuses nobody until the
    /// backlog reaches its bound.
    pub fn outbox() -> Self {
        Self {
            limit_initial: 50,
            limit_min: 10,
            limit_max: 1_000,
            latency_tolerance: 1.25,
            backlog_events_max: Some(1_000_000),
            queue_age_max: None,
            request_time_max: Duration::from_secs(30),
            body_bytes_max: 1 << 20,
            body_time_max: Duration::from_secs(20),
            uploads_max: 256,
            uploads_per_caller_max: None,
            retry_horizon: Duration::from_secs(60),
            retry_share: 0.5,
            retry_jitter: 0.2,
            rate_default: None,
            principals_max: 10_000,
        }
    }

    /// The defaults for a store whose answers wait for the brokers: refuses when events wait longer
    /// than a second.
    pub fn brokers() -> Self {
        Self {
            backlog_events_max: None,
            queue_age_max: Some(Duration::from_secs(1)),
            ..Self::outbox()
        }
    }

    /// Sets the concurrency limit: its start, its least and its most. Three equal numbers make a
    /// fixed limit.
    #[must_use]
    pub fn with_concurrency(mut self, initial: u32, min: u32, max: u32) -> Self {
        self.limit_initial = initial;
        self.limit_min = min;
        self.limit_max = max;
        self
    }

    /// Sets [`latency_tolerance`](Self::latency_tolerance).
    #[must_use]
    pub fn with_latency_tolerance(mut self, latency_tolerance: f64) -> Self {
        self.latency_tolerance = latency_tolerance;
        self
    }

    /// Sets [`backlog_events_max`](Self::backlog_events_max).
    #[must_use]
    pub fn with_backlog_events_max(mut self, events: impl Into<Option<u64>>) -> Self {
        self.backlog_events_max = events.into();
        self
    }

    /// Sets [`queue_age_max`](Self::queue_age_max).
    #[must_use]
    pub fn with_queue_age_max(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.queue_age_max = age.into();
        self
    }

    /// Sets [`request_time_max`](Self::request_time_max).
    #[must_use]
    pub fn with_request_time_max(mut self, request_time_max: Duration) -> Self {
        self.request_time_max = request_time_max;
        self
    }

    /// Sets the bounds of bodies: [`body_bytes_max`](Self::body_bytes_max),
    /// [`body_time_max`](Self::body_time_max) and [`uploads_max`](Self::uploads_max).
    #[must_use]
    pub fn with_uploads(mut self, bytes_max: usize, time_max: Duration, max: usize) -> Self {
        self.body_bytes_max = bytes_max;
        self.body_time_max = time_max;
        self.uploads_max = max;
        self
    }

    /// Sets [`uploads_per_caller_max`](Self::uploads_per_caller_max), at least 1.
    #[must_use]
    pub fn with_uploads_per_caller_max(mut self, max: impl Into<Option<usize>>) -> Self {
        self.uploads_per_caller_max = max.into();
        self
    }

    /// Sets what callers are told: [`retry_horizon`](Self::retry_horizon),
    /// [`retry_share`](Self::retry_share) and [`retry_jitter`](Self::retry_jitter).
    #[must_use]
    pub fn with_retries(mut self, horizon: Duration, share: f64, jitter: f64) -> Self {
        self.retry_horizon = horizon;
        self.retry_share = share;
        self.retry_jitter = jitter;
        self
    }

    /// Sets [`rate_default`](Self::rate_default), in requests per second.
    #[must_use]
    pub fn with_rate_default(mut self, rate: impl Into<Option<u32>>) -> Self {
        self.rate_default = rate.into();
        self
    }

    /// Sets [`principals_max`](Self::principals_max).
    #[must_use]
    pub fn with_principals_max(mut self, principals_max: usize) -> Self {
        self.principals_max = principals_max;
        self
    }

    /// The settings with every value in its range.
    pub(super) fn in_range(mut self) -> Self {
        self.limit_min = self.limit_min.max(1);
        self.limit_max = self.limit_max.max(self.limit_min);
        self.limit_initial = self.limit_initial.clamp(self.limit_min, self.limit_max);
        self.latency_tolerance = within(self.latency_tolerance, 1.0, 100.0);
        let (second, longest) = (Duration::from_secs(1), Duration::from_secs(600));
        self.retry_horizon = self.retry_horizon.clamp(second, longest);
        self.retry_share = within(self.retry_share, 0.01, 1.0);
        self.retry_jitter = within(self.retry_jitter, 0.0, 1.0);
        self.principals_max = self.principals_max.max(8);
        self.uploads_max = self.uploads_max.max(1);
        self.request_time_max = self.request_time_max.max(Duration::from_secs(1));
        self.body_time_max = self.body_time_max.max(Duration::from_secs(1));
        self
    }

    /// The bodies of one caller that arrive at the same time.
    pub(super) fn uploads_of_a_caller(&self) -> usize {
        let share = (self.uploads_max / UPLOAD_SHARE_DIVISOR).max(UPLOAD_SHARE_MIN);
        let max = self.uploads_per_caller_max.unwrap_or(share);
        max.clamp(1, self.uploads_max.max(1))
    }
}

/// The value in this range; its least for one that is not a number.
fn within(value: f64, min: f64, max: f64) -> f64 {
    if value.is_nan() {
        min
    } else {
        value.clamp(min, max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_moved_into_it() {
        let settings = AdmissionSettings::default()
            .with_concurrency(0, 0, 0)
            .with_latency_tolerance(f64::NAN)
            .with_retries(Duration::ZERO, 2.0, -1.0)
            .with_principals_max(0)
            .in_range();
        let limits = (
            settings.limit_initial,
            settings.limit_min,
            settings.limit_max,
        );
        assert_eq!(limits, (1, 1, 1));
        assert_eq!(settings.latency_tolerance, 1.0);
        assert_eq!(settings.retry_horizon, Duration::from_secs(1));
        assert_eq!((settings.retry_share, settings.retry_jitter), (1.0, 0.0));
        assert_eq!(settings.principals_max, 8);
    }

    #[test]
    fn the_defaults_are_in_range() {
        for settings in [AdmissionSettings::outbox(), AdmissionSettings::brokers()] {
            assert_eq!(settings.clone().in_range(), settings);
        }
    }
}

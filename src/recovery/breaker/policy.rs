//! The settings of the breaker.

use crate::failure::Backoff;
use std::time::Duration;

/// When an outage stops a consumer, and how the consumer detects its end.
///
/// While the breaker is open, no handler starts and no further record is read, so that an outage
/// costs neither attempts nor memory, and results in no dead letters. The member stays in its
/// group. One record at a time is tried until the dependency answers.
///
/// It opens when both bounds are reached, so that neither a single failure nor a dependency that
/// refuses a few customers stops all records: such records wait with their keys, and their further
/// attempts do not count. It also opens after [`Self::failures_min`] consecutive records, however
/// long they take, if no attempt of their kind has ended otherwise for [`Self::window`]: calls that
/// hang end too rarely to reach the share.
///
/// A probe that has not ended after the longest wait between probes ([`Backoff::max`] of
/// [`Self::probe`]) is overdue: it continues, and the next record probes. If few records arrive, a
/// handful of refused ones can be most of them. So beside each failed probe another record may
/// start, and while such records are handled, the next may. The breaker closes when
/// [`Self::failures_min`] of them in a row are handled, of an event type that has failed because of
/// this dependency.
///
/// Each member has a breaker for each dependency that an error names
/// ([`HandlerError::dependency`](crate::handler::HandlerError::dependency)). While one is open, the
/// member's health names the dependency, and the metric `evenkeel_breaker_open` is 1.
///
/// | setting | default | bounds |
/// |---|---|---|
/// | [`failures_min`](Self::failures_min) | 5 | fewest failures that open it |
/// | [`failure_share_min`](Self::failure_share_min) | 0.5 | least share of failures that opens it |
/// | [`window`](Self::window) | 10 s | the time in which both count |
/// | [`probe`](Self::probe) | 1 s, doubled up to 10 s | waits between probes |
///
/// ```
/// use evenkeel::recovery::BreakerPolicy;
/// use std::time::Duration;
///
/// let policy = BreakerPolicy::default()
///     .with_failures_min(20)
///     .with_window(Duration::from_secs(30));
/// assert_eq!(policy.failure_share_min, 0.5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct BreakerPolicy {
    /// The number of records within [`Self::window`] whose first attempt must have failed with
    /// [`Class::Outage`](crate::handler::Class::Outage) or
    /// [`Class::Timeout`](crate::handler::Class::Timeout). Default 5. 0 counts as 1. A higher
    /// number lets more records start during an outage; each of them holds memory until it ends.
    pub failures_min: u32,
    /// Their share of all attempts in that time, 0 to 1. Default 0.5. A value that is not a number
    /// counts as 1. Attempts of event types that have never failed because of this dependency do
    /// not count. Choose a higher share if a dependency often refuses single customers.
    pub failure_share_min: f64,
    /// The time over which attempts count. It moves in ten steps. Default 10 s. It is at least 10
    /// ms.
    pub window: Duration,
    /// The waits between probes. [`Backoff::max`] is also how long a probe may take before the next
    /// one starts, at least 100 ms. Default 1 s at first, doubled up to 10 s, of which up to a
    /// fifth is random. The longest wait bounds how late a member notices that the dependency is
    /// back.
    pub probe: Backoff,
}

impl BreakerPolicy {
    /// Sets [`failures_min`](Self::failures_min).
    #[must_use]
    pub fn with_failures_min(mut self, failures_min: u32) -> Self {
        self.failures_min = failures_min;
        self
    }

    /// Sets [`failure_share_min`](Self::failure_share_min).
    #[must_use]
    pub fn with_failure_share_min(mut self, failure_share_min: f64) -> Self {
        self.failure_share_min = failure_share_min;
        self
    }

    /// Sets [`window`](Self::window).
    #[must_use]
    pub fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets [`probe`](Self::probe).
    #[must_use]
    pub fn with_probe(mut self, probe: Backoff) -> Self {
        self.probe = probe;
        self
    }
}

impl Default for BreakerPolicy {
    /// Half of the attempts in 10 s, at least 5. Probes after 1 s at first, later up to every 10 s.
    fn default() -> Self {
        Self {
            failures_min: 5,
            failure_share_min: 0.5,
            window: Duration::from_secs(10),
            probe: Backoff {
                initial: Duration::from_secs(1),
                max: Duration::from_secs(10),
                factor: 2.0,
                jitter: 0.2,
            },
        }
    }
}

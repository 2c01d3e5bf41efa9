//! Settings that the stores with identities share.

use std::time::Duration;

/// How long identities are kept, and how much may wait to be written.
/// `StoreSettings::default()` has the defaults.
///
/// | setting | default | bounds |
/// |---|---|---|
/// | [`identities_retention`](Self::identities_retention) | 24 h | recognition of repetitions |
/// | [`queue_requests_max`](Self::queue_requests_max) | 4,096 | requests that wait to be written |
/// | [`queue_bytes_max`](Self::queue_bytes_max) | 64 MiB | bytes of those requests |
///
/// ```
/// use evenkeel_gateway::store::StoreSettings;
/// use std::time::Duration;
///
/// let settings = StoreSettings::default().with_identities_retention(Duration::from_secs(3_600));
/// assert_eq!(settings.queue_requests_max, 4_096);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct StoreSettings {
    /// How long an `Idempotency-Key` and an event id are recognised after they were accepted.
    /// Default 24 h. Older rows are deleted once a minute, at most 1,000 in a statement. Set it
    /// longer than callers repeat a request: a repetition that comes later is published again.
    pub identities_retention: Duration,
    /// Bounds the requests that wait for a writer. Default 4,096, at least 1. At the bound a
    /// request is refused with [`AcceptError::Full`](super::AcceptError::Full). A store with
    /// several writers has one such queue for each.
    pub queue_requests_max: usize,
    /// Bounds the bytes of the requests that wait or are being written, for all writers together.
    /// Default 64 MiB, at least 1, at most 4 GiB. At the bound a request is refused like above. A
    /// request larger than this is accepted while nothing else waits. A writer copies the records
    /// of its group, about 4 MiB, beside this bound.
    pub queue_bytes_max: usize,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            identities_retention: Duration::from_secs(24 * 3_600),
            queue_requests_max: 4_096,
            queue_bytes_max: 64 << 20,
        }
    }
}

impl StoreSettings {
    /// Sets how long identities are kept.
    pub fn with_identities_retention(mut self, retention: Duration) -> Self {
        self.identities_retention = retention;
        self
    }

    /// Sets the maximum of waiting requests; 0 counts as 1.
    pub fn with_queue_requests_max(mut self, requests: usize) -> Self {
        self.queue_requests_max = requests.max(1);
        self
    }

    /// Sets the maximum of their bytes; 0 counts as 1.
    pub fn with_queue_bytes_max(mut self, bytes: usize) -> Self {
        self.queue_bytes_max = bytes.max(1);
        self
    }
}

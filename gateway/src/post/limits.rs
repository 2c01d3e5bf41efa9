//! The bounds of a request that posts events.

use std::time::Duration;

/// The bounds of a request that posts events. A request beyond one of them is refused, and none of
/// its events is accepted.
///
/// ```
/// use evenkeel_gateway::post::PostLimits;
///
/// let limits = PostLimits::default().with_batch_max(10);
/// assert_eq!((limits.body_bytes_max, limits.batch_max), (960 << 10, 10));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostLimits {
    /// The most bytes of a body. Default 960 KiB, so that an event with its headers is smaller than
    /// the brokers' default limit of a record (`max.message.bytes`, 1 MiB): an outbox would accept a
    /// larger one, which the brokers then refuse. Keep it at least 64 KiB below the topics' limit.
    ///
    /// A longer body is refused with 413: before it is read if `Content-Length` says so, otherwise
    /// as soon as the limit is reached. Bodies are held in memory, so this times the concurrent
    /// requests bounds their memory.
    pub body_bytes_max: usize,
    /// The longest time for a body to arrive. Default 30 s. After it the request is refused with
    /// 504. A deadline of the request that is earlier counts instead.
    pub body_time_max: Duration,
    /// The most events of a request. Default 100. A larger batch is refused with 413.
    pub batch_max: usize,
}

impl Default for PostLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 960 << 10,
            body_time_max: Duration::from_secs(30),
            batch_max: 100,
        }
    }
}

impl PostLimits {
    /// Sets the most bytes of a body.
    #[must_use]
    pub fn with_body_bytes_max(mut self, body_bytes_max: usize) -> Self {
        self.body_bytes_max = body_bytes_max;
        self
    }

    /// Sets the longest time for a body to arrive.
    #[must_use]
    pub fn with_body_time_max(mut self, body_time_max: Duration) -> Self {
        self.body_time_max = body_time_max;
        self
    }

    /// Sets the most events of a request.
    #[must_use]
    pub fn with_batch_max(mut self, batch_max: usize) -> Self {
        self.batch_max = batch_max;
        self
    }
}

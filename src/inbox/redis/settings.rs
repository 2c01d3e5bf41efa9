//! Settings of an inbox in Redis.

use crate::durations::bound;
use crate::inbox::InboxError;
use std::time::Duration;

/// Shorter leases would expire whenever a server or a process is busy for a moment.
const LEASE_MIN: Duration = Duration::from_millis(100);

/// Settings of an inbox in Redis. `RedisSettings::default()` has the defaults.
///
/// | setting | default | bounds |
/// |---|---|---|
/// | [`lease`](Self::lease) | 30 s | how long a crashed owner holds a delivery |
/// | [`wait`](Self::wait) | 40 s | how long a claim waits for another owner |
/// | [`timeout`](Self::timeout) | 2 s | one request |
/// | [`retention`](Self::retention) | 45 days | how long completions are remembered |
///
/// # Examples
/// ```
/// use evenkeel::inbox::RedisSettings;
/// use std::time::Duration;
///
/// let settings = RedisSettings::default()
///     .with_prefix("shop:inbox:")
///     .with_lease(Duration::from_secs(10))
///     .with_wait(Duration::from_secs(15));
/// assert!(settings.validate().is_ok());
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct RedisSettings {
    /// The prefix of every key of the store. Default `evenkeel:inbox:`. Services may share a
    /// prefix, because group and handler are part of the key's digest. Another prefix is another
    /// store: after a change all past deliveries are unknown. With ACLs the user needs the keys of
    /// the prefix and the commands `EVAL`, `GET`, `SET`, `DEL` and `PTTL`, and `INFO` for a check
    /// at the start.
    pub prefix: String,
    /// How long a claim lasts after its owner's last renewal. Default 30 s, at least 100 ms. After
    /// it another owner takes the delivery of an owner that crashed or cannot reach Redis. It is
    /// renewed every third of its length while the handler runs, so it may be shorter than a
    /// handler's run. It must be longer than a failover, and longer than the longest pause of a
    /// process.
    pub lease: Duration,
    /// Bounds how long a claim waits for another owner of the same delivery. Default 40 s: longer
    /// than a lease, so that a claim can outwait a crashed owner. At the bound the claim fails as
    /// unavailable.
    pub wait: Duration,
    /// Bounds one request to Redis, including connecting. Default 2 s; 0 is refused. At the bound
    /// the request fails as unavailable, which is an outage. Keep it well below a third of the
    /// lease, so that a renewal can be tried again before the lease ends.
    pub timeout: Duration,
    /// How long a completed delivery is remembered. Default 45 days; less than the lease is
    /// refused. Keep it longer than a record can be redelivered: the retention of the topics, plus
    /// the period in which dead letters are replayed. Redis forgets by itself afterwards, and an
    /// older event is handled as new and counted as a possible duplicate.
    pub retention: Duration,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            prefix: "evenkeel:inbox:".to_owned(),
            lease: Duration::from_secs(30),
            wait: Duration::from_secs(40),
            timeout: Duration::from_secs(2),
            retention: Duration::from_secs(45 * 24 * 60 * 60),
        }
    }
}

impl RedisSettings {
    /// Sets the prefix of all keys.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how long a claim lasts after its last renewal; at least 100 ms.
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the limit of the wait for another owner.
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets the limit of a request.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long completions are remembered; [`Duration::MAX`] means for ever.
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Bounds the durations to values that can be added to a time; [`Duration::MAX`] means for
    /// ever.
    pub(super) fn bounded(mut self) -> Self {
        bound([
            &mut self.lease,
            &mut self.wait,
            &mut self.timeout,
            &mut self.retention,
        ]);
        self
    }

    /// Checks that the settings can be used together.
    ///
    /// # Errors
    /// [`InboxError::Setting`] with the invalid setting and the remedy.
    pub fn validate(&self) -> Result<(), InboxError> {
        let refused = |reason: String| Err(InboxError::Setting(reason));
        if self.lease < LEASE_MIN {
            return refused(format!("lease is {:?}; at least {LEASE_MIN:?}", self.lease));
        }
        if self.timeout.is_zero() {
            return refused("timeout is 0; set the time that a request may take".to_owned());
        }
        if self.retention < self.lease {
            return refused(format!(
                "retention is {:?}, shorter than the lease of {:?}: deliveries would be forgotten \
                 while their records are still in the topic; keep them for longer than the topics \
                 keep records",
                self.retention, self.lease
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_forget_too_early_are_refused_with_reason() {
        let default = RedisSettings::default;
        assert!(default().validate().is_ok());
        for (settings, expected) in [
            (
                default().with_lease(Duration::from_millis(10)),
                "lease is 10ms; at least 100ms",
            ),
            (default().with_timeout(Duration::ZERO), "timeout is 0"),
            (
                default().with_retention(Duration::from_secs(1)),
                "retention is 1s, shorter than the lease of 30s",
            ),
        ] {
            let error = settings.validate().expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

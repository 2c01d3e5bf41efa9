//! How a Redis store is used.

use crate::durations::bound;
use crate::inbox::InboxError;
use std::time::Duration;

/// Shorter leases would run out whenever a server or a process is busy for a moment.
const LEASE_MIN: Duration = Duration::from_millis(100);

/// How a Redis store is used.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedisSettings {
    /// What every key of the store begins with. `evenkeel:inbox:` by default; group and handler are in the key's digest, so
    /// that services may share a prefix.
    pub prefix: String,
    /// How long a claim lasts that its owner no longer renews, because it crashed or cannot reach Redis. 30 s by default. It
    /// is renewed every third of it while the handler runs, so it need not be as long as a handler takes; it has to be longer
    /// than a failover, or the longest pause of a process, takes.
    pub lease: Duration,
    /// How long a claim waits for another owner's of the same delivery, before it fails as unavailable. 40 s by default:
    /// longer than a lease, so that the claim of a crashed owner is waited for to its end.
    pub wait: Duration,
    /// How long one request to Redis may take, with connecting. 2 s by default.
    pub timeout: Duration,
    /// How long a completed delivery is remembered. 45 days by default. Longer than a record can come back: than the retention
    /// of the topics, and the time in which dead letters are replayed besides. Redis forgets by itself afterwards.
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
    /// The same with another prefix.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The same with another lease.
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// The same with another wait for another owner.
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The same with another limit on a request.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same with another retention.
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// The same with durations that can be reckoned with: [`Duration::MAX`] means for ever.
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
    /// [`InboxError::Setting`] with the one that cannot, and what to do.
    pub fn validate(&self) -> Result<(), InboxError> {
        let refused = |reason: String| Err(InboxError::Setting(reason));
        if self.lease < LEASE_MIN {
            return refused(format!("lease is {:?}; at least {LEASE_MIN:?}", self.lease));
        }
        if self.timeout.is_zero() {
            return refused("timeout is 0; give Redis some time to answer".to_owned());
        }
        if self.retention < self.lease {
            return refused(format!(
                "retention is {:?}, shorter than the lease of {:?}: deliveries would be forgotten while their records are \
                 still in the topic; keep them for longer than the topics keep records",
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
    fn settings_that_would_forget_at_once_are_refused_with_the_reason() {
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

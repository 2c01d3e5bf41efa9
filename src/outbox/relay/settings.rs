//! How a relay behaves.

use super::super::OutboxError;
use crate::durations::bound;
use crate::recovery::Backoff;
use std::time::Duration;

/// How a relay behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelaySettings {
    /// For how long a relay has its share of the slots without a word; a killed one is taken over after that. 15 s by default;
    /// renewed after a third.
    pub lease: Duration,
    /// Rows read and not settled at most; 2,000 by default.
    pub rows_max: usize,
    /// Bytes of them at most; 16 MiB by default. A larger record goes alone.
    pub bytes_max: usize,
    /// How often a relay looks for rows without being told of any. 200 ms by default.
    pub poll_interval: Duration,
    /// The wait before a key whose record was not published is tried again.
    pub retry: Backoff,
    /// How long a stop waits for acknowledgements. 10 s by default.
    pub drain_timeout: Duration,
    /// How often the backlog is measured. 5 s by default.
    pub watch_interval: Duration,
    /// From which age on an open transaction that has written to the outbox is reported. 10 s by default.
    pub open_transaction_max: Duration,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            rows_max: 2_000,
            bytes_max: 16 << 20,
            poll_interval: Duration::from_millis(200),
            retry: Backoff {
                initial: Duration::from_millis(500),
                max: Duration::from_secs(60),
                factor: 2.0,
                jitter: 0.2,
            },
            drain_timeout: Duration::from_secs(10),
            watch_interval: Duration::from_secs(5),
            open_transaction_max: Duration::from_secs(10),
        }
    }
}

impl RelaySettings {
    /// The same with durations that can be reckoned with: [`Duration::MAX`] means for ever.
    pub(super) fn bounded(mut self) -> Self {
        bound([
            &mut self.lease,
            &mut self.poll_interval,
            &mut self.drain_timeout,
            &mut self.watch_interval,
            &mut self.open_transaction_max,
        ]);
        self.retry = self.retry.bounded();
        self
    }

    /// Refuses what cannot work.
    pub(super) fn validate(&self) -> Result<(), OutboxError> {
        let refuse = |what: &str| Err(OutboxError::Setting(what.to_owned()));
        if self.lease < Duration::from_millis(300) {
            return refuse("lease must be at least 300 ms, or renewals come too late");
        }
        if self.rows_max == 0 || self.bytes_max == 0 {
            return refuse("rows_max and bytes_max must let at least one row through");
        }
        if self.poll_interval.is_zero() || self.watch_interval.is_zero() {
            return refuse("poll_interval and watch_interval must be more than nothing");
        }
        Ok(())
    }

    /// When a lease is renewed.
    pub(super) fn renew_interval(&self) -> Duration {
        self.lease / 3
    }

    /// How long the store may take for an answer: a renewal that takes longer must leave time for another.
    pub(super) fn answer_within(&self) -> Duration {
        self.lease / 4
    }

    /// How long before its end a lease counts as over.
    pub(super) fn margin(&self) -> Duration {
        self.lease / 10
    }
}

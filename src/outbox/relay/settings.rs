//! Settings of a relay.

use super::super::OutboxError;
use crate::durations::bound;
use crate::failure::Backoff;
use std::time::Duration;

/// Settings of a relay. `RelaySettings::default()` has the defaults.
///
/// | setting | default | bounds |
/// |---|---|---|
/// | [`lease`](Self::lease) | 15 s | how long a killed relay keeps its slots |
/// | [`rows_max`](Self::rows_max) | 2,000 | rows in memory |
/// | [`bytes_max`](Self::bytes_max) | 16 MiB | bytes of those rows |
/// | [`poll_interval`](Self::poll_interval) | 200 ms | an event's delay without a notification |
/// | [`retry`](Self::retry) | 500 ms to 60 s | the wait of a key after a failure |
/// | [`drain_timeout`](Self::drain_timeout) | 10 s | a stop's wait for acknowledgements |
/// | [`last_results_within`](Self::last_results_within) | lease / 4 | a stop's last calls |
/// | [`watch_interval`](Self::watch_interval) | 5 s | the age of the backlog metrics |
/// | [`open_transaction_max`](Self::open_transaction_max) | 10 s | age of a reported transaction |
///
/// # Examples
/// ```
/// use evenkeel::outbox::RelaySettings;
/// use std::time::Duration;
///
/// let settings = RelaySettings::default()
///     .with_poll_interval(Duration::from_millis(50))
///     .with_drain_timeout(Duration::from_secs(5));
/// assert_eq!(settings.lease, Duration::from_secs(15));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct RelaySettings {
    /// Duration of a slot lease; another relay takes over after it expires. Default 15 s, at least
    /// 300 ms, renewed after a third of it. A relay that cannot renew stops sending a tenth before
    /// the end, by its own clock. Each call of the store may take a quarter of it: a longer lease
    /// allows slower reads, and delays the takeover from a killed relay.
    pub lease: Duration,
    /// Bounds the rows that are read and not settled. Default 2,000, at least 1. At the bound the
    /// relay reads no more rows until a quarter of them is settled. At most 32 of them belong to
    /// one key. Rows whose keys wait after a failure are not kept in memory.
    pub rows_max: usize,
    /// Bounds the bytes of those rows. Default 16 MiB, at least 1. At the bound the relay reads no
    /// more rows. A larger record is read alone.
    pub bytes_max: usize,
    /// How often a relay reads the outbox without a notification. Default 200 ms; 0 is refused. It
    /// bounds the delay of an event whose commit is not notified: behind a pooler, from another
    /// process with SQLite, or long after `publish`. Each poll is one query of the store, also
    /// while it is empty.
    pub poll_interval: Duration,
    /// The wait before a key whose record was not published is tried again. Default: 500 ms,
    /// doubled after each failure up to 60 s, with 20 % jitter. It is retried without a limit, and
    /// other keys continue meanwhile.
    pub retry: Backoff,
    /// Bounds how long a stop waits for acknowledgements. Default 10 s. At the bound,
    /// unacknowledged events stay in the outbox and are published again; the report counts them.
    /// Writing the results to the store comes on top: see [`RelaySettings::stop_within`].
    pub drain_timeout: Duration,
    /// Bounds how long a stop writes the last results to the store, after the wait for
    /// acknowledgements; 0 is refused. At most a quarter of the [`lease`](Self::lease), which is
    /// the default ([`Duration::MAX`]). One call may take a third of it. At the bound, published
    /// events may stay in the outbox, and are published again.
    pub last_results_within: Duration,
    /// How often the backlog is measured and open transactions are looked for. Default 5 s; 0 is
    /// refused. The metrics of the outbox are as old as that. It counts up to 10,000 rows each
    /// time.
    pub watch_interval: Duration,
    /// The age at which an open transaction that has written to the outbox is reported, by a
    /// warning and by the metric `evenkeel_outbox_open_transaction_seconds`. Default 10 s.
    /// PostgreSQL only. The transaction is not ended.
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
            last_results_within: Duration::MAX,
            watch_interval: Duration::from_secs(5),
            open_transaction_max: Duration::from_secs(10),
        }
    }
}

impl RelaySettings {
    /// Sets the duration of a slot lease; at least 300 ms.
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the maximum of rows in memory; at least 1.
    pub fn with_rows_max(mut self, rows_max: usize) -> Self {
        self.rows_max = rows_max;
        self
    }

    /// Sets the maximum of bytes of those rows; at least 1.
    pub fn with_bytes_max(mut self, bytes_max: usize) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// Sets the interval between two reads without a notification.
    pub fn with_poll_interval(mut self, poll_interval: Duration) -> Self {
        self.poll_interval = poll_interval;
        self
    }

    /// Sets the waits of a key after failures.
    pub fn with_retry(mut self, retry: Backoff) -> Self {
        self.retry = retry;
        self
    }

    /// Sets the limit of the wait for acknowledgements at a stop.
    pub fn with_drain_timeout(mut self, drain_timeout: Duration) -> Self {
        self.drain_timeout = drain_timeout;
        self
    }

    /// Sets the limit of the last calls of the store at a stop; at most a quarter of the lease.
    pub fn with_last_results_within(mut self, last_results_within: Duration) -> Self {
        self.last_results_within = last_results_within;
        self
    }

    /// Sets the interval between two measurements of the backlog.
    pub fn with_watch_interval(mut self, watch_interval: Duration) -> Self {
        self.watch_interval = watch_interval;
        self
    }

    /// Sets the age at which an open transaction is reported.
    pub fn with_open_transaction_max(mut self, open_transaction_max: Duration) -> Self {
        self.open_transaction_max = open_transaction_max;
        self
    }

    /// The longest time in which a relay ends once it may publish no more: the
    /// [`drain_timeout`](Self::drain_timeout) for acknowledgements, then the time for the last
    /// results in the store, which is [`last_results_within`](Self::last_results_within) but at
    /// most a quarter of the [`lease`](Self::lease). A process that ends earlier leaves published
    /// events in the outbox, and they are published again.
    ///
    /// ```
    /// use evenkeel::outbox::RelaySettings;
    /// use std::time::Duration;
    ///
    /// let settings = RelaySettings::default().with_drain_timeout(Duration::from_secs(5));
    /// assert_eq!(settings.stop_within(), Duration::from_millis(8_750));
    /// let settings = settings.with_last_results_within(Duration::from_secs(1));
    /// assert_eq!(settings.stop_within(), Duration::from_secs(6));
    /// ```
    #[must_use]
    pub fn stop_within(&self) -> Duration {
        self.drain_timeout.saturating_add(self.last_results())
    }

    /// Bounds the durations to values that can be added to a time; [`Duration::MAX`] means for
    /// ever.
    pub(super) fn bounded(mut self) -> Self {
        bound([
            &mut self.lease,
            &mut self.poll_interval,
            &mut self.drain_timeout,
            &mut self.last_results_within,
            &mut self.watch_interval,
            &mut self.open_transaction_max,
        ]);
        self.retry = self.retry.bounded();
        self
    }

    /// Refuses invalid settings.
    ///
    /// # Errors
    /// [`OutboxError::Setting`] with the setting and its bound.
    pub(super) fn validate(&self) -> Result<(), OutboxError> {
        let refuse = |what: &str| Err(OutboxError::Setting(what.to_owned()));
        if self.lease < Duration::from_millis(300) {
            return refuse(
                "lease must be at least 300 ms; a shorter one would expire between renewals",
            );
        }
        if self.rows_max == 0 || self.bytes_max == 0 {
            return refuse("rows_max and bytes_max must be at least 1");
        }
        if self.poll_interval.is_zero() || self.watch_interval.is_zero() {
            return refuse("poll_interval and watch_interval must be more than 0");
        }
        if self.last_results_within.is_zero() {
            return refuse("last_results_within must be more than 0");
        }
        Ok(())
    }

    /// The interval between two renewals of a lease.
    pub(super) fn renew_interval(&self) -> Duration {
        self.lease / 3
    }

    /// Bounds the store's answer: a renewal that fails must leave time for another one.
    pub(super) fn answer_within(&self) -> Duration {
        self.lease / 4
    }

    /// Bounds the calls at the end of a relay, together.
    pub(super) fn last_results(&self) -> Duration {
        self.last_results_within.min(self.answer_within())
    }

    /// How long before its end a lease counts as expired: more than two clocks drift apart within a
    /// lease.
    pub(super) fn margin(&self) -> Duration {
        self.lease / 10
    }
}

//! Settings of batch handlers.

use crate::inbox::CLAIMS_MAX;
use crate::kafka::ConfigError;
use std::time::Duration;

/// Settings of a batch handler, passed to
/// [`Router::on_batch_with`](crate::handler::Router::on_batch_with).
///
/// | setting | default | bounds |
/// |---|---|---|
/// | [`records_max`](Self::records_max) | 500 | events of a batch |
/// | [`wait_max`](Self::wait_max) | 0 | how long a batch waits for further events |
///
/// ```
/// use evenkeel::handler::BatchSettings;
/// use std::time::Duration;
///
/// let settings = BatchSettings::default()
///     .with_records_max(1_000)
///     .with_wait_max(Duration::from_millis(20));
/// settings.validate()?;
/// # Ok::<(), evenkeel::kafka::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchSettings {
    /// Bounds the events of a batch. Default 500, at least 1, at most 2,000, because stores claim a
    /// batch in one statement. At the bound, further deliveries form the next batch. Most batches
    /// are smaller: a batch takes the deliveries that are ready, and never more than the consumer's
    /// [`concurrency`](crate::consumer::ConsumerSettings::concurrency). A store that hands out
    /// transactions but cannot claim several deliveries at once gets batches of one event.
    pub records_max: usize,
    /// Bounds how long the first event of a batch waits for further events. Default zero: no wait,
    /// since events that arrive while a batch runs form the next batch anyway. At the bound, the
    /// batch starts with the events that have arrived. A batch that is full, and a delivery that
    /// failed before and is therefore handled alone, do not wait.
    ///
    /// A waiting event holds one of the consumer's permits (`concurrency`), so that a wait with few
    /// permits only adds delay. The consumer's
    /// [`handler_timeout`](crate::consumer::ConsumerSettings::handler_timeout) does not run during
    /// the wait; a `timeout` layer around the router does.
    pub wait_max: Duration,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self {
            records_max: 500,
            wait_max: Duration::ZERO,
        }
    }
}

impl BatchSettings {
    /// Sets [`records_max`](Self::records_max).
    #[must_use]
    pub fn with_records_max(mut self, records_max: usize) -> Self {
        self.records_max = records_max;
        self
    }

    /// Sets [`wait_max`](Self::wait_max).
    #[must_use]
    pub fn with_wait_max(mut self, wait_max: Duration) -> Self {
        self.wait_max = wait_max;
        self
    }

    /// Checks the values. [`Router::validate`](crate::handler::Router::validate) calls it.
    ///
    /// # Errors
    /// If a batch could hold no event, or more events than stores accept.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self.records_max {
            0 => Err(ConfigError::new(
                "records_max",
                "is 0: a batch holds at least one event",
            )),
            1..=RECORDS_MAX => Ok(()),
            more => Err(ConfigError::new(
                "records_max",
                format!("is {more}: a batch holds {RECORDS_MAX} events at most"),
            )),
        }
    }
}

/// The most events of a batch: as many as a store claims in one statement.
pub(super) const RECORDS_MAX: usize = CLAIMS_MAX as usize;

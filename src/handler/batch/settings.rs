//! Settings of batch handlers.

use crate::inbox::CLAIMS_MAX;
use crate::kafka::ConfigError;
use std::time::Duration;

/// Settings of a batch handler, passed to
/// [`Router::on_batch_with`](crate::handler::Router::on_batch_with).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// Bounds the events of a batch. Default 500, at least 1, at most 2,000, because stores claim a
    /// batch in one statement. Most batches are smaller: a batch takes the deliveries that are
    /// ready, and never more than the consumer's concurrency.
    pub records_max: usize,
    /// Bounds how long the first event of a batch waits for further events. Default zero: no wait,
    /// since events that arrive while a batch runs form the next batch anyway. Keep it well below
    /// the handler's timeout, which runs during this wait.
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
    /// Checks the values.
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

pub(super) const RECORDS_MAX: usize = CLAIMS_MAX as usize;

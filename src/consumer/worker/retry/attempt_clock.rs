//! Tracks when the running attempt of a retried record began.
//!
//! Between attempts and while its dead letter is written, the record has no running attempt. The
//! retry sets this clock; the worker reads it for the watchdog.
//!
//! Shared between two places of one task; the lock is never contended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The start of the running attempt, if one runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct AttemptClock(Arc<Mutex<Option<Instant>>>);

/// A running attempt. Its drop ends it.
pub(crate) struct RunningAttempt<'a>(&'a AttemptClock);

impl AttemptClock {
    /// Begins an attempt.
    pub(crate) fn start(&self) -> RunningAttempt<'_> {
        *self.lock() = Some(Instant::now());
        RunningAttempt(self)
    }

    /// When the running attempt began. None while the record waits.
    pub(crate) fn started_at(&self) -> Option<Instant> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RunningAttempt<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

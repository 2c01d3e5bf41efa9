//! Since when a record that failed before is with its handler again; between attempts it only waits.
//!
//! Shared by the record's recovery, which knows, and its worker, which is asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a recovery does now.
#[derive(Debug, Clone, Default)]
pub(super) struct Activity(Arc<Mutex<Option<Instant>>>);

/// An attempt; it ends when this is dropped.
pub(super) struct Attempt<'a>(&'a Activity);

impl Activity {
    /// An attempt begins.
    pub(super) fn attempt(&self) -> Attempt<'_> {
        *self.lock() = Some(Instant::now());
        Attempt(self)
    }

    /// Since when the present attempt runs; none while the record waits.
    pub(super) fn since(&self) -> Option<Instant> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

//! The time up to which a store has forgotten deliveries, as known to this process.
//!
//! Owns the maximum age of that knowledge. Knows no SQL: a due store reads the time within a
//! transaction that it opens anyway, so it costs a delivery nothing.
//!
//! The watermark serves a warning, not the decision: an event older than it is handled as new, and
//! counted as a possible duplicate. It may therefore lag by [`REFRESH_INTERVAL`].

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The name under which a store keeps it.
pub(in crate::inbox) const PURGED_BEFORE_MS: &str = "purged_before_ms";

/// Maximum delay after which another process's purge is noticed.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// Earlier than any completion.
const NOTHING: i64 = i64::MIN;

/// The purge watermark of one store.
pub(in crate::inbox) struct PurgeWatermark {
    /// [`NOTHING`], or milliseconds since the epoch. Read for every delivery, so without a lock.
    before_ms: AtomicI64,
    /// When a caller last took the task of reading the store; `None` before the first claim.
    looked: Mutex<Option<Instant>>,
}

impl Default for PurgeWatermark {
    fn default() -> Self {
        Self {
            before_ms: AtomicI64::new(NOTHING),
            looked: Mutex::default(),
        }
    }
}

impl PurgeWatermark {
    /// Deliveries completed before this time may be forgotten; `None` if nothing was purged.
    pub(in crate::inbox) fn before_ms(&self) -> Option<i64> {
        let before_ms = self.before_ms.load(Relaxed);
        (before_ms != NOTHING).then_some(before_ms)
    }

    /// Whether the store must be read again, once per interval. A caller that receives true reads
    /// it.
    pub(in crate::inbox) fn is_due(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = looked.is_none_or(|at| at.elapsed() >= REFRESH_INTERVAL);
        if is_due {
            *looked = Some(Instant::now());
        }
        is_due
    }

    /// Takes the stored value. The watermark never decreases, because forgotten deliveries stay
    /// forgotten.
    pub(in crate::inbox) fn reach(&self, stored: Option<&str>) {
        if let Some(before_ms) = stored.and_then(|text| text.parse().ok()) {
            self.before_ms.fetch_max(before_ms, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_caller_reads_the_store_per_interval() {
        let purge_watermark = PurgeWatermark::default();
        assert_eq!(
            [purge_watermark.is_due(), purge_watermark.is_due()],
            [true, false]
        );
        tokio::time::advance(REFRESH_INTERVAL).await;
        assert_eq!(
            [purge_watermark.is_due(), purge_watermark.is_due()],
            [true, false]
        );
    }

    #[test]
    fn it_never_decreases_and_ignores_unreadable_values() {
        let purge_watermark = PurgeWatermark::default();
        let check = |stored, expected| {
            purge_watermark.reach(stored);
            assert_eq!(purge_watermark.before_ms(), expected, "{stored:?}");
        };
        check(None, None);
        check(Some("yesterday"), None);
        check(Some("1700"), Some(1700));
        check(Some("900"), Some(1700));
    }
}

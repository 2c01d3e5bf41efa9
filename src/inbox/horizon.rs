//! Up to when a store has forgotten deliveries, as this process knows it.
//!
//! Owns how old that knowledge may be. Knows no SQL: a store that is due looks within a transaction that it opens anyway, so
//! that asking costs a delivery nothing.

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The name under which a store keeps it.
pub(super) const PURGED_BEFORE_MS: &str = "purged_before_ms";

/// How long another process's purge may go unseen.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Before any time that a delivery may be completed at.
const NOTHING: i64 = i64::MIN;

/// The horizon of one store.
pub(super) struct Horizon {
    before_ms: AtomicI64,
    looked: Mutex<Option<Instant>>,
}

impl Default for Horizon {
    fn default() -> Self {
        Self {
            before_ms: AtomicI64::new(NOTHING),
            looked: Mutex::default(),
        }
    }
}

impl Horizon {
    /// Deliveries completed before this may be forgotten; none are where it says nothing.
    pub(super) fn before_ms(&self) -> Option<i64> {
        let before_ms = self.before_ms.load(Relaxed);
        (before_ms != NOTHING).then_some(before_ms)
    }

    /// Whether the store is to be asked, once in a while. Whoever is told so asks.
    pub(super) fn is_due(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = looked.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL);
        if is_due {
            *looked = Some(Instant::now());
        }
        is_due
    }

    /// Takes what the store says. It never goes back: what is forgotten stays so.
    pub(super) fn reach(&self, stored: Option<&str>) {
        if let Some(before_ms) = stored.and_then(|text| text.parse().ok()) {
            self.before_ms.fetch_max(before_ms, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_caller_looks_and_the_next_only_after_a_while() {
        let horizon = Horizon::default();
        assert_eq!([horizon.is_due(), horizon.is_due()], [true, false]);
        tokio::time::advance(LOOK_INTERVAL).await;
        assert_eq!([horizon.is_due(), horizon.is_due()], [true, false]);
    }

    #[test]
    fn it_never_goes_back_and_what_cannot_be_read_says_nothing() {
        let horizon = Horizon::default();
        let check = |stored, expected| {
            horizon.reach(stored);
            assert_eq!(horizon.before_ms(), expected, "{stored:?}");
        };
        check(None, None);
        check(Some("yesterday"), None);
        check(Some("1700"), Some(1700));
        check(Some("900"), Some(1700));
    }
}

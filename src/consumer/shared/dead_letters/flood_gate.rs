//! Holds records that wait for their dead letters while the flood guard has stopped writing.
//!
//! The guard decides ([`FloodGuard`]); the gate holds the records. They wait inside of their
//! retries, with their permits lent, so that the records of other keys continue, until
//! [`FloodGate::release`] or a revoke.
//!
//! # Example
//!
//! A release cannot parse any event. The first 100 dead letters are written; the 101st record
//! waits, as do all later ones, and the member is not ready. Their keys wait behind them, and the
//! in-flight limit stops intake after some thousand records. After the repair, a restart redelivers
//! the waiting records and handles them; nothing but the first 100 has to be replayed.

use crate::consumer::shared::dead_letters::alarms::Alarms;
use crate::recovery::{Flood, FloodGuard, FloodGuardPolicy};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The most characters of the failure reason that the alarm quotes.
const REASON_CHARACTERS_MAX: usize = 300;

/// The flood gate of a consumer.
pub(crate) struct FloodGate {
    group: String,
    begun: Instant,
    /// The decision. Locked for each dead letter and each turn of the poll thread, not for handled
    /// records.
    guard: Mutex<FloodGuard>,
    /// Handled records that the guard has not counted yet. Workers add to it without a lock.
    handled: AtomicU64,
    /// Notified by a release.
    released: Notify,
}

impl FloodGate {
    /// The gate is open.
    pub(crate) fn new(group: &str, policy: FloodGuardPolicy) -> Self {
        Self {
            group: group.to_owned(),
            begun: Instant::now(),
            guard: Mutex::new(FloodGuard::new(policy)),
            handled: AtomicU64::new(0),
            released: Notify::new(),
        }
    }

    /// Counts handled records. Never blocks on the guard.
    pub(crate) fn handled(&self, records: u64) {
        self.handled.fetch_add(records, Ordering::Relaxed);
    }

    /// Passes the handled records to the guard, so that they count for the time in which they were
    /// handled. The poll thread calls it on every turn.
    pub(crate) fn count_handled(&self) {
        if self.handled.load(Ordering::Relaxed) > 0 {
            drop(self.updated_guard());
        }
    }

    /// Waits until one more dead letter may be written, for a record that failed for this reason.
    ///
    /// Cancel-safe: nothing is counted before it returns.
    pub(crate) async fn pass(&self, alarms: &Alarms, reason: &str) {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // The wait is registered before the check, or a release in between would be missed.
            released.as_mut().enable();
            if self.admit(alarms, reason) {
                return;
            }
            released.await;
        }
    }

    /// Whether one more dead letter may be written. Raises the alarm if the guard stops now.
    fn admit(&self, alarms: &Alarms, reason: &str) -> bool {
        let mut guard = self.updated_guard();
        let had_stopped = guard.is_stopped();
        let Err(flood) = guard.admit(self.begun.elapsed()) else {
            return true;
        };
        if !had_stopped {
            self.report_flood(flood, alarms, reason);
        }
        false
    }

    /// Logs the flood and raises the alarm, with the commands to find the cause and to continue.
    fn report_flood(&self, flood: Flood, alarms: &Alarms, reason: &str) {
        let group = &self.group;
        let last: String = reason.chars().take(REASON_CHARACTERS_MAX).collect();
        let reason = format!(
            "dead-letter flood: {flood}; no more dead letters are written, and their records wait; find the cause with: \
             evenkeel dlq list --group {group}; then continue with: evenkeel groups retry-now {group} --why TEXT; \
             the first waiting record failed with: {last}"
        );
        tracing::error!(group, "{reason}");
        alarms.flood(Some(reason));
    }

    /// Allows dead letters again after a flood.
    pub(crate) fn release(&self, alarms: &Alarms) {
        let mut guard = self.updated_guard();
        if guard.release() {
            tracing::warn!(
                group = self.group,
                "the dead-letter flood was released: dead letters are written again"
            );
            alarms.flood(None);
            self.released.notify_waiters();
        }
    }

    /// Locks the guard and passes it the handled records.
    fn updated_guard(&self) -> MutexGuard<'_, FloodGuard> {
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let handled = self.handled.swap(0, Ordering::Relaxed);
        guard.handled(handled, self.begun.elapsed());
        guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Health, Reporter};
    use futures_util::FutureExt;

    fn gate(run_max: u64) -> (FloodGate, Alarms, Health) {
        let health = Health::default();
        let alarms = Alarms::new(
            "payments",
            Reporter::new(health.clone(), "consumer", "payments"),
        );
        let policy = FloodGuardPolicy {
            run_max,
            ..FloodGuardPolicy::OFF
        };
        (FloodGate::new("payments", policy), alarms, health)
    }

    #[tokio::test]
    async fn a_record_held_by_a_flood_continues_after_the_release() {
        let (gate, alarms, health) = gate(2);
        gate.pass(&alarms, "not JSON").await;
        gate.handled(1);
        gate.pass(&alarms, "not JSON").await;
        gate.pass(&alarms, "not JSON").await;
        assert!(health.not_ready().is_empty());
        let mut waiting = Box::pin(gate.pass(&alarms, "not JSON"));
        assert!(waiting.as_mut().now_or_never().is_none());
        let (component, reason) = health.not_ready().pop().expect("an alarm");
        assert_eq!(component, "dead_letters payments");
        assert!(
            reason.contains("dead-letter flood: 2 records in a row"),
            "{reason}"
        );
        assert!(reason.ends_with("failed with: not JSON"), "{reason}");
        gate.handled(1_000);
        gate.count_handled();
        assert!(waiting.as_mut().now_or_never().is_none());
        gate.release(&alarms);
        assert!(waiting.as_mut().now_or_never().is_some());
        assert!(health.not_ready().is_empty());
    }
}

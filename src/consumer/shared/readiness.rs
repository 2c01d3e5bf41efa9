//! Decides whether the consumer is ready, and why not.
//!
//! The threads report events; none of them sets the health itself. The health follows from all
//! reports, in whatever order they arrive.
//!
//! | reason | set by | cleared by |
//! |---|---|---|
//! | joining | the start | an assignment |
//! | stopping | the stop | never |
//! | expelled | a lost assignment | an assignment |
//! | refused | an authorisation error of the group | an assignment, an accepted commit |
//! | cluster_error | no broker, a refusal | an answer of the cluster, an assignment |
//! | missing topic | an error of the client | a check by the committing thread |
//! | unreadable partition | a read error | a record, a revoke, or 10 s without the error |
//! | dependency down | a breaker that opens | the same breaker |
//! | stalled | a stalled intake | room |
//!
//! A reason is cleared only by evidence of its opposite. librdkafka reports that something fails,
//! but never that it works again: hence the checks by the committing thread, and the expiry of read
//! errors that the client would otherwise repeat.
//!
//! # Example
//!
//! A member whose broker is gone while an operator has paused a partition shows, in
//! `/readyz?verbose`:
//!
//! ```text
//! [-]consumer payments: no broker can be reached: connection refused
//! ```
//!
//! and once the broker is back:
//!
//! ```text
//! [+]consumer payments ok; paused: shop.orders/3
//! ```

use crate::consumer::state::partition::Partition;
use crate::telemetry::Reporter;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The loop whose progress shows that the process is alive.
pub(crate) const POLL_LOOP: &str = "consumer_poll";

/// The component of the consumer in the health.
pub(crate) const COMPONENT: &str = "consumer";

/// A partition counts as readable after this time without a read error: the client repeats the
/// error while the partition is unreadable. A readable partition need not have a new record.
const READABLE_AFTER: Duration = Duration::from_secs(10);

/// The reason for a missing topic. The client does not name it in its error.
const MISSING_TOPIC: &str = "a subscribed topic does not exist";

/// The readiness of a consumer. Its threads share it.
///
/// Reports of different threads may arrive in any order. Each changes only its own part of the
/// state.
pub(crate) struct Readiness {
    health: Reporter,
    /// Locked while the health is set, so that the health sees the changes in their order.
    state: Mutex<State>,
    /// Whether a partition is unreadable. Saves the lock for every received record.
    has_unreadable: AtomicBool,
}

/// All reports, from which the health follows.
#[derive(Default)]
struct State {
    joined: bool,
    stopping: bool,
    /// Why the group removed this member. Cleared by the next assignment.
    expelled: Option<String>,
    /// Why the group refuses this member. Cleared by an assignment or an accepted commit.
    refused: Option<String>,
    /// Whether a subscribed topic does not exist.
    topic_missing: bool,
    /// Why the cluster cannot be used. Cleared when it answers.
    cluster_error: Option<String>,
    /// Partitions that cannot be read.
    unreadable: BTreeMap<String, Unreadable>,
    /// Dependencies that are down, with the reported reason.
    down: BTreeMap<String, String>,
    /// Why no record is taken, while records in flight use up the limit.
    stalled: Option<String>,
    /// The current requests of operators.
    requests: Option<String>,
    /// The number of lost positions, and the last of them.
    lost: Option<(u64, String)>,
}

/// A partition that cannot be read.
struct Unreadable {
    reason: String,
    /// When it was last reported. None if it is reported once and stays until it is mended.
    reported_at: Option<Instant>,
}

impl State {
    /// Ready, or all reasons in the order of their severity. A stop hides the others, which may be
    /// its consequence.
    fn status(&self) -> Result<(), String> {
        if self.stopping {
            return Err("stopping".to_owned());
        }
        let unreadable = self.unreadable.values();
        let reasons: Vec<&str> = self
            .expelled
            .iter()
            .chain(&self.refused)
            .chain(&self.cluster_error)
            .chain(unreadable.map(|unreadable| &unreadable.reason))
            .chain(self.down.values())
            .chain(&self.stalled)
            .map(String::as_str)
            .chain(self.topic_missing.then_some(MISSING_TOPIC))
            .collect();
        match reasons[..] {
            [] if self.joined => Ok(()),
            [] => Err("joining the group".to_owned()),
            _ => Err(reasons.join("; ")),
        }
    }
}

impl State {
    /// What the health shows also while the consumer is ready.
    fn notes(&self) -> Option<String> {
        let lost = self.lost.as_ref().map(|(times, last)| {
            format!("positions lost and reset since the start: {times}, last: {last}")
        });
        let notes: Vec<String> = self.requests.iter().cloned().chain(lost).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }
}

impl Readiness {
    /// Not ready until the group completes an assignment, possibly of no partition.
    pub(crate) fn joining(health: Reporter) -> Self {
        let readiness = Self {
            health,
            state: Mutex::default(),
            has_unreadable: AtomicBool::new(false),
        };
        readiness.change(|_| {});
        readiness
    }

    /// Ready again: the group completed an assignment, which needs a working cluster.
    pub(crate) fn assigned(&self) {
        self.change(|state| {
            state.joined = true;
            (state.expelled, state.refused, state.cluster_error) = (None, None, None);
        });
    }

    /// Not ready until the group assigns again or accepts a commit: it refuses this member, which
    /// may still own its partitions.
    pub(crate) fn refused(&self, reason: &str) {
        self.change(|state| state.refused = Some(reason.to_owned()));
    }

    /// Whether the group refuses this member, as far as is known.
    pub(crate) fn is_refused(&self) -> bool {
        self.state().refused.is_some()
    }

    /// Clears the refusal: the group accepted a commit.
    pub(crate) fn group_answers(&self) {
        self.change(|state| state.refused = None);
    }

    /// Not ready until all subscribed topics exist.
    pub(crate) fn topic_missing(&self) {
        self.change(|state| state.topic_missing = true);
    }

    /// Whether a subscribed topic was missing at the last check.
    pub(crate) fn is_topic_missing(&self) -> bool {
        self.state().topic_missing
    }

    /// Clears the missing topics: all exist.
    pub(crate) fn topics_exist(&self) {
        self.change(|state| state.topic_missing = false);
    }

    /// Not ready until the group assigns again: it took this member's partitions without a revoke.
    pub(crate) fn report_expelled(&self, reason: &str) {
        self.change(|state| {
            state.joined = false;
            state.expelled = Some(reason.to_owned());
        });
    }

    /// Whether the group has completed an assignment, possibly of no partition.
    pub(crate) fn has_joined(&self) -> bool {
        self.state().joined
    }

    /// Not ready until the cluster answers again.
    pub(crate) fn report_cluster_error(&self, reason: &str) {
        self.change(|state| state.cluster_error = Some(reason.to_owned()));
    }

    /// Reports that a dependency is down, or (without a reason) that it answers again.
    pub(crate) fn report_dependency(&self, dependency: &str, reason: Option<String>) {
        self.change(|state| match reason {
            Some(reason) => drop(state.down.insert(dependency.to_owned(), reason)),
            None => drop(state.down.remove(dependency)),
        });
    }

    /// Reports that records in flight use up the limit, or (without a reason) that they no longer
    /// do.
    pub(crate) fn report_stall(&self, reason: Option<String>) {
        self.change(|state| state.stalled = reason);
    }

    /// Whether the cluster has not answered since the last cluster_error.
    pub(crate) fn has_cluster_error(&self) -> bool {
        self.state().cluster_error.is_some()
    }

    /// Clears the cluster_error: the cluster answers.
    pub(crate) fn cluster_answers(&self) {
        self.change(|state| state.cluster_error = None);
    }

    /// Not ready until the partition is read again or is revoked.
    pub(crate) fn cannot_read(&self, topic: &str, partition: i32, why: &str) {
        self.unreadable(topic, partition, why, None);
    }

    /// Not ready while the client repeats this read error. Returns whether the error is new.
    ///
    /// librdkafka repeats a read error within 10 s;
    /// [`Readiness::expire_read_errors`] relies on that.
    pub(crate) fn cannot_read_now(&self, topic: &str, partition: i32, why: &str) -> bool {
        self.unreadable(topic, partition, why, Some(Instant::now()))
    }

    /// Registers a read error. Returns whether its text is new, so that it is logged once.
    fn unreadable(
        &self,
        topic: &str,
        partition: i32,
        why: &str,
        reported_at: Option<Instant>,
    ) -> bool {
        let name = format!("{topic}/{partition}");
        let reason = format!("{name} cannot be read: {why}");
        let mut is_new = false;
        self.change(|state| {
            let known = state.unreadable.get(&name);
            is_new = known.is_none_or(|known| known.reason != reason);
            // A lasting error is not replaced by one that may pass.
            if reported_at.is_none() || known.is_none_or(|known| known.reported_at.is_some()) {
                let unreadable = Unreadable {
                    reason,
                    reported_at,
                };
                state.unreadable.insert(name, unreadable);
            }
        });
        is_new
    }

    /// Clears partitions whose read error was not repeated in time. If nothing was taken from the
    /// client (`has_taken` is false), no error can have arrived, and the time starts again.
    ///
    /// Called on every turn of the poll thread. Takes no lock while no partition is unreadable.
    pub(crate) fn expire_read_errors(&self, has_taken: bool) {
        if !self.has_unreadable.load(Ordering::Relaxed) {
            return;
        }
        let now = Instant::now();
        self.change(|state| match has_taken {
            true => state.unreadable.retain(|_, known| {
                let is_recent = |at: Instant| now.duration_since(at) < READABLE_AFTER;
                known.reported_at.is_none_or(is_recent)
            }),
            false => {
                let known = state.unreadable.values_mut();
                known
                    .filter_map(|known| known.reported_at.as_mut())
                    .for_each(|at| *at = now);
            }
        });
    }

    /// Clears a partition that is read or was revoked.
    pub(crate) fn can_read(&self, partition: &Partition) {
        if self.has_unreadable.load(Ordering::Relaxed) {
            let name = format!("{}/{}", partition.topic, partition.partition);
            self.change(|state| {
                state.unreadable.remove(&name);
            });
        }
    }

    /// Sets the note about operators' requests, which the health shows while ready.
    pub(crate) fn note(&self, note: Option<String>) {
        let mut state = self.state();
        state.requests = note;
        self.health.set_note(COMPONENT, state.notes());
    }

    /// Adds a note about a position loss. It stays until the process ends.
    pub(crate) fn position_lost(&self, topic: &str, partition: i32, reason: &str) {
        let mut state = self.state();
        let times = state.lost.as_ref().map_or(0, |(times, _)| *times) + 1;
        state.lost = Some((times, format!("{topic}/{partition} ({reason})")));
        self.health.set_note(COMPONENT, state.notes());
    }

    /// Not ready from now on, even if the group still assigns partitions during the drain.
    pub(crate) fn stop(&self) {
        self.change(|state| state.stopping = true);
    }

    /// Applies a report and sets the health under one lock, so that the health sees the changes in
    /// their order.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        self.has_unreadable
            .store(!state.unreadable.is_empty(), Ordering::Relaxed);
        self.health.set_ready(COMPONENT, state.status());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::state::offset_tracker::Epoch;
    use crate::telemetry::Health;

    fn joined() -> (Readiness, Health) {
        let health = Health::default();
        let readiness = Readiness::joining(Reporter::new(health.clone(), COMPONENT, "payments"));
        assert_eq!(reason(&health), "joining the group");
        readiness.assigned();
        assert_eq!(reason(&health), "");
        (readiness, health)
    }

    /// Why the consumer is not ready. Empty if it is ready.
    fn reason(health: &Health) -> String {
        health
            .not_ready()
            .pop()
            .map_or_else(String::new, |(_, reason)| reason)
    }

    fn partition() -> Partition {
        Partition::new("orders".into(), 3, Epoch(1), None)
    }

    #[test]
    fn a_complaint_lasts_until_the_cluster_answers() {
        let (readiness, health) = joined();
        readiness.report_cluster_error("no broker can be reached");
        assert!(readiness.has_cluster_error());
        assert_eq!(reason(&health), "no broker can be reached");
        readiness.cluster_answers();
        assert!(!readiness.has_cluster_error());
        assert_eq!(reason(&health), "");
    }

    #[test]
    fn an_unreadable_partition_is_reported_until_it_is_read() {
        let (readiness, health) = joined();
        readiness.cannot_read("orders", 3, "gone");
        readiness.report_cluster_error("no broker can be reached");
        let unreadable = "orders/3 cannot be read: gone";
        assert_eq!(
            reason(&health),
            format!("no broker can be reached; {unreadable}")
        );
        readiness.assigned();
        readiness.can_read(&Partition::new("orders".into(), 4, Epoch(1), None));
        assert_eq!(reason(&health), unreadable);
        readiness.can_read(&partition());
        assert_eq!(reason(&health), "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_without_a_repeated_error_counts_as_read() {
        let (readiness, health) = joined();
        readiness.cannot_read("orders", 1, "out of range");
        assert!(readiness.cannot_read_now("orders", 3, "refused"));
        for _ in 0..20 {
            tokio::time::advance(Duration::from_secs(1)).await;
            readiness.expire_read_errors(true);
            assert!(reason(&health).contains("orders/3"), "{}", reason(&health));
            assert!(!readiness.cannot_read_now("orders", 3, "refused"));
        }
        tokio::time::advance(READABLE_AFTER).await;
        // Nothing was taken from the client.
        readiness.expire_read_errors(false);
        assert!(reason(&health).contains("orders/3"), "{}", reason(&health));
        tokio::time::advance(READABLE_AFTER).await;
        readiness.expire_read_errors(true);
        assert_eq!(reason(&health), "orders/1 cannot be read: out of range");
    }

    #[test]
    fn refusals_and_missing_topics_are_reported_until_they_end() {
        let (readiness, health) = joined();
        readiness.refused("refused");
        readiness.topic_missing();
        readiness.cluster_answers();
        assert_eq!(reason(&health), format!("refused; {MISSING_TOPIC}"));
        readiness.group_answers();
        readiness.assigned();
        assert_eq!(reason(&health), MISSING_TOPIC);
        readiness.topics_exist();
        assert_eq!(reason(&health), "");
    }

    #[test]
    fn an_expelled_member_is_not_ready_until_readmitted() {
        let (readiness, health) = joined();
        readiness.report_expelled("refused");
        readiness.cluster_answers();
        assert_eq!(reason(&health), "refused");
        assert!(!readiness.has_joined());
        readiness.assigned();
        assert_eq!(reason(&health), "");
        assert!(readiness.has_joined());
    }

    #[test]
    fn a_stopping_consumer_is_never_ready_again() {
        let (readiness, health) = joined();
        readiness.cannot_read("orders", 3, "gone");
        readiness.report_cluster_error("no broker can be reached");
        readiness.stop();
        let meanwhile: [fn(&Readiness); 4] = [
            Readiness::assigned,
            |readiness| readiness.report_cluster_error("refused"),
            Readiness::cluster_answers,
            |readiness| readiness.can_read(&partition()),
        ];
        for happens in meanwhile {
            happens(&readiness);
            assert_eq!(reason(&health), "stopping");
        }
    }
}

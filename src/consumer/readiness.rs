//! Whether the consumer is ready, as the health shows it.
//!
//! Owns what speaks against it. The threads report what happens, and none of them sets the health itself: what is shown
//! follows from all that was reported, in whatever order.

use super::partition::Partition;
use crate::telemetry::Part;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The component under which the consumer shows in the health.
pub(super) const COMPONENT: &str = "consumer";

/// A partition that the client tries to read again and again is told each time that it cannot be read: it is read where that was
/// not told for so long. Nothing comes of a partition that is read and has no new record.
const TOLD_AGAIN_WITHIN: Duration = Duration::from_secs(10);

const LACKS_TOPIC: &str = "a topic that it subscribes to is not there";

/// The consumer's readiness, shared by its threads.
pub(crate) struct Readiness {
    health: Part,
    /// Held while the health is told, so that it is told in the order of the changes.
    state: Mutex<State>,
    /// Spares those that read records a look at the state.
    has_unreadable: AtomicBool,
}

#[derive(Default)]
struct State {
    joined: bool,
    stopping: bool,
    /// Why this member has no place in the group any more, until it is assigned one.
    expelled: Option<String>,
    /// That the group refuses it, until it assigns or takes a commit.
    refused: Option<String>,
    /// Whether a topic of the subscription is not there.
    lacks_topic: bool,
    /// Why the cluster cannot be used as it should, until it answers again.
    complaint: Option<String>,
    /// Partitions that cannot be read.
    unreadable: BTreeMap<String, Unreadable>,
    /// What handlers depend on and that is down, and how that shows.
    down: BTreeMap<String, String>,
    /// Why nothing more is taken, while records in flight take all the room.
    crowded: Option<String>,
    /// What an operator has it do.
    steered: Option<String>,
    /// How many positions were lost, and the last of them.
    lost: Option<(u64, String)>,
}

struct Unreadable {
    reason: String,
    /// When that was told, where it is told again for as long as it is so.
    told_at: Option<Instant>,
}

impl State {
    fn shown(&self) -> Result<(), String> {
        if self.stopping {
            return Err("stopping".to_owned());
        }
        let unreadable = self.unreadable.values();
        let reasons: Vec<&str> = self
            .expelled
            .iter()
            .chain(&self.refused)
            .chain(&self.complaint)
            .chain(unreadable.map(|unreadable| &unreadable.reason))
            .chain(self.down.values())
            .chain(&self.crowded)
            .map(String::as_str)
            .chain(self.lacks_topic.then_some(LACKS_TOPIC))
            .collect();
        match reasons[..] {
            [] if self.joined => Ok(()),
            [] => Err("joining the group".to_owned()),
            _ => Err(reasons.join("; ")),
        }
    }
}

impl State {
    fn noted(&self) -> Option<String> {
        let lost = self.lost.as_ref().map(|(times, last)| {
            format!("positions lost and set anew since the start: {times}, the last one {last}")
        });
        let notes: Vec<String> = self.steered.iter().cloned().chain(lost).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }
}

impl Readiness {
    /// Not ready until partitions are assigned, be it none.
    pub(super) fn joining(health: Part) -> Self {
        let readiness = Self {
            health,
            state: Mutex::default(),
            has_unreadable: AtomicBool::new(false),
        };
        readiness.change(|_| {});
        readiness
    }

    /// The group has assigned what this member is to read, which the cluster's answer is needed for.
    pub(crate) fn assigned(&self) {
        self.change(|state| {
            state.joined = true;
            (state.expelled, state.refused, state.complaint) = (None, None, None);
        });
    }

    /// The group refuses this member, which may have its partitions still: not ready until it assigns anew or takes a commit.
    pub(crate) fn refused(&self, reason: &str) {
        self.change(|state| state.refused = Some(reason.to_owned()));
    }

    /// Whether the group has refused this member, as far as is known.
    pub(crate) fn is_refused(&self) -> bool {
        self.state().refused.is_some()
    }

    /// The group has taken a commit.
    pub(crate) fn group_answers(&self) {
        self.change(|state| state.refused = None);
    }

    /// A topic of the subscription is not there: not ready until all are.
    pub(crate) fn lacks_topic(&self) {
        self.change(|state| state.lacks_topic = true);
    }

    /// Whether a topic of the subscription was not there when that was last asked.
    pub(crate) fn is_topic_lacking(&self) -> bool {
        self.state().lacks_topic
    }

    /// All topics of the subscription are there.
    pub(crate) fn topics_are_there(&self) {
        self.change(|state| state.lacks_topic = false);
    }

    /// The group has taken this member's partitions away without being asked: not ready until it assigns anew.
    pub(crate) fn expelled(&self, reason: &str) {
        self.change(|state| {
            state.joined = false;
            state.expelled = Some(reason.to_owned());
        });
    }

    /// Whether the group has assigned what this member is to read, be it nothing.
    pub(crate) fn has_joined(&self) -> bool {
        self.state().joined
    }

    /// The cluster cannot be used as it should: not ready until it answers again.
    pub(crate) fn complain(&self, reason: &str) {
        self.change(|state| state.complaint = Some(reason.to_owned()));
    }

    /// Something that handlers depend on is down, or (with none) answers again.
    pub(crate) fn down(&self, dependency: &str, reason: Option<String>) {
        self.change(|state| match reason {
            Some(reason) => drop(state.down.insert(dependency.to_owned(), reason)),
            None => drop(state.down.remove(dependency)),
        });
    }

    /// Records in flight take all the room, or (with none) do so no longer.
    pub(crate) fn crowded(&self, reason: Option<String>) {
        self.change(|state| state.crowded = reason);
    }

    /// Whether there was a complaint since the cluster was last seen to answer.
    pub(crate) fn has_complained(&self) -> bool {
        self.state().complaint.is_some()
    }

    /// The cluster answers.
    pub(crate) fn cluster_answers(&self) {
        self.change(|state| state.complaint = None);
    }

    /// A partition cannot be read: not ready until it is read again, or goes.
    pub(crate) fn cannot_read(&self, topic: &str, partition: i32, why: &str) {
        self.unreadable(topic, partition, why, None);
    }

    /// The same where the client tries it again and again, and tells each time: not ready until that is told no more. True where
    /// it is news.
    pub(crate) fn cannot_read_now(&self, topic: &str, partition: i32, why: &str) -> bool {
        self.unreadable(topic, partition, why, Some(Instant::now()))
    }

    fn unreadable(&self, topic: &str, partition: i32, why: &str, told_at: Option<Instant>) -> bool {
        let name = format!("{topic}/{partition}");
        let reason = format!("{name} cannot be read: {why}");
        let mut is_news = false;
        self.change(|state| {
            let told = state.unreadable.get(&name);
            is_news = told.is_none_or(|told| told.reason != reason);
            // What stays until somebody mends it is not replaced by what may pass.
            if told_at.is_none() || told.is_none_or(|told| told.told_at.is_some()) {
                let unreadable = Unreadable { reason, told_at };
                state.unreadable.insert(name, unreadable);
            }
        });
        is_news
    }

    /// Looks whether partitions are read by now of which nothing came since. Where nothing was taken of the client, nothing can
    /// have been told.
    pub(crate) fn mind_unreadable(&self, has_taken: bool) {
        if !self.has_unreadable.load(Ordering::Relaxed) {
            return;
        }
        let now = Instant::now();
        self.change(|state| match has_taken {
            true => state.unreadable.retain(|_, told| {
                let is_told = |at: Instant| now.duration_since(at) < TOLD_AGAIN_WITHIN;
                told.told_at.is_none_or(is_told)
            }),
            false => {
                let told = state.unreadable.values_mut();
                told.filter_map(|told| told.told_at.as_mut())
                    .for_each(|at| *at = now);
            }
        });
    }

    /// A partition is read, or gone.
    pub(crate) fn can_read(&self, partition: &Partition) {
        if self.has_unreadable.load(Ordering::Relaxed) {
            let name = format!("{}/{}", partition.topic, partition.partition);
            self.change(|state| {
                state.unreadable.remove(&name);
            });
        }
    }

    /// What an operator has it do, worth knowing while it is ready.
    pub(crate) fn note(&self, note: Option<String>) {
        let mut state = self.state();
        state.steered = note;
        self.health.set_note(COMPONENT, state.noted());
    }

    /// The group's position in a partition was lost and set anew: noted for as long as this process runs.
    pub(crate) fn position_lost(&self, topic: &str, partition: i32, reason: &str) {
        let mut state = self.state();
        let times = state.lost.as_ref().map_or(0, |(times, _)| *times) + 1;
        state.lost = Some((times, format!("{topic}/{partition} ({reason})")));
        self.health.set_note(COMPONENT, state.noted());
    }

    /// The run ends: not ready from now on, whatever the group still assigns while handlers are drained.
    pub(crate) fn stop(&self) {
        self.change(|state| state.stopping = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        self.has_unreadable
            .store(!state.unreadable.is_empty(), Ordering::Relaxed);
        self.health.set_ready(COMPONENT, state.shown());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::ledger::Epoch;
    use crate::telemetry::Health;

    fn joined() -> (Readiness, Health) {
        let health = Health::default();
        let readiness = Readiness::joining(Part::new(health.clone(), COMPONENT, "payments"));
        assert_eq!(reason(&health), "joining the group");
        readiness.assigned();
        assert_eq!(reason(&health), "");
        (readiness, health)
    }

    /// Why the consumer is not ready; empty when it is.
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
        readiness.complain("no broker can be reached");
        assert!(readiness.has_complained());
        assert_eq!(reason(&health), "no broker can be reached");
        readiness.cluster_answers();
        assert!(!readiness.has_complained());
        assert_eq!(reason(&health), "");
    }

    #[test]
    fn an_unreadable_partition_is_shown_until_it_is_read_whatever_happens_to_others() {
        let (readiness, health) = joined();
        readiness.cannot_read("orders", 3, "gone");
        readiness.complain("no broker can be reached");
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
    async fn a_partition_that_nothing_is_told_of_any_more_is_read() {
        let (readiness, health) = joined();
        readiness.cannot_read("orders", 1, "out of range");
        assert!(readiness.cannot_read_now("orders", 3, "refused"));
        for _ in 0..20 {
            tokio::time::advance(Duration::from_secs(1)).await;
            readiness.mind_unreadable(true);
            assert!(reason(&health).contains("orders/3"), "{}", reason(&health));
            assert!(!readiness.cannot_read_now("orders", 3, "refused"));
        }
        tokio::time::advance(TOLD_AGAIN_WITHIN).await;
        // Nothing was heard of the client.
        readiness.mind_unreadable(false);
        assert!(reason(&health).contains("orders/3"), "{}", reason(&health));
        tokio::time::advance(TOLD_AGAIN_WITHIN).await;
        readiness.mind_unreadable(true);
        assert_eq!(reason(&health), "orders/1 cannot be read: out of range");
    }

    #[test]
    fn a_member_that_is_refused_or_lacks_a_topic_is_not_ready_until_that_is_over() {
        let (readiness, health) = joined();
        readiness.refused("refused");
        readiness.lacks_topic();
        readiness.cluster_answers();
        assert_eq!(reason(&health), format!("refused; {LACKS_TOPIC}"));
        readiness.group_answers();
        readiness.assigned();
        assert_eq!(reason(&health), LACKS_TOPIC);
        readiness.topics_are_there();
        assert_eq!(reason(&health), "");
    }

    #[test]
    fn a_member_that_lost_its_place_is_not_ready_until_it_has_one() {
        let (readiness, health) = joined();
        readiness.expelled("refused");
        readiness.cluster_answers();
        assert_eq!(reason(&health), "refused");
        assert!(!readiness.has_joined());
        readiness.assigned();
        assert_eq!(reason(&health), "");
        assert!(readiness.has_joined());
    }

    #[test]
    fn a_consumer_that_stops_is_not_ready_again_whatever_happens_meanwhile() {
        let (readiness, health) = joined();
        readiness.cannot_read("orders", 3, "gone");
        readiness.complain("no broker can be reached");
        readiness.stop();
        let meanwhile: [fn(&Readiness); 4] = [
            Readiness::assigned,
            |readiness| readiness.complain("refused"),
            Readiness::cluster_answers,
            |readiness| readiness.can_read(&partition()),
        ];
        for happens in meanwhile {
            happens(&readiness);
            assert_eq!(reason(&health), "stopping");
        }
    }
}

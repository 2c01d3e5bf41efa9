//! Reconciles this member with the group's control topic: compares the desired with the actual
//! state and acts on the difference.
//!
//! | command | desired state | actual state | acknowledged when |
//! |---|---|---|---|
//! | pause, resume | paused partitions | `held` of an assignment | nothing runs, or read again |
//! | rate | records per second | the [`TokenBucket`] | at once |
//! | skip | records to skip | marks in [`Control`] | the record is settled |
//! | retry, drop, accept loss | – | carried out once | it is done |
//!
//! The comparison runs when the topic or the assignment has changed, and is repeated while
//! something is unfinished. So an error in between (a seek that fails, a rebalance) needs no
//! handling of its own.

use crate::consumer::commit::TopicPartition;
use crate::consumer::poll::operator::control_topic::ControlTopicReader;
use crate::consumer::poll::operator::parked_records::DropOutcome;
use crate::consumer::poll::operator::presence::MemberPresence;
use crate::consumer::poll::operator::skip_requests::SkipRequests;
use crate::consumer::poll::rebalance::RebalanceContext;
use crate::consumer::shared::Shared;
use crate::consumer::shared::control::Control;
use crate::consumer::state::assignments::PauseState;
use crate::consumer::state::partition::Partition;
use crate::consumer::state::retry_partition::RetryPartition;
use crate::control::{Action, Command, CommandOutcome, Scope, TokenBucket};
use crate::telemetry::Metric;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait before partitions that could not be resumed are tried again: they are still
/// being drained, or the committed offsets are not available.
const RELEASE_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Applies operators' commands to this member. Used by the poll thread.
///
/// Between two turns it remembers what it compared last (`seen`), what is unfinished
/// (`has_changes`, `is_draining`), and the requests that wait for a record.
pub(crate) struct Reconciler {
    shared: Arc<Shared>,
    /// None if the control topic cannot be used.
    commands: Option<ControlTopicReader>,
    /// The zero of the pace's clock.
    began: Instant,
    /// The rate limit in force.
    pace: Option<TokenBucket>,
    /// The latest epoch and the number of partitions at the last comparison.
    seen: (u64, usize),
    has_changes: bool,
    /// When partitions that could not be resumed are tried again.
    release_at: Instant,
    is_draining: bool,
    is_throttled: bool,
    /// The number of partitions paused by an operator.
    held: usize,
    /// Open requests to skip records.
    skipping: SkipRequests,
    presence: MemberPresence,
    is_over: bool,
    gauge: metrics::Gauge,
}

impl Reconciler {
    /// Nothing is compared yet: the first turn does.
    pub(crate) fn new(
        shared: Arc<Shared>,
        commands: Option<ControlTopicReader>,
        client_id: &str,
    ) -> Self {
        let labels = [("group", shared.group.as_str())];
        let gauge = shared.health.gauge(Metric::PausedPartitions, &labels);
        Self {
            presence: MemberPresence::new(Arc::clone(&shared), client_id),
            shared,
            commands,
            began: Instant::now(),
            pace: None,
            seen: (0, 0),
            has_changes: true,
            release_at: Instant::now(),
            is_draining: false,
            is_throttled: false,
            held: 0,
            skipping: SkipRequests::default(),
            is_over: false,
            gauge,
        }
    }

    /// Whether records are withheld by an operator's command, so that a pause in records does not
    /// count as idle.
    pub(crate) fn withholds_records(&self) -> bool {
        self.held > 0 || self.is_throttled
    }

    /// How many of `room` records the rate limit permits.
    ///
    /// A limit of zero records cannot be given; a pause does that.
    pub(crate) fn room(&mut self, room: usize) -> usize {
        let Some(pace) = &mut self.pace else {
            return room;
        };
        let allowed = pace.room(self.began.elapsed());
        self.is_throttled = allowed < room;
        room.min(allowed)
    }

    /// Counts taken records for the rate limit.
    pub(crate) fn took(&mut self, records: usize) {
        if let Some(pace) = &mut self.pace {
            pace.remove_tokens(records);
        }
    }

    /// Ends the reconciliation: the run ends, and no further command applies.
    pub(crate) fn stop(&mut self) {
        self.is_over = true;
        self.presence.end();
        self.gauge.set(0.0);
        self.shared.readiness.note(None);
    }

    /// Reads new commands, and moves the actual state towards the desired one. Blocks only for the
    /// lookup of committed offsets when partitions are resumed.
    ///
    /// Called on every turn of the poll thread, after its rebalances. Costs little while nothing
    /// changes.
    pub(crate) fn serve(&mut self, consumer: &BaseConsumer<RebalanceContext>) {
        if self.is_over {
            return;
        }
        let commands = self.commands.as_mut();
        let taken = commands.map(|commands| commands.take(&self.shared));
        let (once, has_entries) = taken.unwrap_or_default();
        self.has_changes |= has_entries || self.shared.retry_topics.take_appeared();
        let member = consumer.context();
        let seen = {
            let mut assignments = member.assignments();
            (assignments.last_epoch, assignments.all().count())
        };
        if seen != self.seen {
            self.presence.look_soon();
        }
        self.presence.mind(consumer);
        let is_changed = self.has_changes || seen != self.seen;
        if is_changed || self.is_draining {
            self.seen = seen;
            // Unfinished changes are tried again on the next turn.
            self.has_changes = !self.pause_and_resume(consumer);
            self.is_draining = member.advance_pauses();
            self.set_pace();
            self.acknowledge(member);
            self.show(member);
        }
        for command in once {
            self.carry_out(member, &command);
        }
        if is_changed {
            self.skipping.find(&self.shared, member);
        }
        self.skipping.mind(&self.shared, member);
    }

    /// The control state that the threads share.
    fn control(&self) -> &Control {
        &self.shared.control
    }

    /// Pauses and resumes partitions, and restarts those whose retry topic was created. Returns
    /// false if another turn is needed.
    ///
    /// | wanted | actual | action |
    /// |---|---|---|
    /// | paused | read | hold |
    /// | read | paused, no log reset | release |
    /// | read | paused by a log reset | none: the reset releases it |
    /// | read | read, and a retry topic has appeared | hold, released on a later turn |
    fn pause_and_resume(&mut self, consumer: &BaseConsumer<RebalanceContext>) -> bool {
        let (mut hold, mut release, mut restart) = (Vec::new(), Vec::new(), Vec::new());
        let member = consumer.context();
        for assigned in member.assignments().all() {
            let partition = &assigned.partition;
            let place = (Arc::clone(&partition.topic), partition.partition);
            match (
                self.control().is_paused(&place.0, place.1),
                assigned.held.is_some(),
            ) {
                (true, false) => hold.push(place),
                // A partition with a log reset resumes by itself after it was reset.
                (false, true) if !assigned.must_be_reread() => release.push(place),
                (false, false) if has_appeared(partition) => restart.push(place),
                _ => {}
            }
        }
        if !hold.is_empty() {
            tracing::warn!(
                group = self.shared.group,
                partitions = %names(&hold),
                "partitions are paused by an operator"
            );
            member.hold(consumer, &hold);
        }
        // They are resumed at once and then read their parked records.
        member.hold(consumer, &restart);
        let is_done = restart.is_empty();
        // The committing thread answers one query at a time, and partitions with a log reset come
        // first.
        let is_free = !member
            .assignments()
            .all()
            .any(|one| one.must_be_reread() && !one.is_absent());
        if release.is_empty() || Instant::now() < self.release_at || !is_free {
            return is_done && release.is_empty();
        }
        let released = member.release(consumer, &release);
        if !released.is_empty() {
            tracing::warn!(
                group = self.shared.group,
                partitions = %names(&released),
                "partitions are resumed"
            );
        }
        // The new epoch is not a change to compare again.
        self.seen.0 = member.assignments().last_epoch;
        let is_complete = released.len() == release.len();
        if !is_complete {
            self.release_at = Instant::now() + RELEASE_AGAIN_AFTER;
        }
        is_done && is_complete
    }

    /// Applies the rate limit of the topic. A new limit starts with a full bucket.
    fn set_pace(&mut self) {
        let rate = self.control().state().rate().map(|(rate, _)| rate);
        if rate != self.pace.as_ref().map(TokenBucket::rate) {
            tracing::warn!(
                group = self.shared.group,
                records_per_second = rate.map_or(0, std::num::NonZero::get),
                "an operator set the rate; 0 means no limit"
            );
            self.pace = rate.map(|rate| TokenBucket::new(rate, self.began.elapsed()));
            self.is_throttled = false;
        }
    }

    /// Acknowledges lasting commands that are in force on this member.
    ///
    /// One acknowledgement per command names all partitions of this member for which it came into
    /// force in this turn. A pause whose drain ran out of time is acknowledged with the remark that
    /// a handler still runs.
    fn acknowledge(&self, member: &RebalanceContext) {
        let mut done: BTreeMap<(String, &'static str), Vec<Scope>> = BTreeMap::new();
        for assigned in member.assignments().all() {
            let (topic, partition) = (&*assigned.partition.topic, assigned.partition.partition);
            let mut state = self.control().state();
            let is_paused = state.pause_of(topic, partition).is_some();
            for command in state.unacknowledged(topic, partition) {
                // A partition that its topic no longer has counts as resumed.
                let held = assigned.held.as_ref();
                let held = held.filter(|_| is_paused || !assigned.is_absent());
                let Some(detail) = in_force(&command.action, is_paused, held) else {
                    continue;
                };
                state.acknowledge(&command.id, topic, partition);
                let of_command = done.entry((command.id, detail)).or_default();
                of_command.push(Scope::Partition {
                    topic: topic.to_owned(),
                    partition,
                });
            }
        }
        for ((id, detail), mut partitions) in done {
            partitions.sort();
            self.control()
                .acknowledge(&id, partitions, CommandOutcome::Applied, detail);
        }
    }

    /// Reports paused partitions and the rate limit to the health and the metrics.
    fn show(&mut self, member: &RebalanceContext) {
        let mut places: Vec<TopicPartition> = Vec::new();
        for assigned in member.assignments().all() {
            let partition = &assigned.partition;
            let is_paused = || {
                self.control()
                    .is_paused(&partition.topic, partition.partition)
            };
            if assigned.held.is_some() && (!assigned.must_be_reread() || is_paused()) {
                places.push((Arc::clone(&partition.topic), partition.partition));
            }
        }
        places.sort();
        self.held = places.len();
        self.gauge.set(self.held as f64);
        let rate = self
            .pace
            .as_ref()
            .map(|pace| format!("at most {} records a second", pace.rate()));
        let paused = (self.held > 0).then(|| format!("paused: {}", names(&places)));
        let notes: Vec<String> = paused.into_iter().chain(rate).collect();
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        self.shared.readiness.note(note);
    }

    /// Carries out a command that is not lasting.
    ///
    /// A member that owns nothing of the scope does not acknowledge it.
    fn carry_out(&self, member: &RebalanceContext, command: &Command) {
        let scope = command.action.scope();
        let mut concerned = Vec::new();
        for assigned in member.assignments().all() {
            let partition = &assigned.partition;
            if scope.may_affect(&partition.topic, partition.partition) {
                concerned.push(Arc::clone(partition));
            }
        }
        if concerned.is_empty() {
            return;
        }
        let (outcome, detail) = match &command.action {
            Action::RetryNow { .. } => {
                (CommandOutcome::Applied, self.retry_now(&concerned, &scope))
            }
            Action::Drop { .. } => self.drop_parked(&concerned, command),
            Action::AcceptLoss { .. } => (CommandOutcome::Applied, self.accept_loss(&concerned)),
            _ => return,
        };
        let partitions = concerned.iter().map(|partition| Scope::Partition {
            topic: partition.topic.to_string(),
            partition: partition.partition,
        });
        let mut partitions: Vec<Scope> = partitions.collect();
        partitions.sort();
        self.control()
            .acknowledge(&command.id, partitions, outcome, &detail);
    }

    /// Retries waiting and parked records at once. Returns the detail of the acknowledgement.
    fn retry_now(&self, concerned: &[Arc<Partition>], scope: &Scope) -> String {
        let parked = concerned
            .iter()
            .map(|partition| self.shared.release_parked(partition, scope));
        let parked: usize = parked.sum();
        let in_place = match scope {
            Scope::Key { .. } => 0,
            _ => self.control().retry_now(scope),
        };
        if *scope == Scope::Group {
            // Records stopped by the flood guard wait as well.
            self.shared.dead_letters.release_flood();
        }
        let unread = concerned.iter().filter(|partition| {
            let retry = partition.retry.as_ref();
            retry.is_some_and(|retry| !retry.is_open())
        });
        let unread: Vec<TopicPartition> = unread.map(|partition| place_of(partition)).collect();
        let paused = concerned.iter().filter(|partition| {
            let control = self.control();
            control.is_paused(&partition.topic, partition.partition)
        });
        let paused: Vec<TopicPartition> = paused.map(|partition| place_of(partition)).collect();
        retry_detail(in_place, parked, &unread, &paused)
    }

    /// Accepts lost entries. Returns the detail of the acknowledgement.
    fn accept_loss(&self, concerned: &[Arc<Partition>]) -> String {
        let accepted = concerned
            .iter()
            .map(|partition| self.shared.accept_loss(partition));
        match accepted.sum() {
            0_u64 => "no entry is lost here".to_owned(),
            lost => format!("the loss of {lost} entries is accepted"),
        }
    }

    /// Drops the first parked record of a key. Returns the outcome, and the detail of the
    /// acknowledgement.
    fn drop_parked(
        &self,
        concerned: &[Arc<Partition>],
        command: &Command,
    ) -> (CommandOutcome, String) {
        let Action::Drop {
            scope: Scope::Key { key, .. },
        } = &command.action
        else {
            let detail = "only the first parked record of a key can be dropped";
            return (CommandOutcome::Refused, detail.to_owned());
        };
        let dropped = concerned
            .iter()
            .map(|partition| self.shared.drop_parked(partition, key, command));
        // In all partitions: a producer may have spread a key over several.
        let dropped: Vec<DropOutcome> = dropped.collect();
        let mut dropped = dropped.into_iter();
        let found = dropped.rfind(|dropped| *dropped != DropOutcome::NothingThere);
        let (outcome, detail) = match found {
            Some(DropOutcome::First) => (
                CommandOutcome::Applied,
                "the first parked record of the key goes to the dead-letter topic, and the next one is retried",
            ),
            Some(DropOutcome::IsHeld) => (
                CommandOutcome::Refused,
                "the key waits for the replay of its dead letter; release it instead",
            ),
            Some(DropOutcome::NothingThere) | None => (
                CommandOutcome::Applied,
                "no record of the key is parked here",
            ),
        };
        (outcome, detail.to_owned())
    }
}

/// Whether the retry topic was created after the partition was opened without one.
fn has_appeared(partition: &Partition) -> bool {
    let retry = partition.retry.as_ref();
    retry.is_some_and(RetryPartition::has_appeared)
}

/// The acknowledgement of a lasting command for a partition. None until it is in force there.
///
/// The texts are for people and may change; the outcome is what tools read.
fn in_force(action: &Action, is_paused: bool, held: Option<&PauseState>) -> Option<&'static str> {
    match (action, held) {
        (Action::Pause { .. }, Some(PauseState::Still { drained: true })) => {
            Some("paused: no record of it is handled")
        }
        (Action::Pause { .. }, Some(PauseState::Still { drained: false })) => Some(
            "paused: no further record of it starts, but a handler that had started still runs",
        ),
        (Action::Pause { .. }, _) => None,
        (Action::Resume { .. }, _) if is_paused => Some("still paused by another command"),
        (Action::Resume { .. }, Some(_)) => None,
        (Action::Resume { .. }, None) => Some("resumed"),
        (Action::Rate { records_per_second }, _) => Some(match records_per_second {
            Some(_) => "the rate limit applies",
            None => "the rate limit is removed",
        }),
        (
            Action::Skip { .. }
            | Action::RetryNow { .. }
            | Action::Drop { .. }
            | Action::AcceptLoss { .. },
            _,
        ) => None,
    }
}

/// The partitions for texts.
fn names(places: &[TopicPartition]) -> String {
    let names: Vec<String> = places
        .iter()
        .map(|(topic, partition)| format!("{topic}/{partition}"))
        .collect();
    names.join(" ")
}

/// The partition by name.
fn place_of(partition: &Partition) -> TopicPartition {
    (Arc::clone(&partition.topic), partition.partition)
}

/// The acknowledgement of a command to retry: how many records and keys it reached, and which
/// partitions it did not.
///
/// Partitions that were not reached are named: the operator repeats the command for them.
fn retry_detail(
    records: usize,
    keys: usize,
    unread: &[TopicPartition],
    paused: &[TopicPartition],
) -> String {
    let count = |count: usize, one: &str, more: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        more_than_one => Some(format!("{more_than_one} {more}")),
    };
    let records = count(records, "record is retried", "records are retried");
    let keys = count(keys, "parked key is released", "parked keys are released");
    let mut parts: Vec<String> = records.into_iter().chain(keys).collect();
    if parts.is_empty() {
        parts.push("no record was waiting".to_owned());
    }
    if !unread.is_empty() {
        parts.push(format!(
            "not reached: the parked records of {}, whose retry topic is still being read; repeat the command",
            names(unread)
        ));
    }
    if !paused.is_empty() {
        parts.push(format!("paused, no record is retried: {}", names(paused)));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_acknowledgement_of_a_retry_names_partitions_not_reached() {
        let places = |partitions: &[i32]| -> Vec<TopicPartition> {
            let place = |partition: &i32| (Arc::from("orders"), *partition);
            partitions.iter().map(place).collect()
        };
        let check = |records, keys, unread: &[i32], paused: &[i32], expected: &[&str]| {
            let parts = retry_detail(records, keys, &places(unread), &places(paused));
            for text in expected {
                assert!(parts.contains(text), "{parts}");
            }
        };
        check(0, 0, &[], &[], &["no record was waiting"]);
        check(
            1,
            4,
            &[],
            &[],
            &["1 record is retried, 4 parked keys are released"],
        );
        let unread = [
            "4 parked keys are released",
            "orders/0 orders/2",
            "repeat the command",
        ];
        check(0, 4, &[0, 2], &[], &unread);
        check(
            0,
            0,
            &[],
            &[1],
            &[
                "no record was waiting",
                "paused, no record is retried: orders/1",
            ],
        );
    }
}

//! Reconciles this member with the group's control topic: compares the desired with the actual
//! state and acts on the difference.
//!
//! | command | desired state | actual state | acknowledged when |
//! |---|---|---|---|
//! | pause, resume | paused partitions | `held` of an assignment | nothing runs, or read again |
//! | rate | records per second | the [`TokenBucket`] | at once |
//! | skip | records to skip | marks in [`Control`] | the record is settled |
//! | retry, drop, accept loss | – | executed once | it is done |
//!
//! The comparison runs when the topic or the assignment has changed, and is repeated while
//! something is unfinished. So an error in between (a seek that fails, a rebalance) needs no
//! handling of its own.

use crate::consumer::commit::TopicPartition;
use crate::consumer::poll::operator::acknowledgements::{lasting_detail, partition_names};
use crate::consumer::poll::operator::control_topic::ControlTopicReader;
use crate::consumer::poll::operator::immediate_commands;
use crate::consumer::poll::operator::member_announcement::MemberAnnouncement;
use crate::consumer::poll::operator::skip_requests::SkipRequests;
use crate::consumer::poll::operator::telemetry;
use crate::consumer::poll::rebalance::RebalanceContext;
use crate::consumer::shared::Shared;
use crate::consumer::shared::control::Control;
use crate::consumer::state::partition::Partition;
use crate::consumer::state::retry_partition::RetryPartition;
use crate::control::{CommandOutcome, Scope, TokenBucket};
use crate::telemetry::Metric;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait before partitions that could not be resumed are tried again: they are still
/// being drained, or the committed offsets are not available.
const RESUME_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Applies operators' commands to this member. Used by the poll thread.
///
/// Between two turns it holds what it compared last (`compared`), what is unfinished
/// (`has_changes`, `is_draining`), and the requests that wait for a record.
pub(crate) struct Reconciler {
    shared: Arc<Shared>,
    /// None if the control topic cannot be used.
    commands: Option<ControlTopicReader>,
    /// The start of the rate limit's clock.
    clock_start: Instant,
    /// The rate limit in force.
    pace: Option<TokenBucket>,
    /// The latest epoch and the number of partitions at the last comparison.
    compared: (u64, usize),
    has_changes: bool,
    /// When partitions that could not be resumed are tried again.
    resume_at: Instant,
    is_draining: bool,
    is_throttled: bool,
    /// The number of partitions paused by an operator.
    paused_partitions: usize,
    /// Open requests to skip records.
    skip_requests: SkipRequests,
    announcement: MemberAnnouncement,
    is_stopped: bool,
    gauge: metrics::Gauge,
}

impl Reconciler {
    /// The first turn compares.
    pub(crate) fn new(
        shared: Arc<Shared>,
        commands: Option<ControlTopicReader>,
        client_id: &str,
    ) -> Self {
        let labels = [("group", shared.group.as_str())];
        let gauge = shared.health.gauge(Metric::PausedPartitions, &labels);
        Self {
            announcement: MemberAnnouncement::new(Arc::clone(&shared), client_id),
            shared,
            commands,
            clock_start: Instant::now(),
            pace: None,
            compared: (0, 0),
            has_changes: true,
            resume_at: Instant::now(),
            is_draining: false,
            is_throttled: false,
            paused_partitions: 0,
            skip_requests: SkipRequests::default(),
            is_stopped: false,
            gauge,
        }
    }

    /// Whether records are withheld by an operator's command, so that the time does not count as
    /// idle.
    pub(crate) fn withholds_records(&self) -> bool {
        self.paused_partitions > 0 || self.is_throttled
    }

    /// How many of `room` records the rate limit permits.
    ///
    /// A limit of zero records cannot be given; a pause does that.
    pub(crate) fn limit_room(&mut self, room: usize) -> usize {
        let Some(pace) = &mut self.pace else {
            return room;
        };
        let allowed = pace.room(self.clock_start.elapsed());
        self.is_throttled = allowed < room;
        room.min(allowed)
    }

    /// Counts taken records for the rate limit.
    pub(crate) fn count_taken(&mut self, records: usize) {
        if let Some(pace) = &mut self.pace {
            pace.remove_tokens(records);
        }
    }

    /// Ends the reconciliation: the run ends, and no further command applies.
    pub(crate) fn stop(&mut self) {
        self.is_stopped = true;
        self.announcement.withdraw();
        self.gauge.set(0.0);
        self.shared.readiness.note(None);
    }

    /// Reads new commands, and moves the actual state towards the desired one. Blocks only for the
    /// lookup of committed offsets when partitions are resumed.
    ///
    /// Called on every turn of the poll thread, after its rebalances. Costs little while nothing
    /// changes.
    pub(crate) fn reconcile(&mut self, consumer: &BaseConsumer<RebalanceContext>) {
        if self.is_stopped {
            return;
        }
        let commands = self.commands.as_mut();
        let entries = commands.map(|commands| commands.take_entries(&self.shared));
        let (immediate, has_entries) = entries.unwrap_or_default();
        self.has_changes |= has_entries || self.shared.retry_topics.take_appeared();
        let member = consumer.context();
        let current = {
            let mut assignments = member.assignments();
            (assignments.last_epoch, assignments.all().count())
        };
        if current != self.compared {
            self.announcement.check_soon();
        }
        self.announcement.update(consumer);
        let is_changed = self.has_changes || current != self.compared;
        if is_changed || self.is_draining {
            self.compared = current;
            // Unfinished changes are tried again on the next turn.
            self.has_changes = !self.pause_and_resume(consumer);
            self.is_draining = member.advance_pauses();
            self.apply_rate();
            self.acknowledge(member);
            self.report_state(member);
        }
        for command in immediate {
            immediate_commands::execute(&self.shared, member, &command);
        }
        if is_changed {
            self.skip_requests.collect(&self.shared, member);
        }
        self.skip_requests.advance(&self.shared, member);
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
    /// | paused | read | pause |
    /// | read | paused, no log reset | resume |
    /// | read | paused by a log reset | none: the reset resumes it |
    /// | read | read, and a retry topic has appeared | pause; resumed on a later turn |
    fn pause_and_resume(&mut self, consumer: &BaseConsumer<RebalanceContext>) -> bool {
        let (mut to_pause, mut to_resume, mut to_restart) = (Vec::new(), Vec::new(), Vec::new());
        let member = consumer.context();
        for assigned in member.assignments().all() {
            let partition = &assigned.partition;
            let place = (Arc::clone(&partition.topic), partition.partition);
            match (
                self.control().is_paused(&place.0, place.1),
                assigned.held.is_some(),
            ) {
                (true, false) => to_pause.push(place),
                // A partition with a log reset resumes by itself after it was reset.
                (false, true) if !assigned.must_be_reread() => to_resume.push(place),
                (false, false) if has_appeared(partition) => to_restart.push(place),
                _ => {}
            }
        }
        if !to_pause.is_empty() {
            telemetry::partitions_paused(&self.shared.group, &to_pause);
            member.pause(consumer, &to_pause);
        }
        // They are resumed at once and then read their parked records.
        member.pause(consumer, &to_restart);
        let is_done = to_restart.is_empty();
        // The committing thread answers one query at a time, and partitions with a log reset come
        // first.
        let is_free = !member
            .assignments()
            .all()
            .any(|one| one.must_be_reread() && !one.is_absent());
        if to_resume.is_empty() || Instant::now() < self.resume_at || !is_free {
            return is_done && to_resume.is_empty();
        }
        let resumed = member.resume(consumer, &to_resume);
        if !resumed.is_empty() {
            telemetry::partitions_resumed(&self.shared.group, &resumed);
        }
        // The new epoch is not a change to compare again.
        self.compared.0 = member.assignments().last_epoch;
        let is_complete = resumed.len() == to_resume.len();
        if !is_complete {
            self.resume_at = Instant::now() + RESUME_RETRY_INTERVAL;
        }
        is_done && is_complete
    }

    /// Applies the rate limit of the topic. A new limit starts with a full bucket.
    fn apply_rate(&mut self) {
        let rate = self.control().state().rate().map(|(rate, _)| rate);
        if rate != self.pace.as_ref().map(TokenBucket::rate) {
            telemetry::rate_set(&self.shared.group, rate);
            self.pace = rate.map(|rate| TokenBucket::new(rate, self.clock_start.elapsed()));
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
                let Some(detail) = lasting_detail(&command.action, is_paused, held) else {
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
    fn report_state(&mut self, member: &RebalanceContext) {
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
        self.paused_partitions = places.len();
        self.gauge.set(self.paused_partitions as f64);
        let rate = self
            .pace
            .as_ref()
            .map(|pace| format!("at most {} records a second", pace.rate()));
        let paused =
            (self.paused_partitions > 0).then(|| format!("paused: {}", partition_names(&places)));
        let notes: Vec<String> = paused.into_iter().chain(rate).collect();
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        self.shared.readiness.note(note);
    }
}

/// Whether the retry topic was created after the partition was opened without one.
fn has_appeared(partition: &Partition) -> bool {
    let retry = partition.retry.as_ref();
    retry.is_some_and(RetryPartition::has_appeared)
}

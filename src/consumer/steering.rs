//! Has this member do what the group's control topic says.
//!
//! Runs on the poll thread, which asks for news each time it serves the client's events: looking costs next to nothing, and
//! the brokers answer as soon as there is an entry. What is to be is worked out anew from the topic's state and the
//! assignments whenever either has changed, so it does not matter which comes first. That happens before records are taken: of a
//! paused partition that was just assigned, none is.

use super::commands::Commands;
use super::control::Control;
use super::engine::Engine;
use super::parking::{Dropped, RetryPartition};
use super::partition::Partition;
use super::pause::{Held, Place};
use super::rebalance::Member;
use super::skipping::Skipping;
use crate::control::{Action, Command, Outcome, Pace, Scope};
use crate::kafka::queue::member_id;
use crate::telemetry::Metric;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long partitions wait that could not go on: they are being drained still, or the group's offsets cannot be had.
const RELEASE_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// This member's way from commands to what they change.
pub(crate) struct Steering {
    engine: Arc<Engine>,
    /// None where there is no control topic.
    commands: Option<Commands>,
    began: Instant,
    pace: Option<Pace>,
    /// The latest epoch and the number of partitions that were looked at last.
    seen: (u64, usize),
    has_news: bool,
    /// When partitions that could not go on are tried again.
    release_at: Instant,
    is_draining: bool,
    is_throttled: bool,
    /// Partitions that are paused here.
    held: usize,
    skipping: Skipping,
    is_over: bool,
    gauge: metrics::Gauge,
}

impl Steering {
    pub(crate) fn new(engine: Arc<Engine>, commands: Option<Commands>) -> Self {
        let labels = [("group", engine.group.as_str())];
        let gauge = engine.health.gauge(Metric::PausedPartitions, &labels);
        Self {
            engine,
            commands,
            began: Instant::now(),
            pace: None,
            seen: (0, 0),
            has_news: true,
            release_at: Instant::now(),
            is_draining: false,
            is_throttled: false,
            held: 0,
            skipping: Skipping::default(),
            is_over: false,
            gauge,
        }
    }

    /// Whether records are kept back on an operator's word: that none comes does not mean that there is none.
    pub(crate) fn holds_back(&self) -> bool {
        self.held > 0 || self.is_throttled
    }

    /// How many records may be taken, of `room` that there is room for.
    pub(crate) fn room(&mut self, room: usize) -> usize {
        let Some(pace) = &mut self.pace else {
            return room;
        };
        let allowed = pace.room(self.began.elapsed());
        self.is_throttled = allowed < room;
        room.min(allowed)
    }

    /// So many records were taken.
    pub(crate) fn took(&mut self, records: usize) {
        if let Some(pace) = &mut self.pace {
            pace.took(records);
        }
    }

    /// The run ends: what partitions do is no operator's business any more.
    pub(crate) fn stop(&mut self) {
        self.is_over = true;
        self.gauge.set(0.0);
        self.engine.readiness.note(None);
    }

    /// Looks for commands, and brings what is closer to what is to be. Blocks for nothing but the look at committed offsets
    /// when partitions go on.
    pub(crate) fn serve(&mut self, consumer: &BaseConsumer<Member>) {
        if self.is_over {
            return;
        }
        let commands = self.commands.as_mut();
        let taken = commands.map(|commands| commands.take(&self.engine));
        let (once, is_news) = taken.unwrap_or_default();
        self.has_news |= is_news || self.engine.parking.take_appeared();
        let member = consumer.context();
        let seen = {
            let mut assignments = member.assignments();
            (assignments.last_epoch, assignments.all().count())
        };
        let is_changed = self.has_news || seen != self.seen;
        if is_changed || self.is_draining {
            if seen != self.seen {
                let id = member_id(consumer).unwrap_or_default();
                self.engine.control.set_member(id);
                self.seen = seen;
            }
            // What could not be done now stays news.
            self.has_news = !self.hold_and_release(consumer);
            self.is_draining = member.mind_held();
            self.set_pace();
            self.acknowledge(member);
            self.show(member);
        }
        for command in once {
            self.carry_out(member, &command);
        }
        if is_changed {
            self.skipping.find(&self.engine, member);
        }
        self.skipping.mind(&self.engine, member);
    }

    fn control(&self) -> &Control {
        &self.engine.control
    }

    /// Pauses and resumes partitions, and has those begin anew whose retry topic has appeared; false when that takes another turn.
    fn hold_and_release(&mut self, consumer: &BaseConsumer<Member>) -> bool {
        let (mut hold, mut release, mut anew) = (Vec::new(), Vec::new(), Vec::new());
        let member = consumer.context();
        for assigned in member.assignments().all() {
            let partition = &assigned.partition;
            let place = (Arc::clone(&partition.topic), partition.partition);
            match (
                self.control().is_paused(&place.0, place.1),
                assigned.held.is_some(),
            ) {
                (true, false) => hold.push(place),
                // One whose log begins anew goes on by itself once it is set back.
                (false, true) if !assigned.is_to_be_set_back() => release.push(place),
                (false, false) if has_appeared(partition) => anew.push(place),
                _ => {}
            }
        }
        if !hold.is_empty() {
            tracing::warn!(group = self.engine.group, partitions = %names(&hold), "partitions are paused by an operator");
            member.hold(consumer, &hold);
        }
        // They go on at once, and find out then what is parked.
        member.hold(consumer, &anew);
        let is_done = anew.is_empty();
        // The committing thread is asked about one set of places at a time, and those that are set back come first.
        let is_free = !member
            .assignments()
            .all()
            .any(|one| one.is_to_be_set_back());
        if release.is_empty() || Instant::now() < self.release_at || !is_free {
            return is_done && release.is_empty();
        }
        let released = member.release(consumer, &release);
        if !released.is_empty() {
            tracing::warn!(group = self.engine.group, partitions = %names(&released), "partitions go on");
        }
        // A fresh epoch is no news: it was just looked at.
        self.seen.0 = member.assignments().last_epoch;
        let are_all = released.len() == release.len();
        if !are_all {
            self.release_at = Instant::now() + RELEASE_AGAIN_AFTER;
        }
        is_done && are_all
    }

    fn set_pace(&mut self) {
        let rate = self.control().state().rate().map(|(rate, _)| rate);
        if rate != self.pace.as_ref().map(Pace::rate) {
            tracing::warn!(
                group = self.engine.group,
                records_per_second = rate.map_or(0, std::num::NonZero::get),
                "the rate is set by an operator; 0 is no limit"
            );
            self.pace = rate.map(|rate| Pace::new(rate, self.began.elapsed()));
            self.is_throttled = false;
        }
    }

    /// Acknowledges what lasts and is in force here.
    fn acknowledge(&self, member: &Member) {
        let mut done: BTreeMap<(String, &'static str), Vec<Scope>> = BTreeMap::new();
        for assigned in member.assignments().all() {
            let (topic, partition) = (&*assigned.partition.topic, assigned.partition.partition);
            let mut state = self.control().state();
            let is_paused = state.pause_of(topic, partition).is_some();
            for command in state.unacknowledged(topic, partition) {
                let held = assigned.held.as_ref();
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
                .acknowledge(&id, partitions, Outcome::Applied, detail);
        }
    }

    /// Shows what is paused to those who look at this member.
    fn show(&mut self, member: &Member) {
        let mut places: Vec<Place> = Vec::new();
        for assigned in member.assignments().all() {
            let partition = &assigned.partition;
            let is_paused = || {
                self.control()
                    .is_paused(&partition.topic, partition.partition)
            };
            if assigned.held.is_some() && (!assigned.is_to_be_set_back() || is_paused()) {
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
        self.engine.readiness.note(note);
    }

    /// Does what is to be done once.
    fn carry_out(&self, member: &Member, command: &Command) {
        let scope = command.action.scope();
        let mut concerned = Vec::new();
        for assigned in member.assignments().all() {
            let partition = &assigned.partition;
            if scope.touches(&partition.topic, partition.partition) {
                concerned.push(Arc::clone(partition));
            }
        }
        if concerned.is_empty() {
            return;
        }
        let (outcome, detail) = match &command.action {
            Action::RetryNow { .. } => (Outcome::Applied, self.retry_now(&concerned, &scope)),
            Action::Drop { .. } => self.drop_parked(&concerned, command),
            Action::AcceptLoss { .. } => (Outcome::Applied, self.accept_loss(&concerned)),
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

    fn retry_now(&self, concerned: &[Arc<Partition>], scope: &Scope) -> String {
        let parked = concerned
            .iter()
            .map(|partition| self.engine.release_parked(partition, scope));
        let parked: usize = parked.sum();
        let in_place = match scope {
            Scope::Key { .. } => 0,
            _ => self.control().retry_now(scope),
        };
        if *scope == Scope::Group {
            // What the flood guard has stopped waits, too.
            self.engine.dead_letters.release_flood();
        }
        let count = |count: usize, one: &str, more: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            more_than_one => Some(format!("{more_than_one} {more}")),
        };
        let records = count(in_place, "record is tried again", "records are tried again");
        let keys = count(parked, "parked key goes on", "parked keys go on");
        let done: Vec<String> = records.into_iter().chain(keys).collect();
        match done.is_empty() {
            true => "nothing waited".to_owned(),
            false => done.join(", "),
        }
    }

    fn accept_loss(&self, concerned: &[Arc<Partition>]) -> String {
        let accepted = concerned
            .iter()
            .map(|partition| self.engine.accept_loss(partition));
        match accepted.sum() {
            0_u64 => "nothing is lost here".to_owned(),
            lost => format!("{lost} lost entries are given up"),
        }
    }

    fn drop_parked(&self, concerned: &[Arc<Partition>], command: &Command) -> (Outcome, String) {
        let Action::Drop {
            scope: Scope::Key { key, .. },
        } = &command.action
        else {
            let detail = "only the first parked record of a key can be dropped";
            return (Outcome::Refused, detail.to_owned());
        };
        let dropped = concerned
            .iter()
            .map(|partition| self.engine.drop_parked(partition, key, command));
        // All of them: a producer may have spread a key over partitions.
        let dropped: Vec<Dropped> = dropped.collect();
        let mut dropped = dropped.into_iter();
        let found = dropped.rfind(|dropped| *dropped != Dropped::NothingThere);
        let (outcome, detail) = match found {
            Some(Dropped::First) => (
                Outcome::Applied,
                "its first parked record goes to the dead-letter topic, the next one is tried",
            ),
            Some(Dropped::IsHeld) => (
                Outcome::Refused,
                "the key waits for the replay of its dead letter; release it instead",
            ),
            Some(Dropped::NothingThere) | None => {
                (Outcome::Applied, "nothing of the key is parked here")
            }
        };
        (outcome, detail.to_owned())
    }
}

/// Whether the retry topic was created after the partition was opened without one.
fn has_appeared(partition: &Partition) -> bool {
    let retry = partition.retry.as_ref();
    retry.is_some_and(RetryPartition::has_appeared)
}

/// What has come of a lasting command on a partition, once it is in force there.
fn in_force(action: &Action, is_paused: bool, held: Option<&Held>) -> Option<&'static str> {
    match (action, held) {
        (Action::Pause { .. }, Some(Held::Still { drained: true })) => {
            Some("paused: nothing of it is handled")
        }
        (Action::Pause { .. }, Some(Held::Still { drained: false })) => {
            Some("paused: nothing more of it starts, but a handler that had started still runs")
        }
        (Action::Pause { .. }, _) => None,
        (Action::Resume { .. }, _) if is_paused => Some("still paused by another command"),
        (Action::Resume { .. }, Some(_)) => None,
        (Action::Resume { .. }, None) => Some("handled again"),
        (Action::Rate { records_per_second }, _) => Some(match records_per_second {
            Some(_) => "the rate is kept",
            None => "no limit any more",
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

fn names(places: &[Place]) -> String {
    let names: Vec<String> = places
        .iter()
        .map(|(topic, partition)| format!("{topic}/{partition}"))
        .collect();
    names.join(" ")
}

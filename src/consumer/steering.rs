//! Follows the group's control topic, and has this member do what it says.
//!
//! Runs on the poll thread, which asks for news each time it serves the client's events: looking costs next to nothing, and
//! the brokers answer as soon as there is an entry. What is to be is worked out anew from the topic's state and the
//! assignments whenever either has changed, so it does not matter which comes first.

use super::control::Control;
use super::engine::Engine;
use super::ledger::{Epoch, Position as Progress};
use super::pause::{Held, Place};
use super::rebalance::Member;
use super::settings::ConsumerSettings;
use crate::control::{
    Action, Command, ControlState, Entry, Outcome, Pace, Scope, Skip, control_topic,
};
use crate::kafka::queue::member_id;
use crate::kafka::reader::{LogRecord, Reader};
use crate::kafka::{KafkaConfig, KafkaError};
use crate::recovery::Position;
use crate::telemetry::Metric;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the brokers hold a look at the topic back while there is nothing new: an idle member costs so much less.
const FETCH_WAIT_MS: &str = "10000";
/// Entries taken in at a time, so that a flood of them does not keep the poll thread.
const ENTRIES_PER_TURN: usize = 256;
/// A record to be skipped that is not settled after this time is acknowledged as pending.
const PENDING_AFTER: Duration = Duration::from_millis(500);
/// How long partitions wait that could not go on: they are being drained still, or the group's offsets cannot be had.
const RELEASE_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long one look for what the topic holds takes at the start.
const TURN: Duration = Duration::from_millis(100);

/// Reads all that the control topic holds, and gives back who goes on reading it. Without a topic nothing is read.
pub(super) async fn follow(
    is_controlled: bool,
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<(Option<Reader>, ControlState), KafkaError> {
    if !is_controlled {
        return Ok((None, ControlState::default()));
    }
    let topic = control_topic(&settings.group);
    let (kafka, within) = (client(kafka), settings.startup_timeout);
    let name = topic.clone();
    let read = tokio::task::spawn_blocking(move || catch_up(&kafka, &name, within)).await;
    match read {
        Ok(Ok((reader, state))) => Ok((Some(reader), state)),
        Ok(Err(error @ (KafkaError::Refused { .. } | KafkaError::UnknownTopic { .. }))) => {
            tracing::warn!(topic, %error, "the control topic cannot be read: this member takes no commands");
            Ok((None, ControlState::default()))
        }
        // What is paused is not known, and must not be handled.
        Ok(Err(error)) => Err(error),
        Err(_) => Err(KafkaError::Timeout {
            what: format!("reading {topic}"),
            seconds: within.as_secs(),
        }),
    }
}

/// The settings of the client that follows the topic.
fn client(kafka: &KafkaConfig) -> KafkaConfig {
    let mut kafka = kafka.clone();
    let properties = &mut kafka.properties;
    // Shorter than the client's own wait for an answer, which somebody may have set.
    if !properties.contains_key("socket.timeout.ms") {
        properties.insert("fetch.wait.max.ms".to_owned(), FETCH_WAIT_MS.to_owned());
    }
    properties.insert("fetch.min.bytes".to_owned(), "1".to_owned());
    kafka
}

fn catch_up(
    kafka: &KafkaConfig,
    topic: &str,
    within: Duration,
) -> Result<(Reader, ControlState), KafkaError> {
    let mut reader = open(kafka, topic, within)?;
    let mut state = ControlState::default();
    let mut quiet_since = Instant::now();
    while !reader.has_caught_up() {
        if let Some(record) = reader.next(TURN)? {
            apply(&mut state, &record, false);
            quiet_since = Instant::now();
        }
        if quiet_since.elapsed() >= within {
            return Err(KafkaError::Timeout {
                what: format!("reading {topic}"),
                seconds: within.as_secs(),
            });
        }
    }
    Ok((reader, state))
}

/// Opens the topic, which another member may be creating at this moment: brokers know it before it can be read.
fn open(kafka: &KafkaConfig, topic: &str, within: Duration) -> Result<Reader, KafkaError> {
    let deadline = Instant::now() + within;
    loop {
        match Reader::follow(kafka, [topic], within) {
            Err(KafkaError::UnknownTopic { .. } | KafkaError::Client { .. })
                if Instant::now() < deadline =>
            {
                std::thread::sleep(TURN);
            }
            opened => return opened,
        }
    }
}

/// Takes an entry in; gives back what is to be carried out once.
fn apply(state: &mut ControlState, record: &LogRecord, is_live: bool) -> Option<Command> {
    let entry = Entry::read(record.key.as_deref(), record.value.as_deref());
    match entry.and_then(|entry| state.apply(entry, is_live)) {
        Ok(command) => command,
        Err(reason) => {
            tracing::warn!(topic = %record.topic, offset = record.offset, %reason, "an entry of the control topic is passed over");
            None
        }
    }
}

/// This member's way from commands to what they change.
pub(crate) struct Steering {
    engine: Arc<Engine>,
    /// None where there is no control topic.
    reader: Option<Reader>,
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
    /// Records of our partitions to be skipped that are not settled, by the id of the command.
    skipping: HashMap<String, Skipping>,
    complaint: Option<String>,
    is_over: bool,
    gauge: metrics::Gauge,
}

struct Skipping {
    skip: Skip,
    since: Instant,
    /// Whether it was said that it is pending.
    is_told: bool,
}

impl Steering {
    pub(crate) fn new(engine: Arc<Engine>, reader: Option<Reader>) -> Self {
        let gauge =
            metrics::gauge!(Metric::PausedPartitions.name(), "group" => engine.group.clone());
        Self {
            engine,
            reader,
            began: Instant::now(),
            pace: None,
            seen: (0, 0),
            has_news: true,
            release_at: Instant::now(),
            is_draining: false,
            is_throttled: false,
            held: 0,
            skipping: HashMap::new(),
            complaint: None,
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
        if self.reader.is_none() || self.is_over {
            return;
        }
        let once = self.take_entries();
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
            self.is_draining = member.mind_held(consumer);
            self.set_pace();
            self.acknowledge(member);
            self.show(member);
        }
        for command in once {
            self.carry_out(member, &command);
        }
        if is_changed {
            self.find_skips(member);
        }
        if !self.skipping.is_empty() {
            self.mind_skips(member);
        }
    }

    fn control(&self) -> &Control {
        &self.engine.control
    }

    /// Takes in what came; gives back what is to be carried out once.
    fn take_entries(&mut self) -> Vec<Command> {
        let mut once = Vec::new();
        let Some(reader) = &mut self.reader else {
            return once;
        };
        for _ in 0..ENTRIES_PER_TURN {
            match reader.next(Duration::ZERO) {
                Ok(Some(record)) => {
                    self.has_news = true;
                    self.complaint = None;
                    let mut state = self.engine.control.state();
                    once.extend(apply(&mut state, &record, true));
                }
                Ok(None) => break,
                Err(error) => {
                    let error = error.to_string();
                    if self.complaint.as_ref() != Some(&error) {
                        tracing::warn!(group = self.engine.group, %error, "the control topic cannot be read: commands wait");
                        self.complaint = Some(error);
                    }
                    break;
                }
            }
        }
        once
    }

    /// Pauses and resumes partitions; false when not all that are to go on could.
    fn hold_and_release(&mut self, consumer: &BaseConsumer<Member>) -> bool {
        let (mut hold, mut release): (Vec<Place>, Vec<Place>) = (Vec::new(), Vec::new());
        let member = consumer.context();
        for assigned in member.assignments().all() {
            let partition = &assigned.partition;
            let place = (Arc::clone(&partition.topic), partition.partition);
            match (
                self.control().is_paused(&place.0, place.1),
                assigned.held.is_some(),
            ) {
                (true, false) => hold.push(place),
                (false, true) => release.push(place),
                _ => {}
            }
        }
        if !hold.is_empty() {
            tracing::warn!(group = self.engine.group, partitions = %names(&hold), "partitions are paused by an operator");
            member.hold(consumer, &hold);
        }
        if release.is_empty() || Instant::now() < self.release_at {
            return release.is_empty();
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
        are_all
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
        for ((id, detail), partitions) in done {
            self.control()
                .acknowledge(&id, partitions, Outcome::Applied, detail);
        }
    }

    /// Shows what is paused to those who look at this member.
    fn show(&mut self, member: &Member) {
        let mut places: Vec<Place> = Vec::new();
        for assigned in member.assignments().all() {
            if assigned.held.is_some() {
                let partition = &assigned.partition;
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
        let Action::RetryNow { scope } = &command.action else {
            return;
        };
        let mut partitions = Vec::new();
        for assigned in member.assignments().all() {
            let (topic, partition) = (&*assigned.partition.topic, assigned.partition.partition);
            if scope.touches(topic, partition) {
                partitions.push(Scope::Partition {
                    topic: topic.to_owned(),
                    partition,
                });
            }
        }
        if partitions.is_empty() {
            return;
        }
        let (outcome, detail) = match scope {
            Scope::Key { .. } => (Outcome::Refused, "no key can be released yet".to_owned()),
            _ => match self.control().retry_now(scope) {
                0 => (Outcome::Applied, "no record waited".to_owned()),
                1 => (Outcome::Applied, "1 record is tried again".to_owned()),
                more => (Outcome::Applied, format!("{more} records are tried again")),
            },
        };
        self.control()
            .acknowledge(&command.id, partitions, outcome, &detail);
    }

    /// Finds the records of our partitions that are to be skipped.
    fn find_skips(&mut self, member: &Member) {
        let skips: Vec<Skip> = self.control().state().skips().cloned().collect();
        for skip in skips {
            let record = &skip.record;
            let is_ours = member
                .assignments()
                .get(&record.topic, record.partition)
                .is_some();
            if is_ours && !self.skipping.contains_key(&skip.command.id) {
                let skipping = Skipping {
                    since: Instant::now(),
                    is_told: skip.outcome.is_some(),
                    skip,
                };
                self.skipping
                    .insert(skipping.skip.command.id.clone(), skipping);
            }
        }
    }

    /// Looks what has become of the records that are to be skipped.
    fn mind_skips(&mut self, member: &Member) {
        let progress = self.engine.ledger().positions();
        let progress: HashMap<Epoch, Progress> = progress
            .into_iter()
            .map(|position| (position.epoch, position))
            .collect();
        let control = &self.engine.control;
        self.skipping.retain(|_, skipping| {
            let record = &skipping.skip.record;
            let mut assignments = member.assignments();
            let Some(assigned) = assignments.get(&record.topic, record.partition) else {
                control.unskip(record);
                return false;
            };
            let is_before = assigned
                .committed
                .is_some_and(|committed| record.offset < committed);
            let is_settled = is_before
                || assigned.settled_above.contains(record.offset)
                || progress
                    .get(&assigned.partition.epoch)
                    .is_some_and(|progress| is_settled(progress, record));
            if is_settled {
                control.unskip(record);
                let detail = "it was settled before it could be skipped";
                control.skip_ended(record, Outcome::AlreadySettled, detail);
                return false;
            }
            let is_held = assigned.held.is_some();
            drop(assignments);
            match is_held {
                // Nothing of it starts, and every other record would be looked up for its sake.
                true => control.unskip(record),
                false => control.skip(record, &skipping.skip.command),
            }
            if !skipping.is_told && (is_held || skipping.since.elapsed() >= PENDING_AFTER) {
                skipping.is_told = true;
                let detail = match is_held {
                    true => "its partition is paused; it is skipped when that goes on",
                    false => "it is skipped when its turn comes, or when its running attempt fails",
                };
                control.skip_ended(record, Outcome::Pending, detail);
            }
            true
        });
    }
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
        (Action::Skip { .. } | Action::RetryNow { .. }, _) => None,
    }
}

/// Whether nothing is left to be done for the record.
fn is_settled(progress: &Progress, record: &Position) -> bool {
    let is_seen = progress.next.is_some_and(|next| record.offset < next);
    let mut unsettled = progress.unsettled.iter();
    is_seen && !unsettled.any(|range| range.contains(&record.offset))
}

fn names(places: &[Place]) -> String {
    let names: Vec<String> = places
        .iter()
        .map(|(topic, partition)| format!("{topic}/{partition}"))
        .collect();
    names.join(" ")
}

//! Reads the group's control topic: all that it holds before the member joins, and what comes from then on.
//!
//! Knows the form of entries and not what follows from them.

use super::engine::Engine;
use super::own_topics::{self, ControlTopic};
use super::readiness::Readiness;
use super::settings::{Bound, ConsumerSettings};
use crate::control::{Command, ControlState, Entry, control_topic};
use crate::kafka::admin::Admin;
use crate::kafka::reader::{LogRecord, Reader};
use crate::kafka::{KafkaConfig, KafkaError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long to wait before a topic that may not be read is looked at again.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How often a topic is looked for that was not there.
const APPEARED_EVERY: Duration = Duration::from_secs(10);
/// The component under which a control topic that may not be read shows in the health.
const COMPONENT: &str = "control_topic";

/// How long the brokers hold a look at the topic back while there is nothing new: an idle member costs so much less.
const FETCH_WAIT_MS: &str = "10000";
/// Entries taken in at a time, so that a flood of them does not keep the poll thread.
const ENTRIES_PER_TURN: usize = 256;
/// How long one look for what the topic holds takes at the start.
const TURN: Duration = Duration::from_millis(100);

/// What is known of the control topic before the member joins.
pub(super) enum Followed {
    /// What it holds, and who goes on reading it.
    Read(Box<Commands>, ControlState),
    /// It has several partitions, so that no two members would see its entries in the same order: no commands are taken.
    Unusable,
    /// The member was stopped before it was known what is paused.
    Stopped,
}

/// Reads all that the control topic holds. Where this member may not see or read it, what is paused is not known and must not
/// be handled: it waits for the permission, and the health says so. Where there is no such topic and it cannot be created
/// nothing is paused; it is looked for while the member runs.
///
/// # Errors
/// What else keeps the topic from being read. For a bounded run, which somebody waits for, a missing permission, too.
pub(super) async fn follow(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Result<Followed, KafkaError> {
    let mut told = None;
    loop {
        let admin = Admin::connect(kafka, settings.startup_timeout).await?;
        let found = own_topics::make_control_topic(&admin, settings).await;
        let refusal = match look(found, kafka, settings).await {
            Ok(Found::Read(reader, state)) => {
                readiness.cluster_answers();
                let commands = Commands::new(Some(*reader), kafka, settings);
                return Ok(Followed::Read(Box::new(commands), state));
            }
            Ok(Found::Absent) => {
                let commands = Commands::new(None, kafka, settings);
                let state = ControlState::default();
                return Ok(Followed::Read(Box::new(commands), state));
            }
            Ok(Found::Unusable) => return Ok(Followed::Unusable),
            Err(error @ KafkaError::Refused { .. }) if settings.bound == Bound::Endless => error,
            Err(error) => return Err(error),
        };
        let reason = unreadable(&settings.group, &refusal);
        if told.as_ref() != Some(&reason) {
            tracing::warn!(
                group = settings.group,
                reason,
                "the member waits before it joins"
            );
            readiness.complain(&reason);
            told = Some(reason);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN_AFTER) => {}
            () = stop.cancelled() => return Ok(Followed::Stopped),
        }
    }
}

/// Looks for a control topic that could not be read or created before.
async fn look_again(kafka: &KafkaConfig, settings: &ConsumerSettings) -> Result<Found, KafkaError> {
    let admin = Admin::connect(kafka, settings.startup_timeout).await?;
    let found = own_topics::control_topic(&admin, settings).await;
    look(found, kafka, settings).await
}

fn unreadable(group: &str, refusal: &KafkaError) -> String {
    format!(
        "what is paused is not known: {refusal}; allow this member DESCRIBE, READ and WRITE on {}",
        control_topic(group)
    )
}

/// What one look at the control topic finds.
enum Found {
    Read(Box<Reader>, ControlState),
    Absent,
    Unusable,
}

/// Reads the control topic, where one was found.
async fn look(
    found: Result<ControlTopic, KafkaError>,
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<Found, KafkaError> {
    let within = settings.startup_timeout;
    match found? {
        ControlTopic::Usable => {}
        ControlTopic::Absent => return Ok(Found::Absent),
        ControlTopic::Unusable => return Ok(Found::Unusable),
    }
    let topic = control_topic(&settings.group);
    let (kafka, name) = (client(kafka), topic.clone());
    let read = tokio::task::spawn_blocking(move || catch_up(&kafka, &name, within)).await;
    let (reader, state) = read.map_err(|_| KafkaError::Timeout {
        what: format!("reading {topic}"),
        seconds: within.as_secs(),
    })??;
    Ok(Found::Read(Box::new(reader), state))
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

/// The topic, followed.
pub(crate) struct Commands {
    /// None while there is no topic, or it may not be read.
    reader: Option<Reader>,
    /// Where a reader comes from that is looked for.
    late: Option<mpsc::Receiver<(Reader, ControlState)>>,
    complaint: Option<String>,
    kafka: KafkaConfig,
    settings: ConsumerSettings,
    runtime: Handle,
}

impl Commands {
    fn new(reader: Option<Reader>, kafka: &KafkaConfig, settings: &ConsumerSettings) -> Self {
        let mut commands = Self {
            late: None,
            complaint: None,
            kafka: kafka.clone(),
            settings: settings.clone(),
            runtime: Handle::current(),
            reader,
        };
        if commands.reader.is_none() {
            commands.look_for_it(APPEARED_EVERY);
        }
        commands
    }

    /// Whether there is a topic to write answers to.
    pub(crate) fn has_topic(&self) -> bool {
        self.reader.is_some()
    }

    /// Has the topic opened as soon as it can be.
    fn look_for_it(&mut self, every: Duration) {
        self.reader = None;
        let (found, late) = mpsc::channel(1);
        self.late = Some(late);
        let (kafka, settings) = (self.kafka.clone(), self.settings.clone());
        self.runtime.spawn(async move {
            while !found.is_closed() {
                tokio::time::sleep(every).await;
                match look_again(&kafka, &settings).await {
                    // Nobody may want it any more.
                    Ok(Found::Read(reader, state)) => {
                        return drop(found.send((*reader, state)).await);
                    }
                    Ok(Found::Absent | Found::Unusable) => {}
                    Err(error) => {
                        tracing::debug!(group = settings.group, %error, "the control topic cannot be read yet");
                    }
                }
            }
        });
    }

    /// Takes in what came, without waiting; gives back what is to be carried out once, and whether anything came.
    pub(crate) fn take(&mut self, engine: &Engine) -> (Vec<Command>, bool) {
        let (mut once, mut is_news) = (Vec::new(), false);
        if let Some((reader, state)) = self.late.as_mut().and_then(|late| late.try_recv().ok()) {
            tracing::info!(group = engine.group, "the control topic can be read now");
            *engine.control.state() = state;
            engine.control.set_muted(false);
            engine.health.set_ready(COMPONENT, Ok(()));
            (self.reader, self.late, self.complaint) = (Some(reader), None, None);
            is_news = true;
        }
        for _ in 0..ENTRIES_PER_TURN {
            let Some(reader) = &mut self.reader else {
                break;
            };
            match reader.next(Duration::ZERO) {
                Ok(Some(record)) => {
                    is_news = true;
                    self.complaint = None;
                    once.extend(apply(&mut engine.control.state(), &record, true));
                }
                Ok(None) => break,
                Err(error) => {
                    self.complain(engine, &error);
                    break;
                }
            }
        }
        (once, is_news)
    }

    fn complain(&mut self, engine: &Engine, error: &KafkaError) {
        let told = error.to_string();
        if self.complaint.as_ref() != Some(&told) {
            tracing::warn!(group = engine.group, %error, "the control topic cannot be read: commands wait");
            self.complaint = Some(told);
        }
        if let KafkaError::Refused { .. } = error {
            // Read anew once it may be read: what was written meanwhile holds from then on.
            let reason = unreadable(&engine.group, error);
            engine.health.set_ready(COMPONENT, Err(reason));
            self.look_for_it(LOOK_AGAIN_AFTER);
        }
    }
}

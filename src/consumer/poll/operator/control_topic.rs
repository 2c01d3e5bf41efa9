//! Reads the group's control topic: all entries before the member joins, and new entries while it
//! runs.
//!
//! It is read by a client without a group, from the beginning at every start: compaction keeps it
//! short. The poll thread takes entries without waiting for any.
//!
//! A member that cannot know the pauses handles nothing. A member whose group has no control topic
//! handles everything, and looks the topic up at an interval: the first command may create it.
//!
//! | control topic | at the start | while running |
//! |---|---|---|
//! | one partition, readable | read to its end, then joined | followed |
//! | missing, cannot be created | joined; nothing is paused | looked for every 10 s |
//! | several partitions | joined; no commands | the same |
//! | not permitted | waits, not ready; a bounded run fails | not ready until permitted |
//! | brokers do not answer | the run fails | the last state stays in force |

use crate::consumer::group_topics::{self, ControlTopic};
use crate::consumer::poll::operator::telemetry;
use crate::consumer::settings::{ConsumerSettings, StopWhen};
use crate::consumer::shared::Shared;
use crate::consumer::shared::readiness::Readiness;
use crate::control::{Command, ControlState, Entry, control_topic};
use crate::kafka::admin::Admin;
use crate::kafka::reader::{LogRecord, Reader};
use crate::kafka::{KafkaConfig, KafkaError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long to wait before a topic with missing permissions is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How often a missing topic is looked up.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(10);
/// The health component of a control topic that cannot be read for lack of permission.
const COMPONENT: &str = "control_topic";

/// How long brokers hold a fetch while there is no new entry. A long wait saves wake-ups of an idle
/// member.
const FETCH_WAIT_MS: &str = "10000";
/// Entries applied per turn, so that a flood of them does not block the poll thread.
const ENTRIES_PER_TURN: usize = 256;
/// How long one read waits for a record at the start.
const READ_TIMEOUT: Duration = Duration::from_millis(100);

/// The control topic at the start of a member.
pub(crate) enum ControlTopicAtStart {
    /// Its state, and the reader of further entries.
    Read(Box<ControlTopicReader>, ControlState),
    /// It has several partitions, so that members would see its entries in different orders. No
    /// commands are accepted.
    Unusable,
    /// The member was stopped before the state of the topic was known.
    Stopped,
}

/// Reads the whole control topic. If this member lacks a permission, it is unknown which partitions
/// are paused, so that none may be handled: the member waits for the permission, and the health
/// reports it. If the topic does not exist and cannot be created, no partition is paused; the topic
/// is looked up while the member runs.
///
/// # Errors
/// Any other failure to read the topic. For a bounded run, which must not wait for ever, a missing
/// permission as well.
///
/// Called before the member joins its group, on a task of the run.
pub(crate) async fn read_at_start(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Result<ControlTopicAtStart, KafkaError> {
    let mut reported = None;
    loop {
        let admin = Admin::connect(kafka, settings.startup_timeout).await?;
        let found = group_topics::ensure_control_topic(&admin, settings).await;
        let refusal = match read(found, kafka, settings).await {
            Ok(ReadAttempt::Read(reader, state)) => {
                readiness.cluster_answers();
                let commands = ControlTopicReader::new(Some(*reader), kafka, settings);
                return Ok(ControlTopicAtStart::Read(Box::new(commands), state));
            }
            Ok(ReadAttempt::Absent) => {
                let commands = ControlTopicReader::new(None, kafka, settings);
                let state = ControlState::default();
                return Ok(ControlTopicAtStart::Read(Box::new(commands), state));
            }
            Ok(ReadAttempt::Unusable) => return Ok(ControlTopicAtStart::Unusable),
            Err(error @ KafkaError::Refused { .. }) if settings.stop_when == StopWhen::Endless => {
                error
            }
            Err(error) => return Err(error),
        };
        let reason = unreadable_reason(&settings.group, &refusal);
        if reported.as_ref() != Some(&reason) {
            telemetry::join_delayed(&settings.group, &reason);
            readiness.report_cluster_error(&reason);
            reported = Some(reason);
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_AFTER) => {}
            () = stop.cancelled() => return Ok(ControlTopicAtStart::Stopped),
        }
    }
}

/// Looks up and reads a control topic that could not be read or created before.
async fn read_again(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<ReadAttempt, KafkaError> {
    let admin = Admin::connect(kafka, settings.startup_timeout).await?;
    let found = group_topics::control_topic(&admin, settings).await;
    read(found, kafka, settings).await
}

/// The reason in the health, with the permissions that are missing.
fn unreadable_reason(group: &str, refusal: &KafkaError) -> String {
    format!(
        "the paused partitions are unknown: {refusal}; allow this member DESCRIBE, READ and WRITE on {}",
        control_topic(group)
    )
}

/// The result of one attempt to read the control topic.
enum ReadAttempt {
    /// It was read up to its end.
    Read(Box<Reader>, ControlState),
    /// It does not exist.
    Absent,
    Unusable,
}

/// Reads the control topic, if one was found.
async fn read(
    found: Result<ControlTopic, KafkaError>,
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<ReadAttempt, KafkaError> {
    let within = settings.startup_timeout;
    match found? {
        ControlTopic::Usable => {}
        ControlTopic::Absent => return Ok(ReadAttempt::Absent),
        ControlTopic::Unusable => return Ok(ReadAttempt::Unusable),
    }
    let topic = control_topic(&settings.group);
    let (kafka, name) = (client(kafka), topic.clone());
    let read = tokio::task::spawn_blocking(move || catch_up(&kafka, &name, within)).await;
    let (reader, state) = read.map_err(|_| KafkaError::Timeout {
        what: format!("reading {topic}"),
        seconds: within.as_secs(),
    })??;
    Ok(ReadAttempt::Read(Box::new(reader), state))
}

/// The settings of the client that reads the topic.
fn client(kafka: &KafkaConfig) -> KafkaConfig {
    let mut kafka = kafka.clone();
    let properties = &mut kafka.properties;
    // The wait must be shorter than the client's socket timeout, which may be configured.
    if !properties.contains_key("socket.timeout.ms") {
        properties.insert("fetch.wait.max.ms".to_owned(), FETCH_WAIT_MS.to_owned());
    }
    properties.insert("fetch.min.bytes".to_owned(), "1".to_owned());
    kafka
}

/// Reads the topic from its beginning to its end. Blocks. `within` bounds the time without any
/// entry.
fn catch_up(
    kafka: &KafkaConfig,
    topic: &str,
    within: Duration,
) -> Result<(Reader, ControlState), KafkaError> {
    let mut reader = open(kafka, topic, within)?;
    let mut state = ControlState::default();
    let mut quiet_since = Instant::now();
    while !reader.has_caught_up() {
        if let Some(record) = reader.next(READ_TIMEOUT)? {
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

/// Opens the topic. Brokers may report a topic that is just being created before it can be read.
fn open(kafka: &KafkaConfig, topic: &str, within: Duration) -> Result<Reader, KafkaError> {
    let deadline = Instant::now() + within;
    loop {
        match Reader::follow(kafka, [topic], within) {
            Err(KafkaError::UnknownTopic { .. } | KafkaError::Client { .. })
                if Instant::now() < deadline =>
            {
                std::thread::sleep(READ_TIMEOUT);
            }
            opened => return opened,
        }
    }
}

/// Applies an entry. Returns a command that is executed once.
///
/// An entry that cannot be read is logged and skipped: it must not stop the group.
fn apply(state: &mut ControlState, record: &LogRecord, is_live: bool) -> Option<Command> {
    let entry = Entry::read(record.key.as_deref(), record.value.as_deref());
    match entry.and_then(|entry| state.apply(entry, is_live)) {
        Ok(command) => command,
        Err(reason) => {
            telemetry::entry_ignored(record, &reason);
            None
        }
    }
}

/// Reads the control topic while the member runs. Used by the poll thread.
pub(crate) struct ControlTopicReader {
    /// None while the topic does not exist or cannot be read.
    reader: Option<Reader>,
    /// Receives the reader of a topic that was opened later.
    opening: Option<mpsc::Receiver<(Reader, ControlState)>>,
    /// The last read error, so that each is logged once.
    last_error: Option<String>,
    kafka: KafkaConfig,
    settings: ConsumerSettings,
    /// Runs the task that opens the topic later: the poll thread is not a task.
    runtime: Handle,
}

impl ControlTopicReader {
    /// Reads from `reader`, or looks the topic up until it exists.
    fn new(reader: Option<Reader>, kafka: &KafkaConfig, settings: &ConsumerSettings) -> Self {
        let mut commands = Self {
            opening: None,
            last_error: None,
            kafka: kafka.clone(),
            settings: settings.clone(),
            runtime: Handle::current(),
            reader,
        };
        if commands.reader.is_none() {
            commands.open_in_background(LOOKUP_INTERVAL);
        }
        commands
    }

    /// Whether acknowledgements can be written.
    pub(crate) fn has_topic(&self) -> bool {
        self.reader.is_some()
    }

    /// Starts a task that opens the topic as soon as possible.
    ///
    /// The task ends when the topic was read, or with the receiver. It reads the topic from its
    /// beginning, so that commands which were given meanwhile apply.
    fn open_in_background(&mut self, every: Duration) {
        self.reader = None;
        let (opened, opening) = mpsc::channel(1);
        self.opening = Some(opening);
        let (kafka, settings) = (self.kafka.clone(), self.settings.clone());
        self.runtime.spawn(async move {
            while !opened.is_closed() {
                tokio::time::sleep(every).await;
                match read_again(&kafka, &settings).await {
                    // The receiver may have been dropped.
                    Ok(ReadAttempt::Read(reader, state)) => {
                        return drop(opened.send((*reader, state)).await);
                    }
                    Ok(ReadAttempt::Absent | ReadAttempt::Unusable) => {}
                    Err(error) => {
                        tracing::debug!(
                            group = settings.group,
                            %error,
                            "the control topic cannot be read yet"
                        );
                    }
                }
            }
        });
    }

    /// Applies the entries that have arrived, without blocking. Returns the commands that are
    /// executed once, and whether any entry arrived.
    ///
    /// At most 256 entries per turn; the rest waits for the next one.
    pub(crate) fn take_entries(&mut self, shared: &Shared) -> (Vec<Command>, bool) {
        let (mut immediate, mut has_entries) = (Vec::new(), false);
        if let Some((reader, state)) = self
            .opening
            .as_mut()
            .and_then(|opening| opening.try_recv().ok())
        {
            tracing::info!(group = shared.group, "the control topic can be read now");
            *shared.control.state() = state;
            shared.control.set_muted(false);
            shared.health.set_ready(COMPONENT, Ok(()));
            (self.reader, self.opening, self.last_error) = (Some(reader), None, None);
            has_entries = true;
        }
        for _ in 0..ENTRIES_PER_TURN {
            let Some(reader) = &mut self.reader else {
                break;
            };
            match reader.next(Duration::ZERO) {
                Ok(Some(record)) => {
                    has_entries = true;
                    self.last_error = None;
                    immediate.extend(apply(&mut shared.control.state(), &record, true));
                }
                Ok(None) => break,
                Err(error) => {
                    self.read_failed(shared, &error);
                    break;
                }
            }
        }
        (immediate, has_entries)
    }

    /// Logs a read error. After a refusal the topic is opened anew, once that is permitted; until
    /// then the commands known so far stay in force.
    fn read_failed(&mut self, shared: &Shared, error: &KafkaError) {
        let message = error.to_string();
        if self.last_error.as_ref() != Some(&message) {
            telemetry::control_topic_unreadable(&shared.group, error);
            self.last_error = Some(message);
        }
        if let KafkaError::Refused { .. } = error {
            // It is read again from the start once that is permitted, including entries written
            // meanwhile.
            let reason = unreadable_reason(&shared.group, error);
            shared.health.set_ready(COMPONENT, Err(reason));
            self.open_in_background(RETRY_AFTER);
        }
    }
}

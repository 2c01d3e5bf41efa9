//! Reads the group's control topic: all that it holds before the member joins, and what comes from then on.
//!
//! Knows the form of entries and not what follows from them.

use super::engine::Engine;
use super::settings::ConsumerSettings;
use crate::control::{Command, ControlState, Entry, control_topic};
use crate::kafka::reader::{LogRecord, Reader};
use crate::kafka::{KafkaConfig, KafkaError};
use std::time::{Duration, Instant};

/// How long the brokers hold a look at the topic back while there is nothing new: an idle member costs so much less.
const FETCH_WAIT_MS: &str = "10000";
/// Entries taken in at a time, so that a flood of them does not keep the poll thread.
const ENTRIES_PER_TURN: usize = 256;
/// How long one look for what the topic holds takes at the start.
const TURN: Duration = Duration::from_millis(100);

/// Reads all that the control topic holds, and gives back who goes on reading it. Without a topic nothing is read.
pub(super) async fn follow(
    is_controlled: bool,
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<(Option<Commands>, ControlState), KafkaError> {
    if !is_controlled {
        return Ok((None, ControlState::default()));
    }
    let topic = control_topic(&settings.group);
    let (kafka, within) = (client(kafka), settings.startup_timeout);
    let name = topic.clone();
    let read = tokio::task::spawn_blocking(move || catch_up(&kafka, &name, within)).await;
    match read {
        Ok(Ok((reader, state))) => Ok((Some(Commands::new(reader)), state)),
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

/// The topic, followed.
pub(crate) struct Commands {
    reader: Reader,
    complaint: Option<String>,
}

impl Commands {
    fn new(reader: Reader) -> Self {
        Self {
            reader,
            complaint: None,
        }
    }

    /// Takes in what came, without waiting; gives back what is to be carried out once, and whether anything came.
    pub(crate) fn take(&mut self, engine: &Engine) -> (Vec<Command>, bool) {
        let (mut once, mut is_news) = (Vec::new(), false);
        for _ in 0..ENTRIES_PER_TURN {
            match self.reader.next(Duration::ZERO) {
                Ok(Some(record)) => {
                    is_news = true;
                    self.complaint = None;
                    once.extend(apply(&mut engine.control.state(), &record, true));
                }
                Ok(None) => break,
                Err(error) => {
                    let error = error.to_string();
                    if self.complaint.as_ref() != Some(&error) {
                        tracing::warn!(group = engine.group, %error, "the control topic cannot be read: commands wait");
                        self.complaint = Some(error);
                    }
                    break;
                }
            }
        }
        (once, is_news)
    }
}

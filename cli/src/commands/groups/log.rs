//! The control topic of a group, read from its beginning.

use crate::connection::ConnectionArgs;
use evenkeel::control::{ControlState, Entry, History, control_topic};
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::Reader;
use evenkeel::kafka::{KafkaConfig, KafkaError};
use std::time::{Duration, Instant};

/// How long one look for an entry takes.
const TURN: Duration = Duration::from_millis(100);

/// What a control topic holds, and the way to what comes after.
pub(super) struct ControlLog {
    reader: Reader,
    pub(super) state: ControlState,
    pub(super) history: History,
}

impl ControlLog {
    /// Reads the topic to its end; none where there is no such topic.
    pub(super) async fn open(
        connection: &ConnectionArgs,
        admin: &Admin,
        group: &str,
    ) -> anyhow::Result<Option<Self>> {
        let topic = control_topic(group);
        if !evenkeel::kafka::is_topic_name(&topic) {
            return Ok(None);
        }
        let present = admin.partition_counts(std::slice::from_ref(&topic)).await?;
        if present.is_empty() {
            return Ok(None);
        }
        let (kafka, timeout) = (connection.kafka()?, connection.timeout());
        let open = move || Self::read(&kafka, &topic, timeout);
        Ok(Some(tokio::task::spawn_blocking(open).await??))
    }

    fn read(kafka: &KafkaConfig, topic: &str, timeout: Duration) -> Result<Self, KafkaError> {
        let mut log = Self {
            reader: Reader::follow(kafka, [topic], timeout)?,
            state: ControlState::default(),
            history: History::default(),
        };
        let mut deadline = Instant::now() + timeout;
        while !log.reader.has_caught_up() {
            if log.next(TURN)? {
                deadline = Instant::now() + timeout;
            } else if Instant::now() >= deadline {
                return Err(KafkaError::Timeout {
                    what: format!("reading {topic}"),
                    seconds: timeout.as_secs(),
                });
            }
        }
        Ok(log)
    }

    /// Takes the next entry in, if one comes within `wait`. Blocks.
    pub(super) fn next(&mut self, wait: Duration) -> Result<bool, KafkaError> {
        let Some(record) = self.reader.next(wait)? else {
            return Ok(false);
        };
        // Members pass over what they cannot read; so does this.
        if let Ok(entry) = Entry::read(record.key.as_deref(), record.value.as_deref()) {
            let key = record.key.unwrap_or_default();
            self.history
                .apply(&String::from_utf8_lossy(&key), entry.clone());
            let _ = self.state.apply(entry, false);
        }
        Ok(true)
    }
}

/// What is paused and how fast a group may go; nothing where it cannot be commanded.
pub(super) async fn state(
    connection: &ConnectionArgs,
    admin: &Admin,
    group: &str,
) -> anyhow::Result<ControlState> {
    let log = ControlLog::open(connection, admin, group).await?;
    Ok(log.map(|log| log.state).unwrap_or_default())
}

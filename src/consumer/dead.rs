//! Writes dead letters for a consumer, through a producer of its own that is made when the first one is due.

use crate::control::Command;
use crate::event::{OutgoingRecord, Record};
use crate::handler::{Class, DeadReason};
use crate::kafka::{ConfigError, KafkaConfig};
use crate::publisher::{PublishError, Publisher, PublisherSettings};
use crate::recovery::dead_letter::{Failure, dead_letter, shortened};
use crate::telemetry::{Health, Metric};
use std::time::Duration;
use tokio::sync::OnceCell;

/// The component under which a dead-letter topic that cannot be written shows in the health.
const COMPONENT: &str = "dead_letters";

const MESSAGE_BYTES_MAX: &str = "message.max.bytes=1000000000";

/// Writes a group's dead letters.
pub(crate) struct DeadLetterWriter {
    group: String,
    kafka: KafkaConfig,
    health: Health,
    publisher: OnceCell<Publisher>,
}

/// Why a dead letter is not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl DeadLetterWriter {
    pub(crate) fn new(group: &str, kafka: KafkaConfig, health: Health) -> Self {
        Self {
            group: group.to_owned(),
            kafka,
            health,
            publisher: OnceCell::new(),
        }
    }

    /// Writes one, and returns when the brokers have acknowledged it. `skip` is the command that had the record skipped.
    pub(crate) async fn write(
        &self,
        record: &Record,
        class: Class,
        reason: &DeadReason,
        attempts: u32,
        skip: Option<&Command>,
    ) -> Result<(), WriteError> {
        let written = self.publish(record, class, reason, attempts, skip).await;
        let state = match &written {
            Ok(()) => Ok(()),
            Err(error) => Err(format!(
                "the dead-letter topic of {} cannot be written: {error}",
                record.topic()
            )),
        };
        self.health.set_ready(COMPONENT, state);
        if written.is_ok() {
            let (group, topic) = (self.group.clone(), record.topic().to_owned());
            metrics::counter!(Metric::DeadLetters.name(), "group" => group, "topic" => topic, "stage" => reason.stage.as_str()).increment(1);
        }
        written
    }

    /// Writes a record to one of the group's own topics, and returns when the brokers have acknowledged it.
    pub(crate) async fn send(&self, record: OutgoingRecord) -> Result<(), WriteError> {
        self.publisher().await?.publish_record(record).await?;
        Ok(())
    }

    async fn publisher(&self) -> Result<&Publisher, WriteError> {
        let made = self.publisher.get_or_try_init(async || {
            let mut kafka = self.kafka.clone();
            // The topic decides what is too large, not this client.
            kafka.set(MESSAGE_BYTES_MAX)?;
            Publisher::new(&kafka, PublisherSettings::new(&self.group))
        });
        Ok(made.await?)
    }

    async fn publish(
        &self,
        record: &Record,
        class: Class,
        reason: &DeadReason,
        attempts: u32,
        skip: Option<&Command>,
    ) -> Result<(), WriteError> {
        let publisher = self.publisher().await?;
        let failure = Failure {
            group: &self.group,
            service: &self.kafka.client_id,
            reason,
            class,
            attempts,
            now: jiff::Timestamp::now(),
            skip,
        };
        match publisher
            .publish_record(dead_letter(record, &failure))
            .await
        {
            // With its headers it may be larger than the topic allows.
            Err(PublishError::TooLarge { .. } | PublishError::Refused { .. }) => {
                publisher
                    .publish_record(shortened(record, &failure))
                    .await?
            }
            other => other?,
        };
        Ok(())
    }

    /// Waits for what is on its way; says how many are not acknowledged by the deadline.
    pub(crate) async fn flush(&self, deadline: Duration) -> usize {
        match self.publisher.get() {
            Some(publisher) => publisher
                .flush(deadline)
                .await
                .err()
                .map_or(0, |unsent| unsent.records),
            None => 0,
        }
    }
}

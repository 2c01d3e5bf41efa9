//! Writes a consumer's dead letters through a producer of its own. The first dead letter creates
//! it.
//!
//! Two producers: dead letters are sent one per batch, since brokers reject a whole batch for one
//! record that is too large; parked records and notes are sent in batches. Both leave the limit of
//! the record size to the topic.
//!
//! A dead letter that is too large is reduced step by step ([`Form`]): as a whole, then shortened,
//! at last as a reference to the source.
//!
//! | failed write | reason in the health ends with |
//! |---|---|
//! | no such topic, too few partitions | the command that creates or extends the topic |
//! | too large, also as a reference | the same: it raises the limit |
//! | any other | the error of the producer |

mod alarms;
mod flood_gate;

use crate::consumer::group_topics;
use crate::consumer::settings::ConsumerSettings;
use crate::control::Command;
use crate::event::{OutgoingRecord, Record};
use crate::handler::{Class, DeadReason};
use crate::kafka::{ConfigError, KafkaConfig};
use crate::publisher::{PublishError, Publisher, PublisherSettings};
use crate::recovery::DeadLetterTopic;
use crate::recovery::dead_letter::{Failure, Form, dead_letter};
use crate::telemetry::{Metric, Reporter, instance};
use alarms::{Alarm, Alarms};
use flood_gate::FloodGate;
use jiff::Timestamp;
use std::future::Future;
use std::time::Duration;
use tokio::sync::OnceCell;

/// The topic limits the size of a record, not this client.
const MESSAGE_BYTES_MAX: &str = "message.max.bytes=1000000000";
/// Brokers reject a whole batch: a dead letter that is too large must not fail others with it.
const ONE_BY_ONE: &str = "batch.num.messages=1";

/// Writes a group's dead letters, and records to its other topics.
pub(crate) struct DeadLetterWriter {
    group: String,
    topic: DeadLetterTopic,
    instance: String,
    kafka: KafkaConfig,
    /// What the health shows.
    alarms: Alarms,
    /// Stops the writing during a flood.
    gate: FloodGate,
    /// Writes dead letters, one per batch.
    dead_letters: OnceCell<Publisher>,
    /// Writes records to the group's other topics, in batches.
    others: OnceCell<Publisher>,
}

/// Why a record is dead-lettered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeadLetterCause<'a> {
    /// The class of the last failure.
    pub(crate) class: Class,
    /// The stage and the message of the last failure.
    pub(crate) reason: &'a DeadReason,
    /// Attempts that were made.
    pub(crate) attempts: u32,
    /// When the first attempt failed. None if no attempt failed.
    pub(crate) first_failure: Option<Timestamp>,
    /// The command that requested the skip. None if the record was not skipped.
    pub(crate) skip: Option<&'a Command>,
}

/// Why a dead letter could not be written.
///
/// Retried by the caller until it succeeds or the partition is revoked, except for
/// [`PublishError::Fatal`], which ends the run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The producer cannot be created.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The brokers did not acknowledge the record. It may have been written all the same.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// The dead letter of one record. A failed write raises an alarm, which the drop clears.
pub(crate) struct PendingDeadLetter<'a> {
    writer: &'a DeadLetterWriter,
    record: &'a Record,
    cause: DeadLetterCause<'a>,
    alarm: Alarm<'a>,
}

impl DeadLetterWriter {
    /// Connects to nothing.
    pub(crate) fn new(settings: &ConsumerSettings, kafka: KafkaConfig, health: Reporter) -> Self {
        let group = &settings.group;
        Self {
            group: group.clone(),
            topic: settings.dead_letter_topic.clone(),
            instance: instance(settings.instance_id.as_deref()),
            kafka,
            alarms: Alarms::new(group, health),
            gate: FloodGate::new(group, settings.flood_guard),
            dead_letters: OnceCell::new(),
            others: OnceCell::new(),
        }
    }

    /// Writes a record to one of the group's own topics. Returns after the brokers acknowledged it.
    pub(crate) async fn send(&self, record: OutgoingRecord) -> Result<(), WriteError> {
        let publisher = self.publisher(&self.others, &[MESSAGE_BYTES_MAX]).await?;
        publish(publisher, record).await?;
        Ok(())
    }

    /// Returns the dead letter of a record. The caller writes it after the flood guard admitted it.
    pub(crate) fn pending<'a>(
        &'a self,
        record: &'a Record,
        cause: DeadLetterCause<'a>,
    ) -> PendingDeadLetter<'a> {
        PendingDeadLetter {
            writer: self,
            record,
            cause,
            alarm: self.alarms.for_topic(record.topic()),
        }
    }

    /// Waits until the flood guard admits one more dead letter. `reason` is the failure of its
    /// record.
    pub(crate) fn pass_flood_guard(&self, reason: &DeadReason) -> impl Future<Output = ()> {
        self.gate.pass(&self.alarms, &reason.message)
    }

    /// Allows dead letters again after the flood guard stopped them.
    pub(crate) fn release_flood(&self) {
        self.gate.release(&self.alarms);
    }

    /// Counts handled records for the flood guard.
    pub(crate) fn handled(&self, records: u64) {
        self.gate.handled(records);
    }

    /// Passes the handled records to the flood guard. The poll thread calls it on every turn.
    pub(crate) fn update_flood_guard(&self) {
        self.gate.count_handled();
    }

    /// The Kafka configuration of the consumer.
    pub(crate) fn kafka(&self) -> &KafkaConfig {
        &self.kafka
    }

    /// The producer in this cell, created by the first call.
    async fn publisher<'a>(
        &self,
        publisher: &'a OnceCell<Publisher>,
        properties: &[&str],
    ) -> Result<&'a Publisher, ConfigError> {
        let make = async || {
            let mut kafka = self.kafka.clone();
            for property in properties {
                kafka.set(property)?;
            }
            Publisher::new(&kafka, PublisherSettings::new(&self.group))
        };
        publisher.get_or_try_init(make).await
    }

    /// Waits for records that are not acknowledged yet. Returns how many are still unacknowledged
    /// at the deadline.
    ///
    /// Called once at the end of the run, when no worker writes any more.
    pub(crate) async fn flush(&self, deadline: Duration) -> usize {
        let unsent = async |publisher: &OnceCell<Publisher>| match publisher.get() {
            Some(publisher) => {
                let flushed = publisher.flush(deadline).await;
                flushed.err().map_or(0, |unsent| unsent.records)
            }
            None => 0,
        };
        let (dead_letters, others) = tokio::join!(unsent(&self.dead_letters), unsent(&self.others));
        dead_letters + others
    }
}

/// Publishes a record. If the client does not know its partition, which may have been added just
/// now, it looks the topic up and publishes once more.
async fn publish(publisher: &Publisher, record: OutgoingRecord) -> Result<(), PublishError> {
    match publisher.publish_record(record.clone()).await {
        Err(PublishError::NoPartition { topic }) => publisher.look_up(&topic).await,
        published => return published.map(drop),
    }
    publisher.publish_record(record).await.map(drop)
}

/// Describes a failed write to one of the group's own topics, with the command that repairs the
/// topic.
pub(crate) fn describe_write_error(group: &str, error: &WriteError) -> String {
    let command = group_topics::repair_command(group);
    match error {
        WriteError::Publish(PublishError::NoTopic { topic }) => {
            format!("the topic {topic} does not exist; create it as the service would: {command}")
        }
        WriteError::Publish(PublishError::NoPartition { topic }) => format!(
            "the topic {topic} has fewer partitions than its source; add them as the service would: {command}"
        ),
        WriteError::Publish(PublishError::TooLarge { topic, reason }) => {
            format!("not published to {topic}: {reason}; for a topic of the group's own: {command}")
        }
        error => error.to_string(),
    }
}

impl PendingDeadLetter<'_> {
    /// Writes the dead letter. Returns after the brokers acknowledged it. If it fails, the health
    /// reports it until a later write succeeds or the dead letter is dropped.
    pub(crate) async fn write(&mut self) -> Result<(), WriteError> {
        let written = self.publish().await;
        match &written {
            Ok(()) => {
                let (group, topic) = (self.writer.group.clone(), self.record.topic().to_owned());
                let stage = self.cause.reason.stage.as_str();
                metrics::counter!(
                    Metric::DeadLetters.name(),
                    "group" => group,
                    "topic" => topic,
                    "stage" => stage
                )
                .increment(1);
            }
            Err(error) => self
                .alarm
                .raise(&describe_write_error(&self.writer.group, error)),
        }
        written
    }

    /// Publishes as much of the record as fits into the topic's limit.
    async fn publish(&self) -> Result<(), WriteError> {
        let writer = self.writer;
        let properties = [MESSAGE_BYTES_MAX, ONE_BY_ONE];
        let publisher = writer.publisher(&writer.dead_letters, &properties).await?;
        let mut too_large = None;
        for form in Form::ALL {
            match publish(publisher, self.in_form(form)).await {
                Ok(()) => {
                    if form == Form::Reference {
                        tracing::warn!(
                            group = writer.group,
                            record = ?self.record,
                            "the record is too large for the dead-letter topic: its dead letter only refers to it, and is lost when the source deletes the record"
                        );
                    }
                    return Ok(());
                }
                Err(error @ PublishError::TooLarge { .. }) => too_large = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        too_large.map_or(Ok(()), |error| Err(error.into()))
    }

    /// The dead letter in this form.
    fn in_form(&self, form: Form) -> OutgoingRecord {
        let (writer, cause) = (self.writer, &self.cause);
        let failure = Failure {
            to: &writer.topic,
            group: &writer.group,
            service: &writer.kafka.client_id,
            instance: &writer.instance,
            reason: cause.reason,
            class: cause.class,
            attempts: cause.attempts,
            first_failure: cause.first_failure,
            now: Timestamp::now(),
            skip: cause.skip,
        };
        dead_letter(self.record, &failure, form)
    }
}

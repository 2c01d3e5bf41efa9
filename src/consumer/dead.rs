//! Writes dead letters for a consumer, through a producer of its own that is made when the first one is due.
//!
//! - [`alarms`]: what the health shows of it · [`gate`]: where letters wait in a flood

mod alarms;
mod gate;

use super::own_topics;
use super::settings::ConsumerSettings;
use crate::control::Command;
use crate::event::{OutgoingRecord, Record};
use crate::handler::{Class, DeadReason};
use crate::kafka::{ConfigError, KafkaConfig};
use crate::publisher::{PublishError, Publisher, PublisherSettings};
use crate::recovery::DeadLetterTopic;
use crate::recovery::dead_letter::{Failure, Form, dead_letter};
use crate::telemetry::{Metric, Part, instance};
use alarms::{Alarm, Alarms};
use gate::Gate;
use jiff::Timestamp;
use std::future::Future;
use std::time::Duration;
use tokio::sync::OnceCell;

/// The topic decides what is too large, not this client.
const MESSAGE_BYTES_MAX: &str = "message.max.bytes=1000000000";
/// Brokers refuse a batch whole: a letter that is too large must not take its neighbours with it.
const ONE_BY_ONE: &str = "batch.num.messages=1";

/// Writes a group's dead letters.
pub(crate) struct DeadLetterWriter {
    group: String,
    topic: DeadLetterTopic,
    instance: String,
    kafka: KafkaConfig,
    alarms: Alarms,
    gate: Gate,
    /// Of letters, one by one.
    letters: OnceCell<Publisher>,
    /// Of records for the group's other topics, which come in numbers.
    others: OnceCell<Publisher>,
}

/// What is known of a record that is given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GivenUp<'a> {
    pub(crate) class: Class,
    pub(crate) reason: &'a DeadReason,
    pub(crate) attempts: u32,
    /// When the first attempt failed, if one did.
    pub(crate) first_failure: Option<Timestamp>,
    /// The command that had it skipped, if one did.
    pub(crate) skip: Option<&'a Command>,
}

/// Why a dead letter is not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// The letter of one record, on its way. The alarm that it raises when it cannot be written ends with it.
pub(crate) struct Letter<'a> {
    writer: &'a DeadLetterWriter,
    record: &'a Record,
    given_up: GivenUp<'a>,
    alarm: Alarm<'a>,
}

impl DeadLetterWriter {
    pub(crate) fn new(settings: &ConsumerSettings, kafka: KafkaConfig, health: Part) -> Self {
        let group = &settings.group;
        Self {
            group: group.clone(),
            topic: settings.dead_letter_topic.clone(),
            instance: instance(settings.instance_id.as_deref()),
            kafka,
            alarms: Alarms::new(group, health),
            gate: Gate::new(group, settings.flood_guard),
            letters: OnceCell::new(),
            others: OnceCell::new(),
        }
    }

    /// Writes a record to one of the group's own topics, and returns when the brokers have acknowledged it.
    pub(crate) async fn send(&self, record: OutgoingRecord) -> Result<(), WriteError> {
        let publisher = self.publisher(&self.others, &[MESSAGE_BYTES_MAX]).await?;
        publish(publisher, record).await?;
        Ok(())
    }

    /// The letter of a record that is given up, to be written when no flood stops it.
    pub(crate) fn letter<'a>(&'a self, record: &'a Record, given_up: GivenUp<'a>) -> Letter<'a> {
        Letter {
            writer: self,
            record,
            given_up,
            alarm: self.alarms.of(record.topic()),
        }
    }

    /// Waits until the flood guard lets one more letter be written, of a record that failed for this reason.
    pub(crate) fn pass_flood_guard(&self, reason: &DeadReason) -> impl Future<Output = ()> {
        self.gate.pass(&self.alarms, &reason.message)
    }

    /// Lets letters be written again that the flood guard has stopped.
    pub(crate) fn release_flood(&self) {
        self.gate.release(&self.alarms);
    }

    /// So many records were handled.
    pub(crate) fn handled(&self, records: u64) {
        self.gate.handled(records);
    }

    /// Has the flood guard count what was handled. Called all the time.
    pub(crate) fn mind_flood(&self) {
        self.gate.mind();
    }

    /// How to reach Kafka.
    pub(crate) fn kafka(&self) -> &KafkaConfig {
        &self.kafka
    }

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

    /// Waits for what is on its way; says how many are not acknowledged by the deadline.
    pub(crate) async fn flush(&self, deadline: Duration) -> usize {
        let unsent = async |publisher: &OnceCell<Publisher>| match publisher.get() {
            Some(publisher) => {
                let flushed = publisher.flush(deadline).await;
                flushed.err().map_or(0, |unsent| unsent.records)
            }
            None => 0,
        };
        let (letters, others) = tokio::join!(unsent(&self.letters), unsent(&self.others));
        letters + others
    }
}

/// Publishes a record. A partition that the client does not know may have been added a moment ago: it is looked up, and the
/// record is tried once more.
async fn publish(publisher: &Publisher, record: OutgoingRecord) -> Result<(), PublishError> {
    match publisher.publish_record(record.clone()).await {
        Err(PublishError::NoPartition { topic }) => publisher.look_up(&topic).await,
        published => return published.map(drop),
    }
    publisher.publish_record(record).await.map(drop)
}

/// Why a record cannot be written to one of the group's own topics, and what mends it: the topic has to be made as the
/// service makes it.
pub(crate) fn told(group: &str, error: &WriteError) -> String {
    let command = own_topics::command(group);
    match error {
        WriteError::Publish(PublishError::NoTopic { topic }) => {
            format!("the topic {topic} does not exist; make it as the service would: {command}")
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

impl Letter<'_> {
    /// Tries to write it, and returns when the brokers have acknowledged it. Where they do not, the health says so until it is
    /// written or dropped.
    pub(crate) async fn write(&mut self) -> Result<(), WriteError> {
        let written = self.publish().await;
        match &written {
            Ok(()) => {
                let (group, topic) = (self.writer.group.clone(), self.record.topic().to_owned());
                let stage = self.given_up.reason.stage.as_str();
                metrics::counter!(Metric::DeadLetters.name(), "group" => group, "topic" => topic, "stage" => stage).increment(1);
            }
            Err(error) => self.alarm.raise(&told(&self.writer.group, error)),
        }
        written
    }

    /// Publishes as much of the record as the topic has room for.
    async fn publish(&self) -> Result<(), WriteError> {
        let writer = self.writer;
        let properties = [MESSAGE_BYTES_MAX, ONE_BY_ONE];
        let publisher = writer.publisher(&writer.letters, &properties).await?;
        let mut too_large = None;
        for form in Form::ALL {
            match publish(publisher, self.form(form)).await {
                Ok(()) => {
                    if form == Form::Reference {
                        tracing::warn!(group = writer.group, record = ?self.record, "the record is too large for the dead-letter topic: its letter only refers to it, and is worth as much as the source keeps it");
                    }
                    return Ok(());
                }
                Err(error @ PublishError::TooLarge { .. }) => too_large = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        too_large.map_or(Ok(()), |error| Err(error.into()))
    }

    fn form(&self, form: Form) -> OutgoingRecord {
        let (writer, given_up) = (self.writer, &self.given_up);
        let failure = Failure {
            to: &writer.topic,
            group: &writer.group,
            service: &writer.kafka.client_id,
            instance: &writer.instance,
            reason: given_up.reason,
            class: given_up.class,
            attempts: given_up.attempts,
            first_failure: given_up.first_failure,
            now: Timestamp::now(),
            skip: given_up.skip,
        };
        dead_letter(self.record, &failure, form)
    }
}

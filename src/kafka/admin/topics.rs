//! Topics: list, describe, create.

use super::connection::Connection;
use super::{NewTopic, PartitionDescription, TopicDescription, TopicPresence};
use crate::kafka::error::failed;
use crate::kafka::{ConfigError, KafkaError, is_topic_name};
use rdkafka::admin::{
    AdminOptions, AlterConfig, ConfigSource, ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::metadata::{Metadata, MetadataPartition, MetadataTopic};
use rdkafka::types::RDKafkaRespErr;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How often it is looked whether the brokers have spread a change.
const POLL: Duration = Duration::from_millis(20);
/// How long brokers are given to show a changed setting.
const ALTERED_WAIT: Duration = Duration::from_secs(5);

/// All topics but Kafka's own.
pub(super) fn list(connection: &Connection) -> Result<Vec<String>, KafkaError> {
    let metadata = connection.metadata(None)?;
    let names = metadata.topics().iter().map(MetadataTopic::name);
    let mut names: Vec<String> = names
        .filter(|name| !name.starts_with("__"))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// Partition counts of those topics that exist.
pub(super) fn partition_counts(
    connection: &Connection,
    topics: &[String],
) -> Result<BTreeMap<String, usize>, KafkaError> {
    let mut counts = BTreeMap::new();
    for (topic, presence) in presence(connection, topics)? {
        match presence {
            TopicPresence::Present { partitions, .. } => drop(counts.insert(topic, partitions)),
            TopicPresence::Absent => {}
            TopicPresence::Hidden => return Err(hidden(&topic)),
        }
    }
    Ok(counts)
}

fn hidden(topic: &str) -> KafkaError {
    KafkaError::Refused {
        what: format!("looking the topic {topic} up"),
        cause: "this client may not see it, whether it exists or not; it takes an ACL for DESCRIBE"
            .to_owned(),
    }
}

/// Whether these topics exist. Those that the list of all topics lacks are asked for by name: the list leaves out what the
/// client may not see, and an answer about one topic says so.
pub(super) fn presence(
    connection: &Connection,
    topics: &[String],
) -> Result<BTreeMap<String, TopicPresence>, KafkaError> {
    let all = connection.metadata(None)?;
    let listed: HashMap<&str, TopicPresence> = all
        .topics()
        .iter()
        .filter_map(|found| Some((found.name(), present(found)?)))
        .collect();
    let mut presences = BTreeMap::new();
    for topic in topics {
        let presence = match listed.get(topic.as_str()) {
            Some(presence) => *presence,
            None => presence_by_name(connection, topic)?,
        };
        presences.insert(topic.clone(), presence);
    }
    Ok(presences)
}

/// The presence of a topic in an answer, where that has partitions of it.
fn present(topic: &MetadataTopic) -> Option<TopicPresence> {
    let first = topic.partitions().first()?;
    Some(TopicPresence::Present {
        partitions: topic.partitions().len(),
        replicas: first.replicas().len(),
    })
}

fn presence_by_name(connection: &Connection, topic: &str) -> Result<TopicPresence, KafkaError> {
    if !is_topic_name(topic) {
        return Ok(TopicPresence::Absent);
    }
    loop {
        let metadata = connection.metadata(Some(topic))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let error = found.and_then(MetadataTopic::error).map(Code::from);
        let what = format!("looking the topic {topic} up");
        match (error, found.and_then(present)) {
            (None, Some(presence)) => return Ok(presence),
            (Some(Code::UnknownTopicOrPartition | Code::UnknownTopic), _) => {
                return Ok(TopicPresence::Absent);
            }
            (Some(Code::TopicAuthorizationFailed), _) => return Ok(TopicPresence::Hidden),
            // It is being created at this moment, or the answer does not hold it: neither says that it does not exist.
            (None | Some(Code::LeaderNotAvailable), _) => {
                std::thread::sleep(LEADER_PAUSE.min(connection.left(&what)?));
            }
            (Some(error), _) => return Err(failed(&what, ClientError::MetadataFetch(error))),
        }
    }
}

/// One topic with the offsets of its partitions.
pub(super) fn describe(
    connection: &Connection,
    topic: &str,
) -> Result<TopicDescription, KafkaError> {
    let metadata = connection.metadata(Some(known(topic)?))?;
    let found = found(&metadata, topic)?;
    let mut partitions = Vec::with_capacity(found.partitions().len());
    for partition in found.partitions() {
        partitions.push(describe_partition(connection, topic, partition)?);
    }
    partitions.sort_unstable_by_key(|partition| partition.partition);
    Ok(TopicDescription {
        name: topic.to_owned(),
        partitions,
        config: config(connection, topic)?,
    })
}

/// The name, if a topic can have it: the bindings panic over one that cannot be.
pub(super) fn known(topic: &str) -> Result<&str, KafkaError> {
    if is_topic_name(topic) {
        Ok(topic)
    } else {
        Err(unknown(topic))
    }
}

fn unknown(topic: &str) -> KafkaError {
    KafkaError::UnknownTopic {
        topic: topic.to_owned(),
    }
}

/// The topic in an answer that was asked for it.
fn found<'a>(metadata: &'a Metadata, topic: &str) -> Result<&'a MetadataTopic, KafkaError> {
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let found = found.ok_or_else(|| unknown(topic))?;
    match found.error() {
        None => Ok(found),
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Err(unknown(topic)),
        Some(error) => {
            let what = format!("looking the topic {topic} up");
            Err(failed(&what, ClientError::MetadataFetch(error.into())))
        }
    }
}

fn describe_partition(
    connection: &Connection,
    topic: &str,
    partition: &MetadataPartition,
) -> Result<PartitionDescription, KafkaError> {
    let (low, high) = if partition.leader() < 0 {
        (-1, -1)
    } else {
        watermarks(connection, topic, partition.id())?
    };
    Ok(PartitionDescription {
        partition: partition.id(),
        leader: partition.leader(),
        replicas: partition.replicas().to_vec(),
        in_sync: partition.isr().to_vec(),
        low,
        high,
    })
}

/// First offset and offset after the last record.
pub(super) fn watermarks(
    connection: &Connection,
    topic: &str,
    partition: i32,
) -> Result<(i64, i64), KafkaError> {
    let what = format!("asking for the offsets of {topic}/{partition}");
    loop {
        let left = connection.left(&what)?;
        match connection.client().fetch_watermarks(topic, partition, left) {
            // A topic that was created a moment ago: its leader is still taking over.
            Err(error) if is_settling(&error) && left > LEADER_PAUSE => {
                std::thread::sleep(LEADER_PAUSE);
            }
            answered => return answered.map_err(|error| connection.unanswered(&what, error)),
        }
    }
}

/// How long to wait before a partition's leader is asked again.
const LEADER_PAUSE: Duration = Duration::from_millis(100);

/// Whether the partition is there and only has no leader yet that answers for it.
fn is_settling(error: &ClientError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable)
    )
}

/// The settings that were given to this topic; empty where they are kept from us.
fn config(connection: &Connection, topic: &str) -> Result<BTreeMap<String, String>, KafkaError> {
    match settings(connection, topic) {
        Err(KafkaError::Unsupported { .. } | KafkaError::Refused { .. }) => Ok(BTreeMap::new()),
        told => told,
    }
}

/// The settings that were given to this topic.
fn settings(connection: &Connection, topic: &str) -> Result<BTreeMap<String, String>, KafkaError> {
    let what = format!("reading the settings of the topic {topic}");
    connection.beyond_mock(&what)?;
    let options = AdminOptions::new().request_timeout(Some(connection.left(&what)?));
    let resource = [ResourceSpecifier::Topic(topic)];
    let answer = connection.admin()?.describe_configs(&resource, &options);
    let resources = Handle::current()
        .block_on(answer)
        .map_err(|error| connection.unanswered(&what, error))?;
    let entries = resources
        .into_iter()
        .flatten()
        .flat_map(|told| told.entries);
    let mut entries = entries.peekable();
    // The bindings drop the error of a single topic. Every topic has settings, so none at all is one: taken for "no
    // settings", a change would reset them.
    if entries.peek().is_none() {
        return Err(KafkaError::Refused {
            what,
            cause: "the brokers tell none; it takes an ACL for DESCRIBE_CONFIGS".to_owned(),
        });
    }
    let given = entries.filter(|entry| entry.source == ConfigSource::DynamicTopic);
    Ok(given
        .filter_map(|entry| Some((entry.name, entry.value?)))
        .collect())
}

/// Changes settings. The request replaces all that were given to the topic, so the present ones go with it.
pub(super) fn alter(
    connection: &Connection,
    topic: &str,
    changes: &BTreeMap<String, String>,
) -> Result<(), KafkaError> {
    let what = format!("changing the settings of the topic {topic}");
    connection.beyond_mock(&what)?;
    found(&connection.metadata(Some(known(topic)?))?, topic)?;
    let mut settings = settings(connection, topic)?;
    settings.extend(changes.clone());
    let alteration = settings.iter().fold(
        AlterConfig::new(ResourceSpecifier::Topic(topic)),
        |alteration, (name, value)| alteration.set(name, value),
    );
    let options = AdminOptions::new().request_timeout(Some(connection.left(&what)?));
    let alterations = [alteration];
    let answer = connection.admin()?.alter_configs(&alterations, &options);
    Handle::current()
        .block_on(answer)
        .map_err(|error| connection.unanswered(&what, error))?;
    wait_for_settings(connection, topic, changes)
}

/// Reads the settings until they are as wanted: the bindings do not tell whether the brokers accepted the change.
fn wait_for_settings(
    connection: &Connection,
    topic: &str,
    wanted: &BTreeMap<String, String>,
) -> Result<(), KafkaError> {
    let until = Instant::now() + ALTERED_WAIT;
    loop {
        let present = settings(connection, topic)?;
        let missing = wanted
            .iter()
            .find(|(name, value)| present.get(*name) != Some(*value));
        let Some((name, value)) = missing else {
            return Ok(());
        };
        if Instant::now() >= until {
            let reason = format!("the brokers do not accept {value:?} for the topic {topic}");
            return Err(ConfigError::new(name, reason).into());
        }
        std::thread::sleep(POLL);
    }
}

/// Creates topics: names of the created ones, names of those that were there.
pub(super) fn create(
    connection: &Connection,
    topics: &[NewTopic],
) -> Result<(Vec<String>, Vec<String>), KafkaError> {
    let (mut created, mut existing) = (Vec::new(), Vec::new());
    if topics.is_empty() {
        return Ok((created, existing));
    }
    let what = "creating topics";
    connection.beyond_mock(what)?;
    let left = Some(connection.left(what)?);
    let options = AdminOptions::new()
        .request_timeout(left)
        .operation_timeout(left);
    let native: Vec<_> = topics.iter().map(native).collect();
    let answer = connection.admin()?.create_topics(&native, &options);
    let results = Handle::current()
        .block_on(answer)
        .map_err(|error| connection.unanswered(what, error))?;
    for result in results {
        match result {
            Ok(topic) => created.push(topic),
            Err((topic, Code::TopicAlreadyExists)) => existing.push(topic),
            Err((topic, code)) => {
                let what = format!("creating the topic {topic}");
                return Err(failed(&what, ClientError::AdminOp(code)));
            }
        }
    }
    // Those that another member is creating at this moment, too.
    let all: Vec<String> = created.iter().chain(&existing).cloned().collect();
    wait_for_leaders(connection, &all)?;
    Ok((created, existing))
}

/// Adds partitions to a topic, and returns when they have leaders.
pub(super) fn grow(
    connection: &Connection,
    topic: &str,
    partitions: usize,
) -> Result<(), KafkaError> {
    let what = format!("adding partitions to the topic {topic}");
    let topic = known(topic)?;
    connection.beyond_mock(&what)?;
    let left = Some(connection.left(&what)?);
    let options = AdminOptions::new()
        .request_timeout(left)
        .operation_timeout(left);
    let wanted = [rdkafka::admin::NewPartitions::new(topic, partitions)];
    let answer = connection.admin()?.create_partitions(&wanted, &options);
    let results = Handle::current()
        .block_on(answer)
        .map_err(|error| connection.unanswered(&what, error))?;
    for result in results {
        if let Err((_, code)) = result {
            return Err(failed(&what, ClientError::AdminOp(code)));
        }
    }
    wait_for_leaders(connection, &[topic.to_owned()])
}

fn native(topic: &NewTopic) -> rdkafka::admin::NewTopic<'_> {
    let replication = TopicReplication::Fixed(topic.replication);
    let new = rdkafka::admin::NewTopic::new(&topic.name, topic.partitions, replication);
    topic
        .config
        .iter()
        .fold(new, |new, (name, value)| new.set(name, value))
}

/// Waits until every partition has a leader: brokers answer a creation before they have spread the word. A topic that this
/// client may create and not see is not waited for.
fn wait_for_leaders(connection: &Connection, topics: &[String]) -> Result<(), KafkaError> {
    loop {
        let metadata = connection.metadata(None)?;
        let is_led = |topic: &str| {
            metadata.topics().iter().any(|found| {
                let partitions = found.partitions();
                found.name() == topic
                    && !partitions.is_empty()
                    && partitions.iter().all(|partition| partition.leader() >= 0)
            })
        };
        let mut are_ready = true;
        for topic in topics.iter().filter(|topic| !is_led(topic)) {
            are_ready &= presence_by_name(connection, topic)? == TopicPresence::Hidden;
        }
        if are_ready {
            return Ok(());
        }
        std::thread::sleep(POLL.min(connection.left("waiting for created topics")?));
    }
}

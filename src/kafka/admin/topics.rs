//! Topics: list, describe, create.
//!
//! Brokers apply a change asynchronously: the controller answers before every broker knows a new
//! topic, partition or setting. A caller that writes at once would then meet "unknown topic". So
//! each change here returns only when the cluster shows it:
//! - a created topic or partition, when every partition has a leader,
//! - a changed setting, when it can be read back.
//!
//! A request for one topic by name shows whether the topic is hidden: brokers answer "not
//! authorized" for an existing topic and for a missing one alike, if the client may not see it.

use super::connection::Connection;
use super::{NewTopic, PartitionDescription, TopicDescription, TopicPresence};
use crate::kafka::error::failed;
use crate::kafka::native::topic_ids;
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

/// The request for topic ids, as errors name it.
pub(super) const READING_IDS: &str = "reading the ids of topics";
/// How long the request for topic ids may take: the ids are a help, not a condition.
const IDS_WITHIN: Duration = Duration::from_secs(3);
/// The interval of the checks whether a change has reached all brokers.
const POLL: Duration = Duration::from_millis(20);
/// How long brokers may take to show a changed setting.
const SETTING_SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// The ids of those topics for which the brokers return one. The mock cluster has none.
pub(super) fn ids(
    connection: &Connection,
    topics: &[String],
) -> Result<BTreeMap<String, [u8; 16]>, KafkaError> {
    if connection.reject_on_mock(READING_IDS).is_err() {
        return Ok(BTreeMap::new());
    }
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let timeout = connection.remaining(READING_IDS)?.min(IDS_WITHIN);
    Ok(topic_ids(connection.client().client(), &names, timeout)
        .into_iter()
        .collect())
}

/// All topics except Kafka's internal ones.
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

/// The partition counts of those topics that exist.
pub(super) fn partition_counts(
    connection: &Connection,
    topics: &[String],
) -> Result<BTreeMap<String, usize>, KafkaError> {
    let mut counts = BTreeMap::new();
    for (topic, presence) in presence(connection, topics)? {
        match presence {
            TopicPresence::Present { partitions, .. } => drop(counts.insert(topic, partitions)),
            TopicPresence::Absent => {}
            TopicPresence::Hidden => return Err(KafkaError::hidden_topic(&topic)),
        }
    }
    Ok(counts)
}

/// Whether the client may see every topic whose name begins with this prefix. A list omits hidden
/// topics without notice, but the answer for one topic shows it, also for one that cannot exist.
pub(super) fn sees_all(connection: &Connection, prefix: &str) -> Result<bool, KafkaError> {
    let made_up = format!("{prefix}evenkeel-{:016x}", rand::random::<u64>());
    Ok(presence_by_name(connection, &made_up)? != TopicPresence::Hidden)
}

/// Whether these topics exist. Those missing from the list of all topics are requested by name: the
/// list omits hidden topics, and an answer for one topic shows whether it is hidden.
pub(super) fn presence(
    connection: &Connection,
    topics: &[String],
) -> Result<BTreeMap<String, TopicPresence>, KafkaError> {
    let all = connection.metadata(None)?;
    let listed: HashMap<&str, TopicPresence> = all
        .topics()
        .iter()
        .filter_map(|found| Some((found.name(), presence_in(found)?)))
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

/// The presence of a topic in an answer that has partitions of it.
fn presence_in(topic: &MetadataTopic) -> Option<TopicPresence> {
    let first = topic.partitions().first()?;
    Some(TopicPresence::Present {
        partitions: topic.partitions().len(),
        replicas: first.replicas().len(),
    })
}

/// The presence of one topic, requested by name. Waits while the topic is being created.
pub(super) fn presence_by_name(
    connection: &Connection,
    topic: &str,
) -> Result<TopicPresence, KafkaError> {
    if !is_topic_name(topic) {
        return Ok(TopicPresence::Absent);
    }
    loop {
        let metadata = connection.metadata(Some(topic))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let error = found.and_then(MetadataTopic::error).map(Code::from);
        let what = format!("looking up the topic {topic}");
        match (error, found.and_then(presence_in)) {
            (None, Some(presence)) => return Ok(presence),
            (Some(Code::UnknownTopicOrPartition | Code::UnknownTopic), _) => {
                return Ok(TopicPresence::Absent);
            }
            (Some(Code::TopicAuthorizationFailed), _) => return Ok(TopicPresence::Hidden),
            // The topic is being created at this moment, or the answer does not contain it. Neither
            // means that it does not exist.
            (None | Some(Code::LeaderNotAvailable), _) => {
                std::thread::sleep(LEADER_RETRY.min(connection.remaining(&what)?));
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
    let metadata = connection.metadata(Some(valid_name(topic)?))?;
    let found = found(&metadata, topic)?;
    let mut partitions = Vec::with_capacity(found.partitions().len());
    for partition in found.partitions() {
        partitions.push(describe_partition(connection, topic, partition)?);
    }
    partitions.sort_unstable_by_key(|partition| partition.partition);
    let (config, config_refused) = config(connection, topic)?;
    Ok(TopicDescription {
        name: topic.to_owned(),
        partitions,
        config,
        config_refused,
    })
}

/// The name, if a topic can have it: the bindings panic on an impossible one.
pub(super) fn valid_name(topic: &str) -> Result<&str, KafkaError> {
    if is_topic_name(topic) {
        Ok(topic)
    } else {
        Err(unknown(topic))
    }
}

/// The error for a topic that does not exist.
fn unknown(topic: &str) -> KafkaError {
    KafkaError::UnknownTopic {
        topic: topic.to_owned(),
    }
}

/// The topic in the answer to a request for it.
fn found<'a>(metadata: &'a Metadata, topic: &str) -> Result<&'a MetadataTopic, KafkaError> {
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let found = found.ok_or_else(|| unknown(topic))?;
    match found.error() {
        None => Ok(found),
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Err(unknown(topic)),
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) => {
            Err(KafkaError::hidden_topic(topic))
        }
        Some(error) => {
            let what = format!("looking up the topic {topic}");
            Err(failed(&what, ClientError::MetadataFetch(error.into())))
        }
    }
}

/// One partition. Its offsets are those of its leader, so a partition without one has none.
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

/// The first offset, and the offset after the last record.
pub(super) fn watermarks(
    connection: &Connection,
    topic: &str,
    partition: i32,
) -> Result<(i64, i64), KafkaError> {
    let what = format!("requesting the offsets of {topic}/{partition}");
    loop {
        let left = connection.remaining(&what)?;
        match connection.client().fetch_watermarks(topic, partition, left) {
            // The topic was just created, and its leader is taking over.
            Err(error) if has_no_leader_yet(&error) && left > LEADER_RETRY => {
                std::thread::sleep(LEADER_RETRY);
            }
            answered => {
                let right = format!("DESCRIBE on the topic {topic}");
                return answered.map_err(|error| {
                    connection
                        .unanswered(&what, error)
                        .requires_permission(&right)
                });
            }
        }
    }
}

/// The wait before a partition's leader is asked again.
const LEADER_RETRY: Duration = Duration::from_millis(100);

/// Whether the partition exists but its leader does not answer yet.
fn has_no_leader_yet(error: &ClientError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable)
    )
}

/// The topic's own settings. None, with the reason, if they are hidden.
fn config(
    connection: &Connection,
    topic: &str,
) -> Result<(BTreeMap<String, String>, Option<String>), KafkaError> {
    match settings(connection, topic) {
        Err(KafkaError::Unsupported { .. }) => Ok((BTreeMap::new(), None)),
        Err(refused @ KafkaError::Refused { .. }) => {
            Ok((BTreeMap::new(), Some(refused.to_string())))
        }
        told => Ok((told?, None)),
    }
}

/// The topic's own settings.
fn settings(connection: &Connection, topic: &str) -> Result<BTreeMap<String, String>, KafkaError> {
    let what = format!("reading the settings of the topic {topic}");
    connection.reject_on_mock(&what)?;
    let options = AdminOptions::new().request_timeout(Some(connection.remaining(&what)?));
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
    // The bindings drop the error of a single topic. Every topic has settings, so an empty list is
    // an error: taken for "no settings", a change would reset them.
    if entries.peek().is_none() {
        return Err(KafkaError::Refused {
            what,
            cause: "the brokers returned none".to_owned(),
        }
        .requires_permission(&format!("DESCRIBE_CONFIGS on the topic {topic}")));
    }
    let given = entries.filter(|entry| entry.source == ConfigSource::DynamicTopic);
    Ok(given
        .filter_map(|entry| Some((entry.name, entry.value?)))
        .collect())
}

/// Changes settings. The request replaces all of the topic's own settings, so the present ones are
/// part of it.
pub(super) fn alter(
    connection: &Connection,
    topic: &str,
    changes: &BTreeMap<String, String>,
) -> Result<(), KafkaError> {
    let what = format!("changing the settings of the topic {topic}");
    connection.reject_on_mock(&what)?;
    found(&connection.metadata(Some(valid_name(topic)?))?, topic)?;
    let mut settings = settings(connection, topic)?;
    settings.extend(changes.clone());
    let alteration = settings.iter().fold(
        AlterConfig::new(ResourceSpecifier::Topic(topic)),
        |alteration, (name, value)| alteration.set(name, value),
    );
    let options = AdminOptions::new().request_timeout(Some(connection.remaining(&what)?));
    let alterations = [alteration];
    let answer = connection.admin()?.alter_configs(&alterations, &options);
    Handle::current()
        .block_on(answer)
        .map_err(|error| connection.unanswered(&what, error))?;
    wait_for_settings(connection, topic, changes)
}

/// Reads the settings until they have the wanted values: the bindings do not return whether the
/// brokers accepted the change.
fn wait_for_settings(
    connection: &Connection,
    topic: &str,
    wanted: &BTreeMap<String, String>,
) -> Result<(), KafkaError> {
    let until = Instant::now() + SETTING_SHOWN_WITHIN;
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

/// Creates topics. Returns the names of the created and of the existing ones.
pub(super) fn create(
    connection: &Connection,
    topics: &[NewTopic],
) -> Result<(Vec<String>, Vec<String>), KafkaError> {
    let (mut created, mut existing) = (Vec::new(), Vec::new());
    if topics.is_empty() {
        return Ok((created, existing));
    }
    let what = "creating topics";
    connection.reject_on_mock(what)?;
    let left = Some(connection.remaining(what)?);
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
                let right = format!("CREATE on the topic {topic}, or on the cluster");
                return Err(failed(&what, ClientError::AdminOp(code)).requires_permission(&right));
            }
        }
    }
    // Includes those that another member is creating at this moment.
    let all: Vec<String> = created.iter().chain(&existing).cloned().collect();
    wait_for_leaders(connection, &all)?;
    Ok((created, existing))
}

/// Adds partitions to a topic, and returns when they have leaders.
pub(super) fn add_partitions(
    connection: &Connection,
    topic: &str,
    partitions: usize,
) -> Result<(), KafkaError> {
    let what = format!("adding partitions to the topic {topic}");
    let topic = valid_name(topic)?;
    connection.reject_on_mock(&what)?;
    let left = Some(connection.remaining(&what)?);
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
            let right = format!("ALTER on the topic {topic}");
            return Err(failed(&what, ClientError::AdminOp(code)).requires_permission(&right));
        }
    }
    wait_for_leaders(connection, &[topic.to_owned()])
}

/// The topic in the client's form, which borrows its texts.
fn native(topic: &NewTopic) -> rdkafka::admin::NewTopic<'_> {
    let replication = TopicReplication::Fixed(topic.replication);
    let new = rdkafka::admin::NewTopic::new(&topic.name, topic.partitions, replication);
    topic
        .config
        .iter()
        .fold(new, |new, (name, value)| new.set(name, value))
}

/// Waits until every partition has a leader: brokers answer a creation before all of them know the
/// topic. Skips a topic that this client may create but not see.
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
        std::thread::sleep(POLL.min(connection.remaining("waiting for created topics")?));
    }
}

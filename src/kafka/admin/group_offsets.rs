//! The lag of a group: committed offsets, ends of partitions, and the age of the oldest unsettled
//! record.
//!
//! Owns the arithmetic. The client that requests the group's offsets never joins the group.
//!
//! For a partition with the first available offset `low`, the end `high` and the committed offset
//! `c` (or `low` without a commit): `lag = max(0, high - max(c, low))`. Records that retention
//! deleted unread do not count, and neither do offsets beyond the end of a topic that was created
//! again.
//!
//! The age of the oldest unsettled record needs the record itself. A reader reads the first record
//! of each lagging partition, within a share of the request's time: offsets matter more than ages,
//! so they are requested first.

use super::connection::Connection;
use super::topics::{presence_by_name, watermarks};
use super::{PartitionLag, TopicPresence};
use crate::kafka::error::connection_fault::LastFault;
use crate::kafka::error::failed;
use crate::kafka::native::{Committed, committed, logged_in};
use crate::kafka::reader::{Reader, Span};
use crate::kafka::{KafkaConfig, KafkaError};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Ages take at most this fraction of a request's time: the offsets matter more.
const AGES_TIME_DIVISOR: u32 = 2;

/// The lag of each partition, sorted by topic and number.
pub(super) fn of_group(
    connection: &Connection,
    group: &str,
    topics: &[String],
) -> Result<Vec<PartitionLag>, KafkaError> {
    // This client may read the group's offsets. It must not use a static member's id.
    let mut config = connection.config().consumer(group)?;
    config.remove("group.instance.id");
    let made = logged_in(&config, LastFault::default());
    let (client, _login) = made.map_err(|error| failed("creating a client", error))?;
    let mut offsets = committed_offsets(connection, &client, group, topics)?;
    if topics.is_empty() {
        keep_committed_topics(&mut offsets);
    }
    let mut lags = Vec::with_capacity(offsets.len());
    for partition in offsets {
        let (low, high) = watermarks(connection, &partition.topic, partition.partition)?;
        lags.push(lag_of(partition, low, high));
    }
    lags.sort_unstable_by(|one, other| {
        (&one.topic, one.partition).cmp(&(&other.topic, other.partition))
    });
    let until = Instant::now() + connection.remaining("reading ages")? / AGES_TIME_DIVISOR;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    add_ages(connection.config(), &mut lags, until, now_ms)?;
    Ok(lags)
}

/// The group's committed offsets of the topics, or of all topics if the list is empty. The request
/// names partitions, so those come from the metadata.
fn committed_offsets(
    connection: &Connection,
    client: &BaseConsumer<LastFault>,
    group: &str,
    topics: &[String],
) -> Result<Vec<Committed>, KafkaError> {
    let metadata = connection.metadata(None)?;
    let partitions: BTreeMap<&str, Vec<i32>> = metadata
        .topics()
        .iter()
        .filter(|found| !found.partitions().is_empty())
        .filter(|found| {
            if topics.is_empty() {
                !found.name().starts_with("__")
            } else {
                topics.iter().any(|topic| topic == found.name())
            }
        })
        .map(|found| {
            let partitions = found.partitions().iter().map(|partition| partition.id());
            (found.name(), partitions.collect())
        })
        .collect();
    if let Some(unknown) = topics
        .iter()
        .find(|topic| !partitions.contains_key(topic.as_str()))
    {
        if presence_by_name(connection, unknown)? == TopicPresence::Hidden {
            return Err(KafkaError::hidden_topic(unknown));
        }
        let topic = unknown.clone();
        return Err(KafkaError::UnknownTopic { topic });
    }
    let mut list = TopicPartitionList::new();
    for (topic, partitions) in partitions {
        for partition in partitions {
            list.add_partition(topic, partition);
        }
    }
    if list.count() == 0 {
        return Ok(Vec::new());
    }
    let what = "requesting committed offsets";
    let right = format!("DESCRIBE on the group {group}");
    committed(client, &list, connection.remaining(what)?).map_err(|error| {
        connection
            .unanswered(what, error)
            .requires_permission(&right)
    })
}

/// Removes the topics for which the group has no commit.
fn keep_committed_topics(offsets: &mut Vec<Committed>) {
    let topics: BTreeSet<String> = offsets
        .iter()
        .filter(|partition| partition.offset.is_some())
        .map(|partition| partition.topic.clone())
        .collect();
    offsets.retain(|partition| topics.contains(&partition.topic));
}

/// The lag of a partition by the formula of the module.
fn lag_of(partition: Committed, low: i64, high: i64) -> PartitionLag {
    // Records that retention deleted unread count no longer. Committed offsets beyond the end, as
    // after a recreation of the topic, result in no negative lag.
    let next = partition.offset.unwrap_or(low).max(low);
    PartitionLag {
        topic: partition.topic,
        partition: partition.partition,
        committed: partition.offset,
        low,
        high,
        lag: (high - next).max(0),
        age_ms: None,
        unreadable: None,
    }
}

/// Reads the first record of each partition that has a lag, and notes its age.
///
/// A partition has no age if its end is reached without a record (only transaction markers, or
/// compacted), or if it does not answer by `until`. If its first record cannot be read, the reason
/// is noted.
fn add_ages(
    config: &KafkaConfig,
    lags: &mut [PartitionLag],
    until: Instant,
    now_ms: i64,
) -> Result<(), KafkaError> {
    let mut open = BTreeMap::new();
    let mut spans = Vec::new();
    for (index, lag) in lags.iter().enumerate().filter(|(_, lag)| lag.lag > 0) {
        open.insert((lag.topic.clone(), lag.partition), index);
        spans.push(Span {
            topic: lag.topic.as_str().into(),
            partition: lag.partition,
            start: lag.committed.unwrap_or(lag.low).max(lag.low),
            end: Some(lag.high),
        });
    }
    if open.is_empty() {
        return Ok(());
    }
    let within = until.saturating_duration_since(Instant::now());
    let left = || until.saturating_duration_since(Instant::now());
    let mut reader = Reader::of_spans(&single_record_config(config)?, spans, left())?;
    while !open.is_empty() && !reader.at_end() {
        if left() < Duration::from_millis(1) {
            tracing::debug!(partitions = open.len(), "no record age within the limit");
            // Monitoring must not take an unknown age for a young one.
            open.retain(|(topic, partition), _| !reader.has_ended(topic, *partition));
            for index in open.into_values() {
                let lag = &mut lags[index];
                let next = lag.committed.unwrap_or(lag.low).max(lag.low);
                lag.unreadable = Some(format!(
                    "{}/{} could not be read at offset {next} within {within:.1?}",
                    lag.topic, lag.partition
                ));
            }
            break;
        }
        match reader.next(left()) {
            Ok(Some(record)) => {
                if let Some(index) = open.remove(&(record.topic.to_string(), record.partition)) {
                    let age = record.timestamp_ms.map(|then| now_ms - then);
                    lags[index].age_ms = age.map(|age| age.max(0));
                }
                reader.stop_partition(&record.topic, record.partition);
            }
            Err(KafkaError::UnreadableBatch(batch)) => {
                if let Some(index) = open.remove(&(batch.topic.clone(), batch.partition)) {
                    lags[index].unreadable = Some(batch.to_string());
                }
            }
            Err(error @ KafkaError::Refused { .. }) => return Err(error),
            // The client reconnects by itself.
            Err(_) | Ok(None) => {}
        }
    }
    Ok(())
}

/// The settings of a client that reads only one record of each partition.
fn single_record_config(config: &KafkaConfig) -> Result<KafkaConfig, KafkaError> {
    let mut few = config.clone();
    for property in [
        "queued.min.messages=1",
        "fetch.message.max.bytes=16384",
        "fetch.wait.max.ms=50",
    ] {
        few.set(property)?;
    }
    Ok(few)
}

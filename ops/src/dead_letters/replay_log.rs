//! Reads the replay logs: topics `replays.TOPIC` that record which dead letters were replayed.
//!
//! A topic that was never replayed has no log, which is no error: its dead letters were not
//! replayed.

use super::DeadLetterError;
use crate::{Cluster, blocking};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::RecordPosition;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::{LogRecord, Reader, Reading};
use evenkeel::recovery::{ReplayLog, ReplayLogEntry, Replayed, replay_topic};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long one poll for a record takes.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// The replay log of one dead-letter topic, read to its end.
#[derive(Debug, Default)]
pub(super) struct ReplayLogSnapshot {
    pub(super) replays: ReplayLog,
    /// End offset of the first partition, which contains the latest run.
    pub(super) end: i64,
}

/// The replays of each topic that has a replay log. A run that was killed may have published
/// records that its log does not have yet; the next replay adds them.
///
/// # Errors
/// If a request to the cluster fails.
pub async fn read_all(
    cluster: &Cluster,
    admin: &Admin,
    topics: &[String],
) -> Result<BTreeMap<String, ReplayLog>, DeadLetterError> {
    let existing: BTreeSet<String> = admin.topics().await?.into_iter().collect();
    let mut all = BTreeMap::new();
    for topic in topics {
        if replay_topic(topic).is_some_and(|log| existing.contains(&log)) {
            all.insert(topic.clone(), read_topic(cluster, topic).await?.replays);
        }
    }
    Ok(all)
}

/// The replay log of a topic. Empty if it does not exist.
pub(super) async fn read_topic(
    cluster: &Cluster,
    topic: &str,
) -> Result<ReplayLogSnapshot, DeadLetterError> {
    let Some(name) = replay_topic(topic) else {
        let topic = topic.to_owned();
        return Err(DeadLetterError::NoReplayTopic { topic });
    };
    let cluster = cluster.clone();
    let read = move || {
        let mut log = ReplayLogSnapshot::default();
        log.end = match for_each_entry(&cluster, &name, |entry| log.replays.apply(entry)) {
            Err(KafkaError::UnknownTopic { .. }) => 0,
            end => end?,
        };
        Ok(log)
    };
    blocking::run(read).await
}

/// The replay of one dead letter. `None` if it was not replayed. Ask [`Replayed::is_of`] with the
/// dead letter's timestamp: the topic may have been recreated.
///
/// # Errors
/// If a request to the cluster fails.
pub async fn replay_of_dead_letter(
    cluster: &Cluster,
    admin: &Admin,
    position: &RecordPosition,
) -> Result<Option<Replayed>, DeadLetterError> {
    let Some(log) = replay_topic(&position.topic) else {
        return Ok(None);
    };
    if !admin.topics().await?.contains(&log) {
        return Ok(None);
    }
    let (cluster, position) = (cluster.clone(), position.clone());
    let read = move || {
        let mut latest = None;
        for_each_entry(&cluster, &log, |entry| match entry {
            ReplayLogEntry::DeadLetter {
                partition,
                offset,
                replayed,
            } if (partition, offset) == (position.partition, position.offset) => latest = replayed,
            _ => {}
        })?;
        Ok(latest)
    };
    blocking::run(read).await
}

/// Passes every entry of a replay log to the closure. Returns the end offset of its first
/// partition. Blocks.
fn for_each_entry(
    cluster: &Cluster,
    log: &str,
    mut handle: impl FnMut(ReplayLogEntry),
) -> Result<i64, KafkaError> {
    let mut reader = Reader::open(&cluster.kafka, &Reading::whole([log]), cluster.timeout)?;
    let end = reader
        .spans()
        .find(|span| span.partition == 0)
        .and_then(|span| span.end);
    for_each_record(&mut reader, |record| {
        if let Some(entry) = parse_entry(&record) {
            handle(entry);
        }
        true
    })?;
    Ok(end.unwrap_or(0))
}

/// Passes the remaining records of a reader to `handle` until it returns false. Blocks.
pub(super) fn for_each_record(
    reader: &mut Reader,
    mut handle: impl FnMut(LogRecord) -> bool,
) -> Result<(), KafkaError> {
    while !reader.at_end() {
        if let Some(record) = reader.next(POLL_TIMEOUT)?
            && !handle(record)
        {
            break;
        }
    }
    Ok(())
}

/// The entry in a record. `None` if it is unreadable.
pub(super) fn parse_entry(record: &LogRecord) -> Option<ReplayLogEntry> {
    ReplayLogEntry::read(record.key.as_deref(), record.value.as_deref())
}

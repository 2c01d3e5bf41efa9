//! Reads what was replayed from the topics that remember it.

use super::Cluster;
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::{LogRecord, Reader, Reading};
use evenkeel::recovery::{Mark, Position, Replayed, Replays, replay_topic};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long one look for a record takes.
const TURN: Duration = Duration::from_millis(100);

/// What was replayed of one topic.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) replays: Replays,
    /// Where the first partition ended when it was read; the latest run is noted there.
    pub(super) end: i64,
}

/// What was replayed of each topic, as far as anything was.
pub(super) async fn of_all(
    cluster: &Cluster,
    admin: &Admin,
    topics: &[String],
) -> anyhow::Result<BTreeMap<String, Replays>> {
    let existing: BTreeSet<String> = admin.topics().await?.into_iter().collect();
    let mut all = BTreeMap::new();
    for topic in topics {
        if replay_topic(topic).is_some_and(|marks| existing.contains(&marks)) {
            all.insert(topic.clone(), of_topic(cluster, topic).await?.replays);
        }
    }
    Ok(all)
}

/// What was replayed of a topic; nothing where nothing remembers it.
pub(super) async fn of_topic(cluster: &Cluster, topic: &str) -> anyhow::Result<Memory> {
    let Some(marks) = replay_topic(topic) else {
        anyhow::bail!("{topic:?} is too long for a topic that can be replayed, or no topic's name");
    };
    let mut memory = Memory::default();
    let cluster = cluster.clone();
    let read = move || {
        memory.end = match each(&cluster, &marks, |mark| memory.replays.apply(mark)) {
            Err(KafkaError::UnknownTopic { .. }) => 0,
            end => end?,
        };
        Ok(memory)
    };
    tokio::task::spawn_blocking(read).await?
}

/// How a letter was replayed, if it was.
pub(super) async fn of_letter(
    cluster: &Cluster,
    admin: &Admin,
    letter: &Position,
) -> anyhow::Result<Option<Replayed>> {
    let Some(marks) = replay_topic(&letter.topic) else {
        return Ok(None);
    };
    if !admin.topics().await?.contains(&marks) {
        return Ok(None);
    }
    let (cluster, letter) = (cluster.clone(), letter.clone());
    let read = move || {
        let mut latest = None;
        each(&cluster, &marks, |mark| match mark {
            Mark::Letter {
                partition,
                offset,
                replayed,
            } if (partition, offset) == (letter.partition, letter.offset) => latest = replayed,
            _ => {}
        })?;
        Ok(latest)
    };
    tokio::task::spawn_blocking(read).await?
}

/// Gives out every mark of a topic, and returns the end of its first partition. Blocks.
fn each(cluster: &Cluster, topic: &str, mut take: impl FnMut(Mark)) -> Result<i64, KafkaError> {
    let mut reader = Reader::open(&cluster.kafka, &Reading::whole([topic]), cluster.timeout)?;
    let end = reader
        .spans()
        .find(|span| span.partition == 0)
        .and_then(|span| span.end);
    records(&mut reader, |record| {
        if let Some(mark) = mark_of(&record) {
            take(mark);
        }
        true
    })?;
    Ok(end.unwrap_or(0))
}

/// Gives out what is left of a reading, for as long as `take` wants more. Blocks.
pub(super) fn records(
    reader: &mut Reader,
    mut take: impl FnMut(LogRecord) -> bool,
) -> Result<(), KafkaError> {
    while !reader.at_end() {
        if let Some(record) = reader.next(TURN)?
            && !take(record)
        {
            break;
        }
    }
    Ok(())
}

/// The mark that a record is.
pub(super) fn mark_of(record: &LogRecord) -> Option<Mark> {
    Mark::read(record.key.as_deref(), record.value.as_deref())
}

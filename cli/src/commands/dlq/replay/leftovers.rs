//! What was replayed of each topic, with what a killed run published and did not come to note.
//!
//! A run notes where its destinations end before it publishes anything. Behind those ends every record that says to be the
//! replay of a letter was published by that run, noted or not.

use super::source::Source;
use crate::commands::dlq::Cluster;
use crate::commands::dlq::marks::{mark_of, of_topic, records};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::{LogRecord, Reader, Reading, Start};
use evenkeel::recovery::{Mark, Position, Replayed, Replays, Run, replay_of, replay_topic};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often a run says that it is alive.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// How long it is listened for one before a run counts as dead.
const LISTEN: Duration = Duration::from_secs(3);
/// How long one look for a record takes.
const TURN: Duration = Duration::from_millis(100);

/// What is known about one topic.
pub(super) struct Memory {
    pub(super) replays: Replays,
    /// Where the marks ended when they were read.
    pub(super) end: i64,
    /// Whether the latest run did not come to its end.
    pub(super) unfinished: bool,
    /// Where that run would have ended; empty when it got there.
    pub(super) until: BTreeMap<i32, i64>,
    /// What it published and did not mark; `replays` has it already.
    pub(super) leftovers: Vec<Mark>,
}

/// What is known about each topic.
pub(super) type Memories = BTreeMap<String, Memory>;

/// Reads what was replayed. With `alone` it fails where another run is at work.
pub(super) async fn memories(
    cluster: &Cluster,
    admin: &Admin,
    source: &Source,
    alone: bool,
) -> anyhow::Result<Memories> {
    let mut memories = Memories::new();
    for topic in source.by_topic.keys() {
        let known = of_topic(cluster, topic).await?;
        let mut memory = Memory {
            replays: known.replays,
            end: known.end,
            unfinished: false,
            until: BTreeMap::new(),
            leftovers: Vec::new(),
        };
        if let Some(run) = memory.replays.unfinished().cloned() {
            memory.unfinished = true;
            memory.until.clone_from(&run.until);
            if alone {
                listen(cluster, topic).await?;
            }
            for mark in published(cluster, admin, topic, &run).await? {
                if !is_known(&memory.replays, &mark) {
                    memory.replays.apply(mark.clone());
                    memory.leftovers.push(mark);
                }
            }
        }
        memories.insert(topic.clone(), memory);
    }
    Ok(memories)
}

fn is_known(replays: &Replays, mark: &Mark) -> bool {
    match mark {
        Mark::Letter {
            partition,
            offset,
            replayed: Some(replayed),
        } => replays.is_marked_since(*partition, *offset, replayed.at),
        Mark::Letter { replayed: None, .. } => true,
        Mark::Run(_) => true,
    }
}

/// Waits for as long as a living run cannot stay silent, and fails when one is heard.
async fn listen(cluster: &Cluster, topic: &str) -> anyhow::Result<()> {
    let reading = Reading {
        topics: replay_topic(topic).into_iter().collect(),
        partitions: vec![0],
        start: Start::End,
        end: None,
    };
    let cluster = cluster.clone();
    let heard = tokio::task::spawn_blocking(move || -> Result<Option<Run>, KafkaError> {
        let mut reader = Reader::open(&cluster.kafka, &reading, cluster.timeout)?;
        let until = Instant::now() + LISTEN;
        while Instant::now() < until {
            if let Some(Mark::Run(run)) = reader.next(TURN)?.as_ref().and_then(mark_of) {
                return Ok(Some(run));
            }
        }
        Ok(None)
    });
    match heard.await?? {
        Some(run) => Err(busy(topic, &run)),
        None => Ok(()),
    }
}

/// The error of a run that is not alone.
pub(super) fn busy(topic: &str, run: &Run) -> anyhow::Error {
    anyhow::anyhow!(
        "{} has been replaying {topic} since {}; wait for the end of that run or stop it, and try again",
        run.by,
        run.at
    )
}

/// Everything that a run published, as marks.
async fn published(
    cluster: &Cluster,
    admin: &Admin,
    topic: &str,
    run: &Run,
) -> anyhow::Result<Vec<Mark>> {
    let mut marks = Vec::new();
    for (destination, ends) in &run.ends {
        let described = match admin.describe_topic(destination).await {
            Err(KafkaError::UnknownTopic { .. }) => continue,
            described => described?,
        };
        for partition in described.partitions {
            // A partition that was added meanwhile is the run's from its beginning.
            let start = ends.get(&partition.partition).copied().unwrap_or(0);
            if partition.high > start {
                let reading = Reading {
                    topics: vec![destination.clone()],
                    partitions: vec![partition.partition],
                    start: Start::Offset(start),
                    end: Some(Start::Offset(partition.high)),
                };
                marks.extend(replays_of(cluster, topic, &run.run, reading).await?);
            }
        }
    }
    Ok(marks)
}

/// Marks of the replays of a topic's letters among these records.
async fn replays_of(
    cluster: &Cluster,
    topic: &str,
    run: &str,
    reading: Reading,
) -> anyhow::Result<Vec<Mark>> {
    let (cluster, topic, run) = (cluster.clone(), topic.to_owned(), run.to_owned());
    let read = move || {
        let mut reader = Reader::open(&cluster.kafka, &reading, cluster.timeout)?;
        let mut marks = Vec::new();
        records(&mut reader, |record| {
            marks.extend(mark_for(&record, &topic, &run));
            true
        })?;
        Ok(marks)
    };
    tokio::task::spawn_blocking(read).await?
}

fn mark_for(record: &LogRecord, topic: &str, run: &str) -> Option<Mark> {
    let (letter, by, at) = replay_of(&record.headers)?;
    let to = Position {
        topic: record.topic.to_string(),
        partition: record.partition,
        offset: record.offset,
    };
    let replayed = Replayed {
        by,
        at,
        to: to.to_string(),
        run: run.to_owned(),
        // It is no other than the one that was written before.
        letter_ms: None,
    };
    (letter.topic == topic).then(|| Mark::of(&letter, Some(replayed)))
}

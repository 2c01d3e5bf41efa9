//! Which dead letters of each topic were replayed, including those that a killed run published but
//! did not record.
//!
//! A run records the end offsets of its destinations before it publishes. Every later record whose
//! headers name it as the replay of a dead letter was published by that run, recorded or not.

use super::source::Source;
use crate::dead_letters::DeadLetterError;
use crate::dead_letters::replay_log::{for_each_record, parse_entry, read_topic};
use crate::{Cluster, blocking};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::RecordPosition;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::{LogRecord, Reader, Reading, Start};
use evenkeel::recovery::{ReplayLog, ReplayLogEntry, ReplayRun, Replayed, replay_of, replay_topic};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Interval at which a run repeats its first entry, so that others detect that it is alive.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait for a heartbeat before a run is considered dead.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one poll for a record takes.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// The replays of one topic.
pub(super) struct History {
    pub(super) replays: ReplayLog,
    /// End offset of the replay log when it was read.
    pub(super) end: i64,
    /// Whether the latest run did not complete.
    pub(super) is_unfinished: bool,
    /// End offsets of that run's input. Empty if it completed.
    pub(super) until: BTreeMap<i32, i64>,
    /// Entries of replays that the run published but did not record. `replays` contains them.
    pub(super) unrecorded: Vec<ReplayLogEntry>,
}

/// The replays of each topic.
pub(super) type Histories = BTreeMap<String, History>;

/// Reads the replays. If `is_exclusive`, fails if another run is alive. A topic whose latest run is
/// complete costs one read of its log; an unfinished run also costs a read of its destinations and
/// the wait for a heartbeat.
pub(super) async fn read_histories(
    cluster: &Cluster,
    admin: &Admin,
    source: &Source,
    is_exclusive: bool,
) -> Result<Histories, DeadLetterError> {
    let mut histories = Histories::new();
    for topic in source.by_topic.keys() {
        let log = read_topic(cluster, topic).await?;
        let mut history = History {
            replays: log.replays,
            end: log.end,
            is_unfinished: false,
            until: BTreeMap::new(),
            unrecorded: Vec::new(),
        };
        if let Some(run) = history.replays.unfinished().cloned() {
            history.is_unfinished = true;
            history.until.clone_from(&run.until);
            if is_exclusive {
                check_no_other_run(cluster, topic).await?;
            }
            for entry in find_published(cluster, admin, topic, &run).await? {
                if !is_known(&history.replays, &entry) {
                    history.replays.apply(entry.clone());
                    history.unrecorded.push(entry);
                }
            }
        }
        histories.insert(topic.clone(), history);
    }
    Ok(histories)
}

/// Whether the log has this replay already. A mark of an earlier replay of the same dead letter
/// does not count.
fn is_known(replays: &ReplayLog, entry: &ReplayLogEntry) -> bool {
    match entry {
        ReplayLogEntry::DeadLetter {
            partition,
            offset,
            replayed: Some(replayed),
        } => replays.is_marked_since(*partition, *offset, replayed.at),
        // Neither a removed mark nor a run is a replay that has to be recorded.
        _ => true,
    }
}

/// Waits for longer than a heartbeat interval. Fails if a heartbeat arrives.
async fn check_no_other_run(cluster: &Cluster, topic: &str) -> Result<(), DeadLetterError> {
    let reading = Reading::whole(replay_topic(topic))
        .with_partitions([0])
        .with_start(Start::End)
        .with_end(None);
    let cluster = cluster.clone();
    let other_run = blocking::run(move || -> Result<Option<ReplayRun>, KafkaError> {
        let mut reader = Reader::open(&cluster.kafka, &reading, cluster.timeout)?;
        let until = Instant::now() + HEARTBEAT_TIMEOUT;
        while Instant::now() < until {
            if let Some(ReplayLogEntry::Run(run)) =
                reader.next(POLL_TIMEOUT)?.as_ref().and_then(parse_entry)
            {
                return Ok(Some(run));
            }
        }
        Ok(None)
    });
    match other_run.await? {
        Some(run) => Err(already_running(topic, &run)),
        None => Ok(()),
    }
}

/// The error of a run that meets another one.
pub(super) fn already_running(topic: &str, run: &ReplayRun) -> DeadLetterError {
    DeadLetterError::ReplayRuns {
        topic: topic.to_owned(),
        by: run.by.clone(),
        since: run.at,
    }
}

/// Every record that a run published, as entries of the replay log. A destination that was deleted
/// meanwhile is left out: its records are gone.
async fn find_published(
    cluster: &Cluster,
    admin: &Admin,
    topic: &str,
    run: &ReplayRun,
) -> Result<Vec<ReplayLogEntry>, DeadLetterError> {
    let mut entries = Vec::new();
    for (destination, ends) in &run.ends {
        let described = match admin.describe_topic(destination).await {
            Err(KafkaError::UnknownTopic { .. }) => continue,
            described => described?,
        };
        for partition in described.partitions {
            // A partition added meanwhile belongs to the run from its beginning.
            let start = ends.get(&partition.partition).copied().unwrap_or(0);
            if partition.high > start {
                let reading = Reading::whole([destination.clone()])
                    .with_partitions([partition.partition])
                    .with_start(Start::Offset(start))
                    .with_end(Start::Offset(partition.high));
                entries.extend(replays_of(cluster, topic, &run.run, reading).await?);
            }
        }
    }
    Ok(entries)
}

/// Entries for those of these records that replay the topic's dead letters.
async fn replays_of(
    cluster: &Cluster,
    topic: &str,
    run: &str,
    reading: Reading,
) -> Result<Vec<ReplayLogEntry>, DeadLetterError> {
    let (cluster, topic, run) = (cluster.clone(), topic.to_owned(), run.to_owned());
    let read = move || {
        let mut reader = Reader::open(&cluster.kafka, &reading, cluster.timeout)?;
        let mut entries = Vec::new();
        for_each_record(&mut reader, |record| {
            entries.extend(entry_for(&record, &topic, &run));
            true
        })?;
        Ok(entries)
    };
    blocking::run(read).await
}

/// The entry for a record that replays a dead letter of `topic`. `None` for any other record.
fn entry_for(record: &LogRecord, topic: &str, run: &str) -> Option<ReplayLogEntry> {
    let (dead_letter, by, at) = replay_of(&record.headers)?;
    let to = RecordPosition {
        topic: record.topic.to_string(),
        partition: record.partition,
        offset: record.offset,
    };
    let replayed = Replayed {
        by,
        at,
        to: to.to_string(),
        run: run.to_owned(),
        // Unknown. The mark then applies to the dead letter that was written before it.
        dead_letter_ms: None,
    };
    (dead_letter.topic == topic).then(|| ReplayLogEntry::of(&dead_letter, Some(replayed)))
}

//! Records the progress of a run in the replay log, from which the next run continues.
//!
//! Owns the order of the entries:
//! - The first one, written before any record is published, contains the end offsets of the run's
//!   destinations.
//! - One for each replayed dead letter, written after the brokers acknowledged the record.
//! - The last one states that every replay is recorded.
//!
//! The entries of runs go to partition 0 of the log, so that their order is total: of two runs that
//! began together, the one whose entry is first continues.

use super::history::{HEARTBEAT_INTERVAL, History, already_running};
use super::plan::Batch;
use crate::dead_letters::DeadLetterError;
use crate::dead_letters::replay_log::{for_each_record, parse_entry};
use crate::{Cluster, blocking};
use evenkeel::event::{Headers, OutgoingRecord, new_id};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::RecordPosition;
use evenkeel::kafka::admin::{Admin, NewTopic};
use evenkeel::kafka::reader::{Reader, Reading, Start};
use evenkeel::publisher::{PendingReceipt, PublishError, Publisher, Receipt};
use evenkeel::recovery::{PartitionEnds, ReplayLogEntry, ReplayRun, Replayed, replay_topic};
use jiff::Timestamp;
use std::collections::BTreeMap;
use tokio::task::JoinHandle;

/// Maximum number of entries without an acknowledgement.
const UNACKNOWLEDGED_MAX: usize = 1000;

/// Writes the entries of one run for one topic. [`Recorder::end`] must be called: a recorder that
/// is only dropped keeps sending heartbeats, which block other runs, until the runtime ends.
pub(super) struct Recorder {
    publisher: Publisher,
    /// Name of the replay log.
    log: String,
    /// The run's first entry. The last one differs in `done` and `until`.
    run: ReplayRun,
    heartbeats: JoinHandle<()>,
}

impl Recorder {
    /// Records the replays that an earlier run did not record, and the start of this run. Fails if
    /// another run started meanwhile.
    pub(super) async fn begin(
        cluster: &Cluster,
        admin: &Admin,
        publisher: &Publisher,
        batch: &Batch,
        history: &History,
        by: &str,
    ) -> Result<Self, DeadLetterError> {
        let log = replay_topic(&batch.topic).ok_or_else(|| DeadLetterError::NoReplayTopic {
            topic: batch.topic.clone(),
        })?;
        create(admin, &batch.topic, &log).await?;
        write(publisher, &log, &history.unrecorded).await?;
        let run = ReplayRun {
            run: new_id(),
            by: by.to_owned(),
            at: Timestamp::now(),
            done: false,
            ends: ends(admin, batch).await?,
            until: batch.source.ends(),
        };
        let record = record(&log, &ReplayLogEntry::Run(run.clone()))?;
        let receipt = publisher.publish_record(record.clone()).await;
        let receipt = receipt.map_err(while_doing("recording the start of the replay"))?;
        if let Some(other) = find_competing_run(cluster, &log, history.end, &receipt).await? {
            return Err(already_running(&batch.topic, &other));
        }
        let heartbeats = tokio::spawn(send_heartbeats(publisher.clone(), record));
        Ok(Self {
            publisher: publisher.clone(),
            log,
            run,
            heartbeats,
        })
    }

    /// Records that a dead letter was replayed, with the position of the published record. Returns
    /// when the entry is enqueued. `written_ms` is the dead letter's own timestamp.
    pub(super) async fn replayed(
        &self,
        dead_letter: &RecordPosition,
        written_ms: Option<i64>,
        at: Timestamp,
        receipt: Receipt,
    ) -> Result<PendingReceipt, DeadLetterError> {
        let to = RecordPosition {
            topic: receipt.topic,
            partition: receipt.partition,
            offset: receipt.offset,
        };
        let replayed = Replayed {
            by: self.run.by.clone(),
            at,
            to: to.to_string(),
            run: self.run.run.clone(),
            dead_letter_ms: written_ms,
        };
        let record = record(&self.log, &ReplayLogEntry::of(dead_letter, Some(replayed)))?;
        let pending = self.publisher.enqueue_record(record).await;
        pending.map_err(while_doing(format!(
            "recording the replay of {dead_letter}"
        )))
    }

    /// Ends the run. Only a clean run records that everything is recorded; after any other, the
    /// next run searches for unrecorded replays. A stopped run is continued later.
    pub(super) async fn end(self, is_clean: bool, is_stopped: bool) -> Result<(), DeadLetterError> {
        self.heartbeats.abort();
        // Wait for its end before the last entry, so that no heartbeat follows that entry.
        let _ = self.heartbeats.await;
        if is_stopped && !is_clean {
            return Ok(());
        }
        let done = ReplayRun {
            done: is_clean,
            until: BTreeMap::new(),
            ..self.run
        };
        let record = record(&self.log, &ReplayLogEntry::Run(done))?;
        let written = self.publisher.publish_record(record).await;
        written
            .map_err(while_doing("recording the end of the replay"))
            .map(drop)
    }
}

/// Publishes entries. Returns when all are acknowledged. After an error some may be written;
/// entries are idempotent, so the caller may write all of them again.
pub(in crate::dead_letters) async fn write(
    publisher: &Publisher,
    log: &str,
    entries: &[ReplayLogEntry],
) -> Result<(), DeadLetterError> {
    for entries in entries.chunks(UNACKNOWLEDGED_MAX) {
        let mut pending = Vec::with_capacity(entries.len());
        for entry in entries {
            let enqueued = publisher.enqueue_record(record(log, entry)?).await;
            pending.push(enqueued.map_err(while_doing(RECORDING_REPLAYS))?);
        }
        for receipt in pending {
            receipt.await.map_err(while_doing(RECORDING_REPLAYS))?;
        }
    }
    Ok(())
}

/// The action of an entry's error: writing entries.
pub(super) const RECORDING_REPLAYS: &str = "recording replays";

/// The error of an entry that could not be written. `doing` completes the sentence "while …".
pub(super) fn while_doing(
    doing: impl Into<String>,
) -> impl FnOnce(PublishError) -> DeadLetterError {
    let doing = doing.into();
    |source| DeadLetterError::ReplayLog { doing, source }
}

/// An entry as a record of the log.
fn record(log: &str, entry: &ReplayLogEntry) -> Result<OutgoingRecord, DeadLetterError> {
    Ok(OutgoingRecord {
        topic: log.to_owned(),
        partition: entry.partition(),
        key: Some(entry.key().into()),
        value: entry.value()?.map(Into::into),
        headers: Headers::new(),
        timestamp_ms: None,
    })
}

/// Creates the replay log if it is missing, compacted, with as many partitions as the dead-letter
/// topic and the brokers' default replication.
async fn create(admin: &Admin, topic: &str, log: &str) -> Result<(), KafkaError> {
    let topics = [topic.to_owned(), log.to_owned()];
    let counts = admin.partition_counts(&topics).await?;
    if counts.contains_key(log) {
        return Ok(());
    }
    let partitions = counts.get(topic).copied().unwrap_or(1);
    let topic = NewTopic::new(log)
        .with_partitions(i32::try_from(partitions).unwrap_or(i32::MAX))
        .with_setting("cleanup.policy", "compact");
    admin.create_topics(&[topic]).await?;
    Ok(())
}

/// The end offsets of the batch's destinations now.
async fn ends(admin: &Admin, batch: &Batch) -> Result<PartitionEnds, KafkaError> {
    let mut ends = PartitionEnds::new();
    for topic in batch.destinations() {
        let described = admin.describe_topic(topic).await?;
        let of_partitions = described
            .partitions
            .iter()
            .map(|at| (at.partition, at.high.max(0)));
        ends.insert(topic.clone(), of_partitions.collect());
    }
    Ok(ends)
}

/// Another run that recorded an entry between `from` and our own entry. `from` is the end of the
/// log when its unfinished runs were checked, so that no run goes unnoticed between the check and
/// our entry.
async fn find_competing_run(
    cluster: &Cluster,
    log: &str,
    from: i64,
    own: &Receipt,
) -> Result<Option<ReplayRun>, DeadLetterError> {
    let reading = Reading::whole([log])
        .with_partitions([0])
        .with_start(Start::Offset(from))
        .with_end(Start::Offset(own.offset));
    let cluster = cluster.clone();
    let read = move || {
        let mut reader = Reader::open(&cluster.kafka, &reading, cluster.timeout)?;
        let mut other = None;
        for_each_record(&mut reader, |record| {
            if let Some(ReplayLogEntry::Run(run)) = parse_entry(&record) {
                other = Some(run);
            }
            other.is_none()
        })?;
        Ok(other)
    };
    blocking::run(read).await
}

/// Repeats the first entry until the run ends.
async fn send_heartbeats(publisher: Publisher, record: OutgoingRecord) {
    let mut ticks = tokio::time::interval(HEARTBEAT_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // If the log cannot be written, other entries fail too, and their errors end the run.
        let _ = publisher.publish_record(record.clone()).await;
    }
}

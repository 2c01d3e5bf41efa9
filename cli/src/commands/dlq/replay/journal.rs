//! Notes what a run does, so that another one after it knows.
//!
//! Owns the order in which things are noted: that a run begins, and where its destinations end, before it publishes
//! anything; that a letter was replayed, after the brokers have acknowledged the record; that all is noted, at the end.

use super::leftovers::{Memory, SIGN_OF_LIFE, busy};
use super::plan::Batch;
use crate::commands::dlq::Cluster;
use crate::commands::dlq::marks::{mark_of, records};
use anyhow::Context;
use evenkeel::event::{Headers, OutgoingRecord, new_id};
use evenkeel::kafka::admin::{Admin, NewTopic};
use evenkeel::kafka::reader::{Reader, Reading, Start};
use evenkeel::publisher::{PendingReceipt, Publisher, Receipt};
use evenkeel::recovery::{Ends, Mark, Position, Replayed, Run, replay_topic};
use jiff::Timestamp;
use std::collections::BTreeMap;
use tokio::task::JoinHandle;

/// Marks that are on their way at most.
const UNACKNOWLEDGED_MAX: usize = 1000;

/// The notes of one run about one topic.
pub(super) struct Journal {
    publisher: Publisher,
    marks: String,
    run: Run,
    signs_of_life: JoinHandle<()>,
}

impl Journal {
    /// Marks what an earlier run left, and notes that this one begins. Fails where another one began meanwhile.
    pub(super) async fn begin(
        cluster: &Cluster,
        admin: &Admin,
        publisher: &Publisher,
        batch: &Batch,
        memory: &Memory,
        by: &str,
    ) -> anyhow::Result<Self> {
        let marks = replay_topic(&batch.topic).context("no topic can remember what is replayed")?;
        create(admin, &batch.topic, &marks).await?;
        write(publisher, &marks, &memory.leftovers).await?;
        let run = Run {
            run: new_id(),
            by: by.to_owned(),
            at: Timestamp::now(),
            done: false,
            ends: ends(admin, batch).await?,
            until: batch.letters.ends(),
        };
        let record = record(&marks, &Mark::Run(run.clone()))?;
        let receipt = publisher.publish_record(record.clone()).await;
        let receipt = receipt.context("noting that the replay begins")?;
        if let Some(rival) = rival(cluster, &marks, memory.end, &receipt).await? {
            return Err(busy(&batch.topic, &rival));
        }
        let signs_of_life = tokio::spawn(say_alive(publisher.clone(), record));
        Ok(Self {
            publisher: publisher.clone(),
            marks,
            run,
            signs_of_life,
        })
    }

    /// Notes that a letter was replayed.
    pub(super) async fn mark(
        &self,
        letter: &Position,
        letter_ms: Option<i64>,
        at: Timestamp,
        receipt: Receipt,
    ) -> anyhow::Result<PendingReceipt> {
        let to = Position {
            topic: receipt.topic,
            partition: receipt.partition,
            offset: receipt.offset,
        };
        let replayed = Replayed {
            by: self.run.by.clone(),
            at,
            to: to.to_string(),
            run: self.run.run.clone(),
            letter_ms,
        };
        let record = record(&self.marks, &Mark::of(letter, Some(replayed)))?;
        let pending = self.publisher.enqueue_record(record).await;
        pending.with_context(|| format!("noting that {letter} was replayed"))
    }

    /// Ends the run. Only a clean one says that all is marked; the next run looks for what another one left. One that was
    /// stopped is gone on with.
    pub(super) async fn end(self, clean: bool, stopped: bool) -> anyhow::Result<()> {
        self.signs_of_life.abort();
        // It is gone before the last word, so that none of its words comes after that.
        let _ = self.signs_of_life.await;
        if stopped && !clean {
            return Ok(());
        }
        let done = Run {
            done: clean,
            until: BTreeMap::new(),
            ..self.run
        };
        let record = record(&self.marks, &Mark::Run(done))?;
        let noted = self.publisher.publish_record(record).await;
        noted.context("noting that the replay ended").map(drop)
    }
}

/// Publishes marks, and returns when all are acknowledged.
pub(in crate::commands::dlq) async fn write(
    publisher: &Publisher,
    topic: &str,
    marks: &[Mark],
) -> anyhow::Result<()> {
    for marks in marks.chunks(UNACKNOWLEDGED_MAX) {
        let mut pending = Vec::with_capacity(marks.len());
        for mark in marks {
            pending.push(publisher.enqueue_record(record(topic, mark)?).await?);
        }
        for receipt in pending {
            receipt.await.context("noting what was replayed")?;
        }
    }
    Ok(())
}

fn record(topic: &str, mark: &Mark) -> anyhow::Result<OutgoingRecord> {
    Ok(OutgoingRecord {
        topic: topic.to_owned(),
        partition: mark.partition(),
        key: Some(mark.key().into()),
        value: mark.value()?.map(Into::into),
        headers: Headers::new(),
        timestamp_ms: None,
    })
}

/// Creates the topic that remembers, where it is missing.
async fn create(admin: &Admin, letters: &str, marks: &str) -> anyhow::Result<()> {
    let asked = [letters.to_owned(), marks.to_owned()];
    let counts = admin.partition_counts(&asked).await?;
    if counts.contains_key(marks) {
        return Ok(());
    }
    let partitions = counts.get(letters).copied().unwrap_or(1);
    let topic = NewTopic {
        name: marks.to_owned(),
        partitions: i32::try_from(partitions)?,
        replication: -1,
        config: BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]),
    };
    admin.create_topics(&[topic]).await?;
    Ok(())
}

async fn ends(admin: &Admin, batch: &Batch) -> anyhow::Result<Ends> {
    let mut ends = Ends::new();
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

/// Another run that noted anything since `from`, up to our own note.
async fn rival(
    cluster: &Cluster,
    marks: &str,
    from: i64,
    own: &Receipt,
) -> anyhow::Result<Option<Run>> {
    let reading = Reading {
        topics: vec![marks.to_owned()],
        partitions: vec![0],
        start: Start::Offset(from),
        end: Some(Start::Offset(own.offset)),
    };
    let cluster = cluster.clone();
    let read = move || {
        let mut reader = Reader::open(&cluster.kafka, &reading, cluster.timeout)?;
        let mut rival = None;
        records(&mut reader, |record| {
            if let Some(Mark::Run(run)) = mark_of(&record) {
                rival = Some(run);
            }
            rival.is_none()
        })?;
        Ok(rival)
    };
    tokio::task::spawn_blocking(read).await?
}

/// Repeats the note of the beginning for as long as the run is at work.
async fn say_alive(publisher: Publisher, record: OutgoingRecord) {
    let mut ticks = tokio::time::interval(SIGN_OF_LIFE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Where it cannot be written the marks cannot either, and those end the run.
        let _ = publisher.publish_record(record.clone()).await;
    }
}

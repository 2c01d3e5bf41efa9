//! Reads dead letters up to the ends that their topics have when the reading begins.

use super::Cluster;
use crate::stop::Stop;
use evenkeel::kafka::reader::{LogRecord, Reader, Reading, Start};
use evenkeel::recovery::{DeadLetter, Position};
use jiff::Timestamp;
use std::time::Duration;

/// How long the reader waits for a record before it looks whether it was asked to stop.
const TURN: Duration = Duration::from_millis(100);

/// A record of a dead-letter topic, and what its headers say.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) record: LogRecord,
    pub(super) failure: DeadLetter,
}

impl Letter {
    pub(super) fn new(record: LogRecord) -> Self {
        let failure = DeadLetter::read(record.headers.iter());
        Self { record, failure }
    }

    /// When the record was given up, or else when the letter was written.
    pub(super) fn time(&self) -> Option<Timestamp> {
        let written = || Timestamp::from_millisecond(self.record.timestamp_ms?).ok();
        self.failure.last_failure.or_else(written)
    }

    pub(super) fn position(&self) -> Position {
        Position {
            topic: self.record.topic.to_string(),
            partition: self.record.partition,
            offset: self.record.offset,
        }
    }
}

/// How a reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::commands) enum End {
    /// All was read.
    Whole,
    /// A signal of that number came first.
    Stopped(u8),
    /// Who took the records had enough.
    Enough,
}

/// Whether more records are wanted.
pub(in crate::commands) type Wanted = anyhow::Result<bool>;

/// Gives every record of the topics to `each`, in offset order within each partition. Blocks.
pub(super) fn read(
    cluster: &Cluster,
    topics: &[String],
    stop: &Stop,
    each: impl FnMut(LogRecord) -> Wanted,
) -> anyhow::Result<End> {
    if topics.is_empty() {
        return Ok(End::Whole);
    }
    let reading = Reading::whole(topics);
    let mut reader = Reader::open(&cluster.kafka, &reading, cluster.timeout)?;
    drain(&mut reader, stop, each)
}

/// [`read`] with a reader that is open.
pub(in crate::commands) fn drain(
    reader: &mut Reader,
    stop: &Stop,
    mut each: impl FnMut(LogRecord) -> Wanted,
) -> anyhow::Result<End> {
    while !reader.at_end() {
        if let Some(signal) = stop.requested() {
            return Ok(End::Stopped(signal));
        }
        if let Some(record) = reader.next(TURN)?
            && !each(record)?
        {
            return Ok(End::Enough);
        }
    }
    Ok(End::Whole)
}

/// What a look at one offset found.
pub(super) enum Look {
    Record(Box<LogRecord>),
    /// It was deleted, compacted away or not written yet.
    Nothing,
    /// A signal of that number came first.
    Stopped(u8),
}

/// Looks at one offset. Blocks.
pub(super) fn look(cluster: &Cluster, at: &Position, stop: &Stop) -> anyhow::Result<Look> {
    let reading = Reading {
        topics: vec![at.topic.clone()],
        partitions: vec![at.partition],
        start: Start::Offset(at.offset),
        end: Some(Start::Offset(at.offset.saturating_add(1))),
    };
    let mut reader = Reader::open(&cluster.kafka, &reading, cluster.timeout)?;
    let mut found = None;
    let end = drain(&mut reader, stop, |record| {
        if record.offset == at.offset {
            found = Some(Box::new(record));
        }
        Ok(found.is_none())
    })?;
    Ok(match (found, end) {
        (Some(record), _) => Look::Record(record),
        (None, End::Stopped(signal)) => Look::Stopped(signal),
        (None, _) => Look::Nothing,
    })
}

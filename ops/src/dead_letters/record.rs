//! Reads dead letters up to the end offsets at the start of the read.
//!
//! A reader reads all partitions at once and returns the records of each in order. Partitions are
//! interleaved, so that listings over several of them need an order of their own.

use crate::Cluster;
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::RecordPosition;
use evenkeel::kafka::reader::{LogRecord, Reader, Reading, Start};
use evenkeel::recovery::{DeadLetter, is_empty_without_original};
use jiff::Timestamp;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the reader waits for a record between two checks for cancellation.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// A record of a dead-letter topic with its parsed failure headers. Without failure headers
/// ([`DeadLetter::family`] is `None`) it is no dead letter.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadLetterRecord {
    /// The record itself.
    pub record: LogRecord,
    /// The parsed failure headers.
    pub failure: DeadLetter,
}

impl DeadLetterRecord {
    /// Parses the failure headers of a record.
    pub fn new(record: LogRecord) -> Self {
        let failure = DeadLetter::read(record.headers.iter());
        Self { record, failure }
    }

    /// Time of the last failure, or else of the dead letter. None if neither is known. Filters and
    /// listings go by it.
    pub fn time(&self) -> Option<Timestamp> {
        let written = || Timestamp::from_millisecond(self.record.timestamp_ms?).ok();
        self.failure.last_failure.or_else(written)
    }

    /// Whether the dead letter lacks content of the original record: it is truncated, or lacks the
    /// original's headers. [`restore`](super::originals::restore) looks the original up.
    pub fn is_incomplete(&self) -> bool {
        self.failure.is_reference || self.failure.is_bare
    }

    /// Whether the dead letter cannot be replayed without its original record.
    pub fn is_empty_without_original(&self) -> bool {
        is_empty_without_original(&self.record, &self.failure)
    }

    /// Its topic, partition and offset.
    pub fn position(&self) -> RecordPosition {
        RecordPosition {
            topic: self.record.topic.to_string(),
            partition: self.record.partition,
            offset: self.record.offset,
        }
    }
}

/// How a read ended.
///
/// Exhaustive on purpose: a result that was not read to its end must not pass for a whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every record was read.
    Whole,
    /// The read was cancelled.
    Stopped,
    /// The receiver ended the read.
    Enough,
}

/// Passes the records of the topics to `each`, in offset order within each partition, until it
/// returns false. Blocks the calling thread, and calls `each` on it; `stop` is checked at least
/// every 100 ms while no record arrives. Without topics it returns [`End::Whole`] at once.
///
/// # Errors
/// If a request to the cluster fails, and any error of `each`.
pub fn read<E: From<KafkaError>>(
    cluster: &Cluster,
    topics: &[String],
    stop: &CancellationToken,
    each: impl FnMut(LogRecord) -> Result<bool, E>,
) -> Result<End, E> {
    if topics.is_empty() {
        return Ok(End::Whole);
    }
    let reading = Reading::whole(topics);
    let mut reader = Reader::open(&cluster.kafka, &reading, cluster.timeout)?;
    drain(&mut reader, stop, each)
}

/// [`read`] with an open reader.
///
/// # Errors
/// As for [`read`].
pub(crate) fn drain<E: From<KafkaError>>(
    reader: &mut Reader,
    stop: &CancellationToken,
    mut each: impl FnMut(LogRecord) -> Result<bool, E>,
) -> Result<End, E> {
    while !reader.at_end() {
        if stop.is_cancelled() {
            return Ok(End::Stopped);
        }
        if let Some(record) = reader.next(POLL_TIMEOUT)?
            && !each(record)?
        {
            return Ok(End::Enough);
        }
    }
    Ok(End::Whole)
}

/// The result of a lookup of one offset. Exhaustive on purpose, like [`End`].
#[derive(Debug)]
pub enum Lookup {
    /// The record at the offset.
    Record(Box<LogRecord>),
    /// No record: it was deleted, compacted away, or is not written yet.
    Nothing,
    /// The lookup was cancelled.
    Stopped,
}

/// Reads one offset. Blocks the calling thread, for the cluster's timeout at most for each request.
///
/// # Errors
/// If a request to the cluster fails. [`KafkaError::UnknownTopic`] or
/// [`KafkaError::UnknownPartition`] if the topic or partition does not exist.
pub fn look_up(
    cluster: &Cluster,
    at: &RecordPosition,
    stop: &CancellationToken,
) -> Result<Lookup, KafkaError> {
    let reading = Reading::whole([at.topic.clone()])
        .with_partitions([at.partition])
        .with_start(Start::Offset(at.offset))
        .with_end(Start::Offset(at.offset.saturating_add(1)));
    let mut reader = Reader::open(&cluster.kafka, &reading, cluster.timeout)?;
    let mut found = None;
    let end = drain(&mut reader, stop, |record| {
        if record.offset == at.offset {
            found = Some(Box::new(record));
        }
        Ok::<bool, KafkaError>(found.is_none())
    })?;
    Ok(match (found, end) {
        (Some(record), _) => Lookup::Record(record),
        (None, End::Stopped) => Lookup::Stopped,
        (None, _) => Lookup::Nothing,
    })
}

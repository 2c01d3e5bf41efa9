//! Fetches the headers of a record that was read without them, before it is parked or
//! dead-lettered.
//!
//! [`RecordHeaders::Skip`] saves the parsing of headers that no handler reads. A copy in another
//! topic must have them all the same: a replay or an operator may need them. The rare failing
//! record pays with a read of its own.

use crate::consumer::settings::RecordHeaders;
use crate::consumer::worker::retry::{UnsettledRecord, telemetry};
use crate::event::{Record, RecordBatchBuilder};
use crate::kafka::reader::{LogRecord, Reader, Span};
use crate::kafka::{KafkaConfig, KafkaError};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// How long one read may take.
const READ_WITHIN: Duration = Duration::from_secs(10);

impl UnsettledRecord {
    /// The record with its headers. None if its partition was revoked. A record that its topic has
    /// deleted is returned without headers.
    ///
    /// The read repeats with the retry backoff. It lends the record's permit, and ends with the
    /// partition.
    pub(crate) async fn record_with_headers(&self) -> Option<Cow<'_, Record>> {
        let record = &self.delivery.record;
        let settings = &self.shared.settings;
        // A parked record has its headers.
        if settings.headers == RecordHeaders::Read || self.ticket.is_some() {
            return Some(Cow::Borrowed(record));
        }
        let mut tries = 0_u32;
        loop {
            let (kafka, place) = (self.shared.dead_letters.kafka().clone(), span(record));
            let read = tokio::task::spawn_blocking(move || read(&kafka, place));
            match self.wait_for(read).await? {
                Ok(Ok(Some(found))) => return Some(Cow::Owned(self.with_headers(&found))),
                Ok(Ok(None)) => {
                    telemetry::headers_deleted(self.logged());
                    return Some(Cow::Borrowed(record));
                }
                Ok(Err(error)) => {
                    telemetry::headers_not_read(self.logged(), &error);
                }
                Err(error) => {
                    telemetry::headers_not_read(self.logged(), &error);
                }
            }
            tries = tries.saturating_add(1);
            let delay = settings.retry.backoff.delay(tries, rand::random());
            self.wait_for(tokio::time::sleep(delay)).await?;
        }
    }

    /// A copy of the record with the headers that were found.
    fn with_headers(&self, found: &LogRecord) -> Record {
        let record = &self.delivery.record;
        let mut builder = RecordBatchBuilder::new();
        let source = builder.source(Arc::clone(&self.partition.topic), record.partition());
        let timestamp_ms = record.timestamp_ms().unwrap_or(-1);
        let (offset, headers) = (record.offset(), found.headers.iter());
        builder.push(
            source,
            offset,
            timestamp_ms,
            record.key(),
            record.value(),
            headers,
        );
        let batch = builder.build(Some(Arc::clone(&self.shared.budget)));
        batch.record(0).unwrap_or_else(|| record.clone())
    }
}

/// The record's own offset, as a part of the log to read.
fn span(record: &Record) -> Span {
    Span {
        topic: record.topic().into(),
        partition: record.partition(),
        start: record.offset(),
        end: Some(record.offset() + 1),
    }
}

/// Reads the record at this offset. None if it was deleted.
///
/// Blocks, for up to ten seconds twice. Creates a client for one record: this path is rare.
fn read(kafka: &KafkaConfig, place: Span) -> Result<Option<LogRecord>, KafkaError> {
    let offset = place.start;
    let mut reader = Reader::of_spans(kafka, vec![place], READ_WITHIN)?;
    let found = reader.next(READ_WITHIN)?;
    if found.is_none() && !reader.at_end() {
        return Err(KafkaError::Timeout {
            what: "reading a record again".to_owned(),
            seconds: READ_WITHIN.as_secs(),
        });
    }
    Ok(found.filter(|found| found.offset == offset))
}

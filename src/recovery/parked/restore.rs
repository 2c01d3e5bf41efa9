//! Restores a parked record to its original form.
//!
//! The retry reader reads whole batches of a partition, of which few records are due. A restored
//! record therefore is a copy in a batch of its own, and keeps no other record in memory.

use super::entry::Values;
use super::entry_headers::{KIND, OFFSET, TIMESTAMP, is_parking_header};
use crate::event::{Headers, Record, RecordBatchBuilder};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// A record as stored in a retry topic: position and time of its entry, not of the record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
}

/// Restores the parked record, as it was read from `topic`: with its source position and timestamp,
/// and without our headers. A handler and an inbox cannot tell it from the first delivery. If its
/// source offset is unknown, it has the offset of its entry. Its bytes count against `budget` until
/// the record is dropped.
pub(crate) fn restored<'h>(
    topic: &Arc<str>,
    stored: Stored<'_>,
    headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    budget: Option<Arc<AtomicUsize>>,
) -> Option<Record> {
    let headers: Headers = headers.into_iter().collect();
    let values = Values(headers.iter());
    let source_offset = values.number(OFFSET).unwrap_or(stored.offset);
    // A record that was parked without a timestamp has none. One that was written by another client
    // keeps its own.
    let was_parked = values.0.clone().last_value(KIND).is_some();
    let own_ms = if was_parked { -1 } else { stored.timestamp_ms };
    let timestamp_ms = values.number(TIMESTAMP).unwrap_or(own_ms);
    let mut builder = RecordBatchBuilder::new();
    let source = builder.source(Arc::clone(topic), stored.partition);
    let own = headers.iter().filter(|(name, _)| !is_parking_header(name));
    builder.push(
        source,
        source_offset,
        timestamp_ms,
        stored.key,
        stored.value,
        own,
    );
    builder.build(budget).record(0)
}

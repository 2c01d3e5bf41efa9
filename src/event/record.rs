//! A received record, and the batch whose one buffer holds its bytes.

use super::HeadersIter;
use std::sync::Arc;

/// A received Kafka record: a cheap handle into the buffer it was received in.
#[derive(Clone)]
pub struct Record {
    batch: Arc<RecordBatch>,
    index: u32,
}

impl Record {
    /// The topic it was read from.
    pub fn topic(&self) -> &str {
        todo!()
    }
    /// The partition it was read from.
    pub fn partition(&self) -> i32 {
        todo!()
    }
    /// Its offset.
    pub fn offset(&self) -> i64 {
        todo!()
    }
    /// Its timestamp in milliseconds since the epoch; none if it has none.
    pub fn timestamp_ms(&self) -> Option<i64> {
        todo!()
    }
    /// Its key.
    pub fn key(&self) -> Option<&[u8]> {
        todo!()
    }
    /// Its value; none is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        todo!()
    }
    /// Its headers in order.
    pub fn headers(&self) -> HeadersIter<'_> {
        todo!()
    }
}

/// A run of records in one buffer.
pub struct RecordBatch {}
/// Fills a [`RecordBatch`].
pub struct RecordBatchBuilder {}

//! A received record, and the batch whose buffer holds its bytes.
//!
//! Owns the layout of records in memory: one buffer holds the keys, values and headers of a batch,
//! and a record is an index into it. Does not know clients or consumers.
//!
//! # Why a batch
//! A burst of small records would otherwise cost several allocations each, freed on another thread.
//! One buffer costs one. The price is that one record keeps the bytes of its batch in memory, so a
//! record that waits for long is copied out ([`Record::detached`]).
//!
//! # Budget
//! A batch may count its bytes in an `AtomicUsize`, which the consumer compares with its limit of
//! bytes in flight. The count is added when the batch is built, and subtracted when its last record
//! is dropped, on whatever thread that is. Lengths are 32 bits: a batch has less than 4 GiB.

use super::HeadersIter;
use super::headers::pack;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A received Kafka record: a cheap handle into the buffer that it was received in.
///
/// A handle keeps its whole batch in memory. [`Record::detached`] copies one record out. Handles
/// may be sent to other threads. `Debug` prints the position, `topic/partition@offset`, and no
/// content.
///
/// ```
/// use evenkeel::event::RecordBatchBuilder;
///
/// let mut batch = RecordBatchBuilder::new();
/// let source = batch.source("orders".into(), 0);
/// let (key, value) = (Some("o-1".as_bytes()), Some("{}".as_bytes()));
/// batch.push(source, 17, 1_700_000_000_000, key, value, []);
///
/// let record = batch.build(None).record(0).expect("one record");
/// assert_eq!((record.topic(), record.offset()), ("orders", 17));
/// assert_eq!(record.key(), key);
/// ```
#[derive(Clone)]
pub struct Record {
    batch: Arc<RecordBatch>,
    index: u32,
}

impl Record {
    /// The topic that the record was read from.
    pub fn topic(&self) -> &str {
        &self.batch.sources[self.position().source as usize].topic
    }

    /// The partition that the record was read from.
    pub fn partition(&self) -> i32 {
        self.batch.sources[self.position().source as usize].partition
    }

    /// The offset of the record in its partition.
    pub fn offset(&self) -> i64 {
        self.position().offset
    }

    /// The record's timestamp in milliseconds since the epoch. None if it has none. The producer or
    /// the broker has set it, depending on the topic.
    pub fn timestamp_ms(&self) -> Option<i64> {
        let timestamp = self.position().timestamp_ms;
        (timestamp >= 0).then_some(timestamp)
    }

    /// The key of the record. None if it has none, which differs from an empty key.
    pub fn key(&self) -> Option<&[u8]> {
        let position = self.position();
        self.slice(position.start, position.key)
    }

    /// The value of the record. None is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        let position = self.position();
        self.slice(position.start + length(position.key), position.value)
    }

    /// The headers of the record, in order. Parsed by each call.
    pub fn headers(&self) -> HeadersIter<'_> {
        let position = self.position();
        let start = position.start + length(position.key) + length(position.value);
        HeadersIter::of_packed(
            &self.batch.buffer[start as usize..(start + position.headers) as usize],
        )
    }

    /// The same record in a batch of its own, charged to `budget`, so that a record that waits for
    /// long does not keep the bytes of others in memory. Does not copy a record that is alone in
    /// its batch under the same budget.
    pub fn detached(&self, budget: Option<&Arc<AtomicUsize>>) -> Self {
        let own = self.batch.budget.as_ref();
        if self.batch.len() == 1 && own.map(Arc::as_ptr) == budget.map(Arc::as_ptr) {
            return self.clone();
        }
        let position = self.position();
        let source = &self.batch.sources[position.source as usize];
        let bytes = position.bytes();
        let start = position.start as usize;
        let mut builder = RecordBatchBuilder::with_capacity(bytes, 1);
        builder.sources.reserve_exact(1);
        builder
            .buffer
            .extend_from_slice(&self.batch.buffer[start..start + bytes]);
        builder.sources.push(source.clone());
        builder.positions.push(Position {
            source: 0,
            start: 0,
            ..*position
        });
        let batch = builder.build(budget.cloned());
        Self { batch, index: 0 }
    }

    /// The batch that holds its bytes.
    pub(crate) fn batch(&self) -> &Arc<RecordBatch> {
        &self.batch
    }

    /// The bytes that the record takes in a batch of its own.
    pub(crate) fn standalone_bytes(&self) -> usize {
        self.position().bytes() + size_of::<Position>() + size_of::<Source>() + BATCH_OVERHEAD
    }

    fn position(&self) -> &Position {
        &self.batch.positions[self.index as usize]
    }

    fn slice(&self, start: u32, length: u32) -> Option<&[u8]> {
        (length != ABSENT).then(|| &self.batch.buffer[start as usize..(start + length) as usize])
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.topic(), self.partition(), self.offset())
    }
}

/// Marks an absent key or value, in place of a length.
const ABSENT: u32 = u32::MAX;

fn length(length: u32) -> u32 {
    if length == ABSENT { 0 } else { length }
}

/// The topic and partition of records.
#[derive(Clone)]
struct Source {
    topic: Arc<str>,
    partition: i32,
}

#[derive(Clone, Copy)]
struct Position {
    offset: i64,
    timestamp_ms: i64,
    source: u32,
    start: u32,
    key: u32,
    value: u32,
    headers: u32,
}

impl Position {
    /// The bytes of its key, value and headers.
    fn bytes(&self) -> usize {
        (length(self.key) + length(self.value) + self.headers) as usize
    }
}

/// Smaller buffers keep their reserved room: releasing it costs more than it saves.
const SHRUNK_FROM_BYTES: usize = 16 << 10;

/// The bytes of a batch beside its buffer and its lists.
const BATCH_OVERHEAD: usize = size_of::<RecordBatch>() + 2 * size_of::<usize>();

/// Consecutive records in one buffer. Its bytes count against a budget until the last record of it
/// is dropped. [`RecordBatchBuilder`] builds it; an example is at [`Record`].
pub struct RecordBatch {
    buffer: Vec<u8>,
    sources: Vec<Source>,
    positions: Vec<Position>,
    budget: Option<Arc<AtomicUsize>>,
}

impl fmt::Debug for RecordBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordBatch")
            .field("records", &self.len())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl RecordBatch {
    /// The number of records in the batch.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether the batch has no records.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The record at `index`. None past the end.
    pub fn record(self: &Arc<Self>, index: usize) -> Option<Record> {
        (index < self.len()).then(|| Record {
            batch: Arc::clone(self),
            index: index as u32,
        })
    }

    /// The budget that its bytes are charged to.
    pub(crate) fn budget(&self) -> Option<&Arc<AtomicUsize>> {
        self.budget.as_ref()
    }

    /// The bytes that the batch keeps in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.capacity()
            + self.positions.capacity() * size_of::<Position>()
            + self.sources.capacity() * size_of::<Source>()
            + BATCH_OVERHEAD
    }
}

impl Drop for RecordBatch {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.fetch_sub(self.bytes(), Ordering::Relaxed);
        }
    }
}

/// Builds a [`RecordBatch`] record by record. For consumers, and for tests that call a router
/// without Kafka.
#[derive(Default)]
#[must_use = "records are readable only after `build`"]
pub struct RecordBatchBuilder {
    buffer: Vec<u8>,
    sources: Vec<Source>,
    positions: Vec<Position>,
}

impl fmt::Debug for RecordBatchBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordBatchBuilder")
            .field("records", &self.len())
            .field("bytes", &self.buffered())
            .finish_non_exhaustive()
    }
}

impl RecordBatchBuilder {
    /// Creates an empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty builder with room for this many bytes and records.
    pub fn with_capacity(bytes: usize, records: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(bytes),
            sources: Vec::new(),
            positions: Vec::with_capacity(records),
        }
    }

    /// Adds a partition that records come from, and returns its number for
    /// [`RecordBatchBuilder::push`].
    pub fn source(&mut self, topic: Arc<str>, partition: i32) -> u32 {
        self.sources.push(Source { topic, partition });
        (self.sources.len() - 1) as u32
    }

    /// Appends a record. A negative `timestamp_ms` means that the record has none. `source` is a
    /// number that [`RecordBatchBuilder::source`] returned for this builder; with another one the
    /// record's topic and partition panic.
    pub fn push<'h>(
        &mut self,
        source: u32,
        offset: i64,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    ) {
        let start = self.buffer.len() as u32;
        self.buffer.extend_from_slice(key.unwrap_or_default());
        self.buffer.extend_from_slice(value.unwrap_or_default());
        let headers_start = self.buffer.len();
        for (name, value) in headers {
            pack(&mut self.buffer, name, value);
        }
        let position = Position {
            offset,
            timestamp_ms,
            source,
            start,
            key: key.map_or(ABSENT, |key| key.len() as u32),
            value: value.map_or(ABSENT, |value| value.len() as u32),
            headers: (self.buffer.len() - headers_start) as u32,
        };
        self.positions.push(position);
    }

    /// The number of records so far.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are no records yet.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The bytes of keys, values and headers so far.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Builds the batch. Its bytes are added to `budget`, and subtracted when its last record is
    /// dropped.
    pub fn build(mut self, budget: Option<Arc<AtomicUsize>>) -> Arc<RecordBatch> {
        // Unused room is released: it would count, and stay, as long as the records do.
        let (reserved, used) = (self.buffer.capacity(), self.buffer.len());
        if reserved >= SHRUNK_FROM_BYTES && reserved - used > reserved / 4 {
            self.buffer.shrink_to_fit();
        }
        let batch = RecordBatch {
            buffer: self.buffer,
            sources: self.sources,
            positions: self.positions,
            budget,
        };
        if let Some(budget) = &batch.budget {
            budget.fetch_add(batch.bytes(), Ordering::Relaxed);
        }
        Arc::new(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_its_records_and_no_reserved_room() {
        let batch = |reserved: usize, bytes: usize| {
            let mut builder = RecordBatchBuilder::with_capacity(reserved, 8);
            let source = builder.source("orders".into(), 0);
            builder.push(source, 0, 0, None, Some(&vec![0; bytes]), []);
            let budget = Arc::default();
            let batch = builder.build(Some(Arc::clone(&budget)));
            assert_eq!(batch.bytes(), budget.load(Ordering::Relaxed));
            batch.bytes()
        };
        const MIB: usize = 1 << 20;
        assert!(batch(8 * MIB, MIB) < MIB + 4096);
        assert!(
            batch(8 * MIB, 7 * MIB) > 8 * MIB,
            "a little room is not worth it"
        );
    }

    #[test]
    fn records_of_a_batch_read_back_as_pushed() {
        let mut builder = RecordBatchBuilder::new();
        let orders = builder.source("orders".into(), 3);
        builder.push(
            orders,
            7,
            1_000,
            Some(b"k"),
            Some(b"value"),
            [(b"h".as_slice(), Some(b"1".as_slice())), (b"h", None)],
        );
        builder.push(orders, 9, -1, None, None, []);
        builder.push(orders, 10, 0, Some(b""), Some(b""), []);
        let batch = builder.build(None);

        let first = batch.record(0).expect("three records");
        assert_eq!(
            (first.topic(), first.partition(), first.offset()),
            ("orders", 3, 7)
        );
        assert_eq!(
            (first.key(), first.value(), first.timestamp_ms()),
            (
                Some(b"k".as_slice()),
                Some(b"value".as_slice()),
                Some(1_000)
            )
        );
        assert_eq!(
            first.headers().collect::<Vec<_>>(),
            [(b"h".as_slice(), Some(b"1".as_slice())), (b"h", None)]
        );
        let second = batch.record(1).expect("three records");
        assert_eq!(
            (second.key(), second.value(), second.timestamp_ms()),
            (None, None, None)
        );
        let third = batch.record(2).expect("three records");
        assert_eq!(
            (third.key(), third.value()),
            (Some(b"".as_slice()), Some(b"".as_slice()))
        );
        assert!(batch.record(3).is_none());
    }

    #[test]
    fn a_budget_is_charged_until_the_last_record_is_gone() {
        let budget = Arc::new(AtomicUsize::new(0));
        let mut builder = RecordBatchBuilder::new();
        let source = builder.source("t".into(), 0);
        builder.push(source, 0, -1, None, Some(&[0; 100]), []);
        builder.push(source, 1, -1, None, Some(&[1; 100]), []);
        let batch = builder.build(Some(Arc::clone(&budget)));
        let record = batch.record(1).expect("two records");
        drop(batch);
        assert!(budget.load(Ordering::Relaxed) >= 200);
        let copy = record.detached(Some(&budget));
        drop(record);
        let held = budget.load(Ordering::Relaxed);
        assert_eq!(held, copy.standalone_bytes());
        assert!(
            (100..300).contains(&held),
            "{held} bytes held for one record of 100"
        );
        let again = copy.detached(Some(&budget));
        assert_eq!(budget.load(Ordering::Relaxed), held, "it is alone already");
        let uncharged = again.detached(None);
        drop(again);
        assert_eq!(
            (copy.offset(), copy.value()),
            (1, Some([1; 100].as_slice()))
        );
        drop(copy);
        assert_eq!(budget.load(Ordering::Relaxed), 0);
        assert_eq!(uncharged.value(), Some([1; 100].as_slice()));
    }
}

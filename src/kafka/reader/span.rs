//! The extent of a reading.

use std::sync::Arc;

/// The start of a reading in each partition. As the end of a reading it is the place before which
/// the reading stops.
///
/// It is resolved to an offset once, when the reader is opened, and clamped to the offsets that the
/// partition has then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// The first available record.
    Beginning,
    /// After the last record: only new records.
    End,
    /// This offset, or the nearest available one.
    Offset(i64),
    /// This many offsets before the end of each partition. Offsets of compacted records and
    /// transaction markers count, so fewer records may be read.
    Last(i64),
    /// The first record with this timestamp or a later one, in milliseconds since the epoch. The
    /// end, if all records are older.
    Time(i64),
}

/// The extent of a reading. [`Reading::whole`] covers whole topics.
///
/// | setting | default of [`Reading::whole`] | decides |
/// |---|---|---|
/// | [`topics`](Self::topics) | as given | the topics |
/// | [`partitions`](Self::partitions) | all | the partitions of each topic |
/// | [`start`](Self::start) | [`Start::Beginning`] | where each partition starts |
/// | [`end`](Self::end) | [`Start::End`] | where each partition ends |
///
/// ```
/// use evenkeel::kafka::reader::{Reading, Start};
///
/// // The last ten offsets of one partition.
/// let tail = Reading::whole(["shop.orders"]).with_partitions([3]).with_start(Start::Last(10));
/// // New records only, for ever.
/// let follow = Reading::whole(["shop.orders"]).with_start(Start::End).with_end(None);
/// assert_eq!((tail.end, follow.end), (Some(Start::End), None));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reading {
    /// The topics to read. A topic that is named twice is read once.
    pub topics: Vec<String>,
    /// The partitions of each topic. All of them if empty, which is the default. Every topic must
    /// have each of them.
    pub partitions: Vec<i32>,
    /// The start in each partition. Default [`Start::Beginning`].
    pub start: Start,
    /// The end: for `End`, the end of each partition when the reader is opened, which is the
    /// default. None follows the log for ever. A partition whose end is not after its start is done
    /// at once.
    pub end: Option<Start>,
}

/// A partition, and the offsets that a reading covers.
///
/// Exhaustive on purpose: [`Reader::of_spans`](super::Reader::of_spans) reads spans that its caller
/// made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The first offset to read.
    pub start: i64,
    /// The offset to stop before. None for no end.
    pub end: Option<i64>,
}

impl Reading {
    /// Covers all records that the topics hold when the reader is opened.
    pub fn whole<T: Into<String>>(topics: impl IntoIterator<Item = T>) -> Self {
        Self {
            topics: topics.into_iter().map(Into::into).collect(),
            partitions: Vec::new(),
            start: Start::Beginning,
            end: Some(Start::End),
        }
    }

    /// Restricts the reading to these [`partitions`](Self::partitions) of each topic.
    #[must_use]
    pub fn with_partitions(mut self, partitions: impl IntoIterator<Item = i32>) -> Self {
        self.partitions = partitions.into_iter().collect();
        self
    }

    /// Sets the [`start`](Self::start).
    #[must_use]
    pub fn with_start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets the [`end`](Self::end): a [`Start`], or None for no end.
    #[must_use]
    pub fn with_end(mut self, end: impl Into<Option<Start>>) -> Self {
        self.end = end.into();
        self
    }
}

//! The extent of a reading.

use std::sync::Arc;

/// The start of a reading in each partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first available record.
    Beginning,
    /// After the last record: only new records.
    End,
    /// This offset, or the nearest available one.
    Offset(i64),
    /// This many offsets before the end of each partition.
    Last(i64),
    /// The first record with this timestamp or a later one, in milliseconds since the epoch.
    Time(i64),
}

/// The extent of a reading. [`Reading::whole`] covers whole topics.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The topics to read.
    pub topics: Vec<String>,
    /// The partitions of each topic. All of them if empty.
    pub partitions: Vec<i32>,
    /// The start in each partition.
    pub start: Start,
    /// The end: for `End`, the end of each partition when the reader is opened. None follows the
    /// log for ever.
    pub end: Option<Start>,
}

/// A partition, and the offsets that a reading covers.
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
}

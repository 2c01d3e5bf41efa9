//! A record to publish.

use super::Headers;
use bytes::Bytes;

/// An encoded record to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct OutgoingRecord {
    /// Destination topic.
    pub topic: String,
    /// A fixed partition. None lets the key decide.
    pub partition: Option<i32>,
    /// Key bytes. None lets the client choose any partition.
    pub key: Option<Bytes>,
    /// Value bytes. None is a tombstone.
    pub value: Option<Bytes>,
    /// The headers of the record.
    pub headers: Headers,
    /// Creation time in milliseconds since the epoch. None lets the client set it.
    pub timestamp_ms: Option<i64>,
}

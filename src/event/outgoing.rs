//! A record to publish.

use super::Headers;
use bytes::Bytes;

/// An encoded record to publish, from [`encode`](super::encode) or made by hand.
///
/// Exhaustive on purpose: the fields are those of a Kafka record, and a copy of a record must not
/// leave one out.
///
/// ```
/// use evenkeel::event::{Headers, OutgoingRecord};
///
/// // A tombstone: a compacted topic deletes the key.
/// let tombstone = OutgoingRecord {
///     topic: "shop.prices".to_owned(),
///     partition: None,
///     key: Some("article-1".into()),
///     value: None,
///     headers: Headers::new(),
///     timestamp_ms: None,
/// };
/// assert!(tombstone.value.is_none());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct OutgoingRecord {
    /// Destination topic.
    pub topic: String,
    /// A fixed partition. None lets the key decide. A partition that does not exist is refused.
    pub partition: Option<i32>,
    /// Key bytes. None lets the client choose any partition, and gives the record no order. A
    /// compacted topic refuses a record without a key.
    pub key: Option<Bytes>,
    /// Value bytes. None is a tombstone.
    pub value: Option<Bytes>,
    /// The headers of the record.
    pub headers: Headers,
    /// Creation time in milliseconds since the epoch. None lets the client set it. A topic's
    /// retention counts from it, so an old time may delete the record at once.
    pub timestamp_ms: Option<i64>,
}

//! The name of a retry topic, and the headers of its entries.

/// The prefix of our headers. All of them are removed before a handler receives the record.
pub(super) const PREFIX: &[u8] = b"evenkeel.parked.";
/// The group that the entry belongs to.
pub(super) const GROUP: &str = "evenkeel.parked.group";
/// The source topic of the record.
pub(super) const TOPIC: &str = "evenkeel.parked.topic";
/// The kind of the entry: `record`, `failed`, `held`, `replay`, `repetition` or `repeated`. A
/// record without this header was written by another program, and is handled.
pub(super) const KIND: &str = "evenkeel.parked.kind";
/// The offset of the record in the source topic, as decimal text.
pub(super) const OFFSET: &str = "evenkeel.parked.offset";
/// The record's own timestamp, in milliseconds since the epoch. The entry's is the time of writing.
pub(super) const TIMESTAMP: &str = "evenkeel.parked.timestamp";
/// How often the record was parked after a failure. Absent for 0.
pub(super) const ROUNDS: &str = "evenkeel.parked.rounds";
/// The attempts so far. Absent for 0.
pub(super) const ATTEMPTS: &str = "evenkeel.parked.attempts";
/// The earliest time of the next attempt, in milliseconds since the epoch. Absent for at once.
pub(super) const NOT_BEFORE: &str = "evenkeel.parked.not-before";
/// When the entry was written, in milliseconds since the epoch. For people.
pub(super) const SINCE: &str = "evenkeel.parked.since";
/// The class of the last failure. For people.
pub(super) const CLASS: &str = "evenkeel.parked.class";
/// The message of the last failure, cut. For people.
pub(super) const MESSAGE: &str = "evenkeel.parked.message";
/// The offset in the retry partition of the entry that a note is about.
pub(super) const OF: &str = "evenkeel.parked.of";

/// The topic for the parked records of `group` from `topic`. It needs as many partitions as
/// `topic`.
///
/// Names are ambiguous: `payments.eu` and `orders` have the same one as `payments` and `eu.orders`.
/// So each entry names its owner ([`Owner`](super::Owner)).
///
/// ```
/// use evenkeel::recovery::retry_topic;
///
/// assert_eq!(retry_topic("payments", "shop.orders"), "retry.payments.shop.orders");
/// ```
pub fn retry_topic(group: &str, topic: &str) -> String {
    format!("retry.{group}.{topic}")
}

/// Whether only records of a retry topic have a header of this name.
pub(crate) fn is_parking_header(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

/// The kind of an answer. It does not affect waiting records.
pub(super) const ANSWER: &[u8] = b"repeated";

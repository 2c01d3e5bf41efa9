//! The name of a retry topic, and the headers of its entries.

/// The prefix of our headers.
pub(super) const PREFIX: &[u8] = b"evenkeel.parked.";
pub(super) const GROUP: &str = "evenkeel.parked.group";
pub(super) const TOPIC: &str = "evenkeel.parked.topic";
pub(super) const KIND: &str = "evenkeel.parked.kind";
pub(super) const OFFSET: &str = "evenkeel.parked.offset";
pub(super) const TIMESTAMP: &str = "evenkeel.parked.timestamp";
pub(super) const ROUNDS: &str = "evenkeel.parked.rounds";
pub(super) const ATTEMPTS: &str = "evenkeel.parked.attempts";
pub(super) const NOT_BEFORE: &str = "evenkeel.parked.not-before";
pub(super) const SINCE: &str = "evenkeel.parked.since";
pub(super) const CLASS: &str = "evenkeel.parked.class";
pub(super) const MESSAGE: &str = "evenkeel.parked.message";
pub(super) const OF: &str = "evenkeel.parked.of";

/// The topic for the parked records of `group` from `topic`. It needs as many partitions as
/// `topic`.
///
/// Names are ambiguous: `payments.eu` and `orders` have the same one as `payments` and `eu.orders`.
/// So each entry names its owner ([`Owner`](super::Owner)).
pub fn retry_topic(group: &str, topic: &str) -> String {
    format!("retry.{group}.{topic}")
}

/// Whether only records of a retry topic have a header of this name.
pub(crate) fn is_parking_header(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

/// The kind of an answer. It does not affect waiting records.
pub(super) const ANSWER: &[u8] = b"repeated";

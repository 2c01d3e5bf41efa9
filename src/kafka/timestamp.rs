//! The kind of a record's timestamp.

/// Who set the timestamp of a record. The topic's setting `message.timestamp.type` decides it.
///
/// Exhaustive on purpose: Kafka's protocol defines these three, and a program that prints or
/// converts a record must handle each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampKind {
    /// The record has no timestamp: it was written in a message format from before Kafka 0.10.
    Absent,
    /// The producer set it (`CreateTime`). It may be any time, also one in the future.
    Create,
    /// The broker set it when it appended the record (`LogAppendTime`).
    LogAppend,
}

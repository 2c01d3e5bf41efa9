//! The kind of a record's timestamp.

/// Who set the timestamp of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampKind {
    /// The record has no timestamp.
    Absent,
    /// The producer set it.
    Create,
    /// The broker set it.
    LogAppend,
}

//! The stage and reason of a final failure.

use std::fmt;

/// The stage at which a record failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The record could not be decoded.
    Decode,
    /// Its payload does not match its schema.
    Schema,
    /// The handler refused the record, or failed too often.
    Handler,
    /// The handler took too long.
    Timeout,
    /// The handler panicked.
    Panic,
    /// The inbox knows its id from another event, and
    /// [`ReusedIds::DeadLetter`](crate::handler::ReusedIds::DeadLetter) is configured.
    Inbox,
    /// The record was not handled: an operator skipped it.
    Skipped,
}

impl Stage {
    /// The name of the stage in headers, metrics and listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Schema => "schema",
            Self::Handler => "handler",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
            Self::Inbox => "inbox",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a record becomes a dead letter.
#[derive(Debug)]
pub struct DeadReason {
    /// The stage at which it failed.
    pub stage: Stage,
    /// The failure, without any part of the payload. Shortened when it is written.
    pub message: String,
}

impl DeadReason {
    /// Creates a reason from a stage and a message.
    pub fn new(stage: Stage, message: impl Into<String>) -> Self {
        Self {
            stage,
            message: message.into(),
        }
    }
}

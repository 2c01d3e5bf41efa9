//! The stage and reason of a final failure.

use std::fmt;

/// The stage at which a record failed for good.
///
/// Operators filter dead letters by it: the stage tells whose mistake it probably is.
///
/// ```
/// use evenkeel::handler::{DeadReason, Stage};
///
/// let reason = DeadReason::new(Stage::Handler, "the order has no lines");
/// assert_eq!(reason.message, "the order has no lines");
/// assert_eq!(reason.stage.as_str(), "handler");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The record could not be decoded: it is no event, or its payload has another shape than the
    /// handler's type. The handler was not called. Usually the producer is at fault.
    Decode,
    /// Its payload does not match its schema in the router's
    /// [catalogue](crate::handler::Router::with_catalogue). The handler was not called.
    Schema,
    /// The handler refused the record, or failed too often.
    Handler,
    /// The handler took too long too often.
    Timeout,
    /// Code of the service panicked: the handler, a layer, an extractor, the classifier, or the
    /// code of an error. A bug of the service.
    Panic,
    /// The inbox knows its id from another event, and
    /// [`ReusedIds::DeadLetter`](crate::handler::ReusedIds::DeadLetter) is configured. The handler
    /// was not called.
    Inbox,
    /// The record was not handled: an operator skipped it.
    Skipped,
}

impl Stage {
    /// The name of the stage in headers, metrics and listings. Names are stable.
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

/// Why a record becomes a dead letter. A handler returns it in
/// [`Outcome::Dead`](crate::handler::Outcome::Dead).
///
/// ```
/// use evenkeel::event::Record;
/// use evenkeel::handler::{DeadReason, Outcome, Stage};
///
/// async fn check(record: Record) -> Outcome {
///     match record.key() {
///         Some(_) => Outcome::Done,
///         None => Outcome::Dead(DeadReason::new(Stage::Handler, "the record has no key")),
///     }
/// }
/// # let _ = evenkeel::handler::Router::new().raw(check);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct DeadReason {
    /// The stage at which it failed.
    pub stage: Stage,
    /// The failure, in one line and without any part of the payload: operators who may read dead
    /// letters' headers need not be allowed to read payloads. Cut at 1024 bytes when it is written.
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

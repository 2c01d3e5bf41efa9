//! Classes of errors.

/// The kind of a failure. It decides whether and how the record is retried.
///
/// A handler sets it ([`HandlerError::transient`](crate::handler::HandlerError::transient) and the
/// like), or the consumer's [`Classifier`](crate::handler::Classifier) derives it from the type of
/// the error. It is never read from an error's text. When in doubt, choose
/// [`Transient`](Self::Transient): a wrong [`Permanent`](Self::Permanent) costs a replay by an
/// operator, a wrong [`Outage`](Self::Outage) retries a broken record for ever.
///
/// ```
/// use evenkeel::handler::{Class, HttpStatus};
///
/// assert_eq!(HttpStatus(503).class(), Class::Outage);
/// assert_eq!(Class::Outage.as_str(), "outage");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// May pass by itself, such as a lost race or a rate limit. The record is retried in place and
    /// then in the retry topic, by the [`RetryPolicy`](crate::recovery::RetryPolicy), and
    /// dead-lettered when its attempts are used up.
    Transient,
    /// Will occur again in every attempt, such as an order that refers to no customer. The record
    /// is dead-lettered at once.
    Permanent,
    /// A dependency of the handler is down. The record is retried until it is available again. No
    /// attempt is counted. Enough outages open the dependency's breaker
    /// ([`BreakerPolicy`](crate::recovery::BreakerPolicy)), which pauses all records.
    Outage,
    /// No answer arrived in time. If most attempts that need the same dependency fail like this, it
    /// counts as an [`Outage`](Self::Outage). A record that is slow while others are not is retried
    /// as [`Transient`](Self::Transient).
    Timeout,
}

impl Class {
    /// The name of the class in headers, metrics and listings. Names are stable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Outage => "outage",
            Self::Timeout => "timeout",
        }
    }
}

//! Classes of errors.

/// The kind of a failure. It decides whether and how the record is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// May pass by itself. The record is retried with backoff, and dead-lettered when its attempts
    /// are used up.
    Transient,
    /// Will occur again in every attempt. The record is dead-lettered at once.
    Permanent,
    /// A dependency of the handler is down. The record is retried until it is available again. No
    /// attempt is counted.
    Outage,
    /// No answer arrived in time. If most attempts that need the same dependency fail like this, it
    /// counts as an [`Outage`](Self::Outage). A record that is slow while others are not is retried
    /// as [`Transient`](Self::Transient).
    Timeout,
}

impl Class {
    /// The name of the class in headers, metrics and listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Outage => "outage",
            Self::Timeout => "timeout",
        }
    }
}

//! The kinds of retry topic entries, as read from their headers.

use super::entry_headers::{
    ANSWER, ATTEMPTS, CLASS, GROUP, KIND, MESSAGE, NOT_BEFORE, OF, OFFSET, ROUNDS, SINCE, TOPIC,
};
use crate::event::{Headers, HeadersIter};
use crate::failure::Class;

/// The kind of a record in a retry topic.
///
/// ```
/// use evenkeel::event::Headers;
/// use evenkeel::recovery::{Owner, RetryState, RetryTopicEntry};
///
/// let owner = Owner { group: "payments", topic: "shop.orders" };
/// // A record that another program wrote into the topic is handled at once.
/// let entry = RetryTopicEntry::read(Headers::new().iter(), owner);
/// let wait = RetryState::default();
/// assert_eq!(entry, RetryTopicEntry::Parked { source_offset: None, wait, is_replay: false });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryTopicEntry {
    /// A record that waits for its next attempt, or behind another one of its key. The entry
    /// contains the record.
    Parked {
        /// Its offset in the source topic. None if unknown, as for a record that another program
        /// wrote into the retry topic.
        source_offset: Option<i64>,
        /// The state of its attempts.
        wait: RetryState,
        /// Whether it is the replay of a dead letter, which takes the place that was held for it.
        is_replay: bool,
    },
    /// A parked record failed again, and continues to wait. Of several entries about one record the
    /// last counts.
    Failed {
        /// Its offset in the retry topic.
        retry_offset: i64,
        /// The present state of its attempts.
        wait: RetryState,
    },
    /// The record at this offset of the source topic became a dead letter, and later records of its
    /// key wait for its replay.
    Held {
        /// Its offset in the source topic.
        source_offset: i64,
    },
    /// An invalid entry, or one that does not affect waiting records. It is skipped.
    Unknown,
    /// An entry of another group or topic. This reader ignores it.
    Foreign,
}

/// The group and topic that entries of a retry topic belong to.
///
/// The name of a retry topic is ambiguous: the group `a.b` with the topic `c` and the group `a`
/// with the topic `b.c` share `retry.a.b.c`. So each entry names its owner, and readers ignore the
/// entries of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The group that parks.
    pub group: &'a str,
    /// The source topic of the parked records.
    pub topic: &'a str,
}

impl Owner<'_> {
    /// Whether an entry belongs to this group and topic. One without an owner belongs to any
    /// reader: older versions and people write such entries.
    ///
    /// ```
    /// use evenkeel::event::Headers;
    /// use evenkeel::recovery::Owner;
    ///
    /// let mut headers = Headers::new();
    /// headers.push("evenkeel.parked.group", Some(b"payments".as_slice()));
    /// headers.push("evenkeel.parked.topic", Some(b"shop.orders".as_slice()));
    /// let payments = Owner { group: "payments", topic: "shop.orders" };
    /// assert!(payments.owns(headers.iter()));
    /// let other = Owner { group: "payments.shop", topic: "orders" };
    /// assert!(!other.owns(headers.iter()), "a group with the same retry topic");
    /// ```
    pub fn owns(self, headers: HeadersIter<'_>) -> bool {
        let is_own = |name, own: &str| {
            let written = headers.clone().last_value(name);
            written.is_none_or(|written| written == own.as_bytes())
        };
        is_own(GROUP, self.group) && is_own(TOPIC, self.topic)
    }

    /// The group and the topic that an entry names as its owner, for people.
    pub(crate) fn named_in(headers: &Headers) -> (String, String) {
        let text = |name| {
            let value = headers.last(name).unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        };
        (text(GROUP), text(TOPIC))
    }

    /// Adds the owner to an entry's headers.
    pub(in crate::recovery) fn push(self, headers: &mut Headers) {
        headers.push(GROUP, Some(self.group.as_bytes()));
        headers.push(TOPIC, Some(self.topic.as_bytes()));
    }
}

/// The retry state of a parked record. The default is that of a record that may be handled at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct RetryState {
    /// How often it was parked after a failure. 0 for a record that waits behind another. It is the
    /// index of its next delay in [`RetryPolicy::park_delays`](crate::recovery::RetryPolicy).
    pub rounds: u32,
    /// The number of its attempts, in place and after delays.
    pub attempts: u32,
    /// The earliest time of its next attempt, in milliseconds since the epoch. 0 for at once. A
    /// member bounds it by its policy's longest delay from now on.
    pub not_before_ms: i64,
}

/// Why a record waits, for people: nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ParkedReason {
    /// The class of the last failure. None for a record that waits behind another.
    pub class: Option<String>,
    /// The message of the last failure.
    pub message: Option<String>,
    /// Since when it waits, in milliseconds since the epoch: the time at which the entry was
    /// written.
    pub since_ms: Option<i64>,
}

/// The failure that makes a record wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reason<'a> {
    pub(crate) class: Class,
    pub(crate) message: &'a str,
}

impl RetryTopicEntry {
    /// Reads the headers of a record in a retry topic, for the group and topic of the reader. Never
    /// fails: an unreadable count is read as the largest, so that a broken header never gives a
    /// record further attempts.
    pub fn read(headers: HeadersIter<'_>, owner: Owner<'_>) -> Self {
        if !owner.owns(headers.clone()) {
            return Self::Foreign;
        }
        let values = Values(headers);
        let source_offset = values.number(OFFSET);
        match values.0.clone().last_value(KIND) {
            Some(b"failed") => match values.number(OF) {
                Some(retry_offset) => Self::Failed {
                    retry_offset,
                    wait: values.wait(),
                },
                None => Self::Unknown,
            },
            Some(b"held") => {
                source_offset.map_or(Self::Unknown, |source_offset| Self::Held { source_offset })
            }
            Some(ANSWER) => Self::Unknown,
            // Any other record in the topic was written to be handled.
            _ => Self::Parked {
                source_offset,
                wait: values.wait(),
                is_replay: values.0.clone().last_value(KIND) == Some(b"replay"),
            },
        }
    }
}

impl ParkedReason {
    /// Reads the headers of a parked record or of a note. Never fails: bytes that are not UTF-8 are
    /// replaced, and an absent reason is empty.
    pub fn read(headers: HeadersIter<'_>) -> Self {
        let values = Values(headers);
        let text = |name| {
            let bytes = values.0.clone().last_value(name)?;
            Some(String::from_utf8_lossy(bytes).into_owned())
        };
        Self {
            class: text(CLASS),
            message: text(MESSAGE),
            since_ms: values.number(SINCE),
        }
    }
}

/// The values of an entry's headers. Of several with one name the last counts.
pub(super) struct Values<'a>(pub(super) HeadersIter<'a>);

impl Values<'_> {
    /// A number that is not negative. None for any other text.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        let text = std::str::from_utf8(self.0.clone().last_value(name)?).ok()?;
        text.parse().ok().filter(|number: &i64| *number >= 0)
    }

    /// A count: 0 if absent, and the largest possible if unreadable.
    pub(super) fn count(&self, name: &str) -> u32 {
        let is_there = self.0.clone().any(|(header, _)| header == name.as_bytes());
        match self.number(name) {
            Some(number) => u32::try_from(number).unwrap_or(u32::MAX),
            None if is_there => u32::MAX,
            None => 0,
        }
    }

    /// The retry state. A time that cannot be read is due at once.
    pub(super) fn wait(&self) -> RetryState {
        RetryState {
            rounds: self.count(ROUNDS),
            attempts: self.count(ATTEMPTS),
            not_before_ms: self.number(NOT_BEFORE).unwrap_or(0),
        }
    }
}

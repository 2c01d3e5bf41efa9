//! The failure of a record, as described in the headers of its dead letter.

use jiff::Timestamp;
use serde::Serialize;

/// The system that writes a kind of failure headers. Its names and encodings decide how they are
/// read; an operator sees it in listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Family {
    /// Kafka's share groups (KIP-1191), `__dlq.errors.*`, and this library, which adds
    /// `evenkeel.dlq.error.*`.
    Kafka,
    /// Kafka Streams (KIP-1034), `__streams.errors.*`.
    Streams,
    /// Kafka Connect's sinks, `__connect.errors.*`.
    Connect,
    /// Spring Kafka: `kafka_dlt-*`, and for `@RetryableTopic` `kafka_original-*` and
    /// `kafka_exception-*`.
    Spring,
    /// Spring Cloud Stream's binder, `x-original-*` and `x-exception-*`, which other systems have
    /// adopted.
    SpringCloud,
    /// SmallRye, and therefore Quarkus: `dead-letter-*` and `delayed-retry-*`.
    SmallRye,
    /// Karafka, `source_*`, before 2.5 `original_*`.
    Karafka,
    /// Watermill's poison queue, `*_poisoned`.
    Watermill,
    /// Laravel Kafka, `kafka_throwable_*`, without the position at which the record failed.
    Laravel,
}

/// The failure of a record, as described in the headers of its dead letter. Absent fields are
/// unknown. See [`DeadLetter::read`].
///
/// ```
/// use evenkeel::event::Headers;
/// use evenkeel::recovery::DeadLetter;
///
/// let mut headers = Headers::new();
/// headers.push("__streams.errors.topic", Some("orders".as_bytes()));
/// headers.push("__streams.errors.message", Some("division by zero".as_bytes()));
/// let failure = DeadLetter::read(headers.iter());
/// assert_eq!(failure.topic.as_deref(), Some("orders"));
/// assert_eq!(failure.message.as_deref(), Some("division by zero"));
/// ```
///
/// Anyone who may write to the topic may have written the headers: use them to find and group
/// failures, not to decide about access.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The system that wrote the headers. None for a record without failure headers.
    pub family: Option<Family>,
    /// The topic on which the record failed. Always a valid topic name: it may become the
    /// destination of a replay. Unknown for Laravel.
    pub topic: Option<String>,
    /// The partition of the record in that topic. Unknown for Watermill and Laravel.
    pub partition: Option<i32>,
    /// The offset of the record in that partition. Unknown for Watermill and Laravel.
    pub offset: Option<i64>,
    /// The group, or the connector, that dead-lettered the record. Only a dead letter that names it
    /// can be replayed to a retry topic.
    pub group: Option<String>,
    /// The class of the error: `transient`, `timeout` or `permanent` for this library, otherwise
    /// the name of an exception's class.
    pub class: Option<String>,
    /// The stage of the failure: `decode`, `schema`, `handler`, `timeout`, `panic`, `inbox` or
    /// `skipped` for this library, or Connect's stage.
    pub stage: Option<String>,
    /// The message of the error. None also if a dead letter of this library was shortened to fit
    /// its topic.
    pub message: Option<String>,
    /// The number of attempts, as its writer counts them: for this library those of the last
    /// delivery, whatever the class of their failures.
    pub attempts: Option<u32>,
    /// When the record failed for the first time, as far as replays have kept it, or otherwise when
    /// it was dead-lettered.
    pub first_failure: Option<Timestamp>,
    /// When the record was dead-lettered.
    pub last_failure: Option<Timestamp>,
    /// The service that dead-lettered the record.
    pub service: Option<String>,
    /// The process of the service.
    pub instance: Option<String>,
    /// How often the record was replayed before. 0 also if the header cannot be read.
    pub replay_count: u32,
    /// Whether the value is missing, because the record was too large for the dead-letter topic.
    /// The original record has it, while its topic keeps it: see
    /// [`restored`](crate::recovery::restored).
    pub is_reference: bool,
    /// Whether its writer copied none of the record's headers, and possibly neither key nor value:
    /// Kafka's share groups. The original record has them, while its topic keeps it.
    pub is_bare: bool,
}

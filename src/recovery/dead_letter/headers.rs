//! The headers of dead letters and of their replays.

use crate::event::{Headers, HeadersIter, Record};
use jiff::Timestamp;

pub(crate) const TOPIC: &str = "__dlq.errors.topic";
pub(crate) const PARTITION: &str = "__dlq.errors.partition";
pub(crate) const OFFSET: &str = "__dlq.errors.offset";
pub(crate) const GROUP: &str = "__dlq.errors.group";
pub(crate) const DELIVERY_COUNT: &str = "__dlq.errors.delivery.count";
pub(crate) const MESSAGE: &str = "__dlq.errors.message";
pub(crate) const CLASS: &str = "evenkeel.dlq.error.class";
pub(crate) const STAGE: &str = "evenkeel.dlq.error.stage";
pub(crate) const TIMESTAMP: &str = "evenkeel.dlq.error.timestamp";
pub(crate) const SERVICE: &str = "evenkeel.dlq.error.service";
pub(crate) const INSTANCE: &str = "evenkeel.dlq.error.instance";
pub(crate) const RECORD_TIMESTAMP: &str = "evenkeel.dlq.record.timestamp";
pub(crate) const REFERENCE: &str = "evenkeel.dlq.reference";
pub(crate) const SKIPPED_BY: &str = "evenkeel.dlq.skipped-by";
pub(crate) const SKIPPED_WHY: &str = "evenkeel.dlq.skipped-why";
pub(crate) const SKIP_COMMAND: &str = "evenkeel.dlq.skip-command";

/// When the record failed for the first time, according to an earlier dead letter or its replay.
/// None if the header is no time or in the future, since anyone may have written it.
pub(crate) fn known_first_failure(record: &Record, now: Timestamp) -> Option<Timestamp> {
    let value = record.headers().last_value(FIRST_FAILURE)?;
    let time: Timestamp = std::str::from_utf8(value).ok()?.parse().ok()?;
    (time <= now).then_some(time)
}

/// The timestamp of the original record in milliseconds since the epoch, according to the headers
/// of its dead letter. None if the dead letter does not report it.
pub fn record_timestamp_ms(dead_letter: &Headers) -> Option<i64> {
    let text = dead_letter.last(RECORD_TIMESTAMP)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(crate) const REPLAY_COUNT: &str = "evenkeel.dlq.replay-count";
pub(crate) const REPLAY_OF: &str = "evenkeel.dlq.replay-of";
pub(crate) const REPLAYED_BY: &str = "evenkeel.dlq.replayed-by";
pub(crate) const REPLAYED_AT: &str = "evenkeel.dlq.replayed-at";
pub(crate) const FIRST_FAILURE: &str = "evenkeel.dlq.first-failure";
pub(crate) const EDITED: &str = "evenkeel.dlq.edited";

/// Whether an operator edited the record before its replay: its key, value or headers may differ
/// from those of the original record.
pub fn is_edited(headers: HeadersIter<'_>) -> bool {
    headers.last_value(EDITED) == Some(b"true")
}

/// The prefixes of failure headers, and of those that an earlier replay added.
///
/// Spring's count of attempts is among them: with it, a replayed record would have no attempts
/// left. So is the exception of Spring's deserialisers: a listener that finds it in a record fails
/// again, whatever the record contains.
pub(crate) const FAILURE_PREFIXES: &[&str] = &[
    "__dlq.",
    "evenkeel.dlq.",
    "__streams.errors.",
    "__connect.errors.",
    "kafka_dlt-",
    "kafka_original-",
    "kafka_exception-",
    "kafka_key-exception-",
    "kafka_deliveryAttempt",
    "retry_topic-",
    "springDeserializerException",
];

/// Whether a header describes a failure or a replay, whichever system wrote the record.
pub(crate) fn is_failure_header(name: &[u8]) -> bool {
    let mut prefixes = FAILURE_PREFIXES.iter();
    prefixes.any(|prefix| name.starts_with(prefix.as_bytes()))
}

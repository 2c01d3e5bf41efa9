//! The headers of dead letters and of their replays.
//!
//! Names and values are a wire format: tools and other groups read them, and dead letters are kept
//! for months. A name never changes its meaning; a new fact gets a new name.

use crate::event::{Headers, HeadersIter, Record};
use jiff::Timestamp;

/// The topic on which the record failed. This name and the next five are those of KIP-1191.
pub(crate) const TOPIC: &str = "__dlq.errors.topic";
/// The partition of the record in that topic, as decimal text.
pub(crate) const PARTITION: &str = "__dlq.errors.partition";
/// The offset of the record in that partition, as decimal text.
pub(crate) const OFFSET: &str = "__dlq.errors.offset";
/// The group that dead-lettered the record.
pub(crate) const GROUP: &str = "__dlq.errors.group";
/// The attempts of the last delivery, whatever the class of their failures.
pub(crate) const DELIVERY_COUNT: &str = "__dlq.errors.delivery.count";
/// The message of the last error, cut. Empty in a shortened dead letter.
pub(crate) const MESSAGE: &str = "__dlq.errors.message";
/// The class of the last error: `transient`, `timeout` or `permanent`. An outage ends in none.
pub(crate) const CLASS: &str = "evenkeel.dlq.error.class";
/// The stage of the last error: [`Stage::as_str`](crate::failure::Stage::as_str).
pub(crate) const STAGE: &str = "evenkeel.dlq.error.stage";
/// When the record was dead-lettered, in RFC 3339.
pub(crate) const TIMESTAMP: &str = "evenkeel.dlq.error.timestamp";
/// The client id of the service.
pub(crate) const SERVICE: &str = "evenkeel.dlq.error.service";
/// The process: `instance_id`, or host and process id.
pub(crate) const INSTANCE: &str = "evenkeel.dlq.error.instance";
/// The record's own timestamp, in milliseconds since the epoch. Absent without one.
pub(crate) const RECORD_TIMESTAMP: &str = "evenkeel.dlq.record.timestamp";
/// `true` in a dead letter without its value.
pub(crate) const REFERENCE: &str = "evenkeel.dlq.reference";
/// The operator who skipped the record.
pub(crate) const SKIPPED_BY: &str = "evenkeel.dlq.skipped-by";
/// The operator's reason.
pub(crate) const SKIPPED_WHY: &str = "evenkeel.dlq.skipped-why";
/// The id of the command that skipped the record.
pub(crate) const SKIP_COMMAND: &str = "evenkeel.dlq.skip-command";

/// When the record failed for the first time, according to an earlier dead letter or its replay.
/// None if the header is no time or in the future, since anyone may have written it. Survives
/// replays, so that the age of a failure does not begin anew with each of them.
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

/// How often the record was replayed.
pub(crate) const REPLAY_COUNT: &str = "evenkeel.dlq.replay-count";
/// The position of the dead letter that was replayed, as `TOPIC/PARTITION@OFFSET`. It identifies
/// the replay: a killed run is completed by it.
pub(crate) const REPLAY_OF: &str = "evenkeel.dlq.replay-of";
/// The operator of the last replay.
pub(crate) const REPLAYED_BY: &str = "evenkeel.dlq.replayed-by";
/// The time of the last replay, in RFC 3339.
pub(crate) const REPLAYED_AT: &str = "evenkeel.dlq.replayed-at";
/// When the record failed for the first time, in RFC 3339. Kept by replays.
pub(crate) const FIRST_FAILURE: &str = "evenkeel.dlq.first-failure";
/// `true` in the replay of a dead letter that may have been edited.
pub(crate) const EDITED: &str = "evenkeel.dlq.edited";

/// Whether a record is an edited replay: its key, value or headers may differ from those of the
/// original. The inbox then does not compare its content with that of the event of the same id.
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

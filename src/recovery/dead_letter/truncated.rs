//! Completes a dead letter with the missing parts of its record. Pure.
//!
//! A reference of this library lacks the value. A dead letter of Kafka's share groups (KIP-1191)
//! lacks the record's headers, and without `errors.deadletterqueue.copy.record.enable` also key and
//! value.

use super::failure_headers::is_failure_header;
use crate::event::Headers;
use crate::kafka::reader::LogRecord;
use crate::recovery::DeadLetter;

/// Why a record is not the original of a reference. A retry does not help: the dead letter cannot
/// be completed with this record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotTheOriginal {
    /// The record is at another position than the dead letter names: the caller looked up the wrong
    /// one.
    #[error("the record is at another position than the dead letter names")]
    Position,
    /// The record has another key, value or time, or is younger than the dead letter: the topic was
    /// deleted and recreated. The original is lost.
    #[error("another record is at its offset now: the topic was deleted and recreated")]
    Identity,
}

/// Whether a dead letter is useless without its original: a reference, or the headers of the
/// failure alone. `failure` is what [`DeadLetter::read`] returned for the same record.
pub fn is_empty_without_original(dead_letter: &LogRecord, failure: &DeadLetter) -> bool {
    failure.is_reference
        || (failure.is_bare && dead_letter.key.is_none() && dead_letter.value.is_none())
}

/// Whether this record is the original, according to the dead letter. A reference has the key and
/// the time of its record; headers alone have neither, so only a record that is younger than the
/// dead letter is recognised as another one; a copy has key and value.
fn is_original(dead_letter: &LogRecord, failure: &DeadLetter, original: &LogRecord) -> bool {
    use super::failure_headers::RECORD_TIMESTAMP;
    if failure.is_reference {
        let time = original.timestamp_ms.map(|ms| ms.to_string());
        let time = time.as_deref().map(str::as_bytes);
        return dead_letter.key == original.key
            && dead_letter.headers.last(RECORD_TIMESTAMP) == time;
    }
    if is_empty_without_original(dead_letter, failure) {
        // The brokers write the time of the dead letter into it.
        return match (original.timestamp_ms, dead_letter.timestamp_ms) {
            (Some(original), Some(dead_letter)) => original <= dead_letter,
            _ => true,
        };
    }
    (&dead_letter.key, &dead_letter.value) == (&original.key, &original.value)
}

/// Completes the dead letter with the key, the value and the headers of its original, and keeps the
/// headers of the failure. The result is no reference any more, so that it can be edited and
/// replayed. Topic, partition and offset stay those of the dead letter.
///
/// # Errors
/// If `original` is not the original of `reference`, by its position or its content.
///
/// ```
/// use evenkeel::kafka::reader::LogRecord;
/// use evenkeel::recovery::{NotTheOriginal, restored};
///
/// /// The dead letter with its value, if the topic still has it.
/// fn complete(reference: LogRecord, found: LogRecord) -> Option<LogRecord> {
///     match restored(reference, found) {
///         Ok(dead_letter) => Some(dead_letter),
///         Err(reason @ NotTheOriginal::Identity) => {
///             eprintln!("the value is lost: {reason}");
///             None
///         }
///         Err(_) => None,
///     }
/// }
/// ```
pub fn restored(reference: LogRecord, original: LogRecord) -> Result<LogRecord, NotTheOriginal> {
    use super::failure_headers::REFERENCE;
    let failure = DeadLetter::read(reference.headers.iter());
    if failure.topic.as_deref() != Some(&original.topic)
        || failure.partition != Some(original.partition)
        || failure.offset != Some(original.offset)
    {
        return Err(NotTheOriginal::Position);
    }
    if !is_original(&reference, &failure, &original) {
        return Err(NotTheOriginal::Identity);
    }
    let own = original.headers.iter();
    let own = own.filter(|(name, _)| !is_failure_header(name));
    let about_failure = reference.headers.iter();
    let about_failure =
        about_failure.filter(|(name, _)| is_failure_header(name) && *name != REFERENCE.as_bytes());
    let headers: Headers = own.chain(about_failure).collect();
    Ok(LogRecord {
        key: original.key,
        value: original.value,
        headers,
        ..reference
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::reader::TimestampKind;

    fn record(topic: &str, offset: i64, headers: &[(&str, &str)]) -> LogRecord {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())));
        LogRecord {
            topic: topic.into(),
            partition: 3,
            offset,
            timestamp_kind: TimestampKind::Create,
            timestamp_ms: Some(1_000),
            key: Some(b"k".to_vec()),
            value: None,
            headers: headers.collect(),
        }
    }

    fn reference() -> LogRecord {
        LogRecord {
            timestamp_ms: Some(2_000),
            ..record(
                "dlq.payments.orders",
                7,
                &[
                    ("ce_id", "1"),
                    ("__dlq.errors.topic", "orders"),
                    ("__dlq.errors.partition", "3"),
                    ("__dlq.errors.offset", "42"),
                    ("evenkeel.dlq.record.timestamp", "1000"),
                    ("evenkeel.dlq.reference", "true"),
                ],
            )
        }
    }

    fn original() -> LogRecord {
        LogRecord {
            value: Some(b"whole".to_vec()),
            ..record(
                "orders",
                42,
                &[
                    ("ce_id", "1"),
                    ("large", "x"),
                    ("evenkeel.dlq.reference", "forged"),
                ],
            )
        }
    }

    #[test]
    fn it_is_the_dead_letter_with_what_the_original_held() {
        let whole = restored(reference(), original()).expect("the original");
        assert_eq!(
            (&*whole.topic, whole.offset, whole.timestamp_ms),
            ("dlq.payments.orders", 7, Some(2_000))
        );
        assert_eq!(whole.value.as_deref(), Some(&b"whole"[..]));
        let names: Vec<&[u8]> = whole.headers.iter().map(|(name, _)| name).collect();
        let expected = [
            "ce_id",
            "large",
            "__dlq.errors.topic",
            "__dlq.errors.partition",
            "__dlq.errors.offset",
            "evenkeel.dlq.record.timestamp",
        ];
        assert_eq!(names, expected.map(str::as_bytes));
        assert!(!DeadLetter::read(whole.headers.iter()).is_reference);
    }

    #[test]
    fn another_record_is_not_taken_for_it() {
        let check = |change: &dyn Fn(&mut LogRecord), expected| {
            let mut other = original();
            change(&mut other);
            assert_eq!(restored(reference(), other), Err(expected));
        };
        check(&|other| other.offset = 43, NotTheOriginal::Position);
        check(&|other| other.partition = 4, NotTheOriginal::Position);
        check(
            &|other| other.topic = "returns".into(),
            NotTheOriginal::Position,
        );
        check(
            &|other| other.timestamp_ms = Some(1_001),
            NotTheOriginal::Identity,
        );
        check(&|other| other.key = None, NotTheOriginal::Identity);
    }

    /// A dead letter as Kafka's share groups write it, of the same original.
    fn bare(content: Option<&[u8]>) -> LogRecord {
        let mut bare = reference();
        bare.headers = bare
            .headers
            .iter()
            .filter(|(name, _)| name.starts_with(b"__dlq.errors."))
            .collect();
        (bare.key, bare.value) = (content.map(|_| b"k".to_vec()), content.map(<[u8]>::to_vec));
        bare
    }

    #[test]
    fn a_bare_dead_letter_is_completed_from_its_original() {
        for dead_letter in [bare(None), bare(Some(b"whole"))] {
            let whole = restored(dead_letter, original()).expect("the original");
            assert_eq!((whole.key, whole.value), (original().key, original().value));
            assert_eq!(whole.headers.last("ce_id"), Some(&b"1"[..]));
            assert_eq!(whole.headers.last("__dlq.errors.offset"), Some(&b"42"[..]));
        }
        assert_eq!(
            restored(bare(Some(b"other")), original()),
            Err(NotTheOriginal::Identity)
        );
        // A record that is younger than the dead letter is not its original.
        let younger = LogRecord {
            timestamp_ms: Some(2_001),
            ..original()
        };
        assert_eq!(restored(bare(None), younger), Err(NotTheOriginal::Identity));
    }

    #[test]
    fn only_a_dead_letter_without_content_needs_its_original() {
        let check = |dead_letter: LogRecord, expected| {
            let failure = DeadLetter::read(dead_letter.headers.iter());
            assert_eq!(is_empty_without_original(&dead_letter, &failure), expected);
        };
        check(reference(), true);
        check(bare(None), true);
        check(bare(Some(b"whole")), false);
        check(original(), false);
    }
}

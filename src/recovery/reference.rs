//! A dead letter that only refers to its record, made whole again from the record itself. Pure.

use super::{DeadLetter, is_failure_header};
use crate::event::Headers;
use crate::kafka::reader::LogRecord;

/// Why a record is not the one that a reference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotTheOriginal {
    /// It stands elsewhere.
    #[error("it stands elsewhere")]
    Position,
    /// It has another key or another time: the topic was deleted and made anew.
    #[error("another record stands there now, its topic was made anew")]
    Identity,
}

/// The letter with the value and the headers of its original, and what the reference says about the failure. It refers to
/// nothing any more, so that it can be edited and replayed.
///
/// # Errors
/// When `original` is not the record that `reference` means.
pub fn restored(reference: LogRecord, original: LogRecord) -> Result<LogRecord, NotTheOriginal> {
    use super::dead_letter::{RECORD_TIMESTAMP, REFERENCE};
    let failure = DeadLetter::read(reference.headers.iter());
    if failure.topic.as_deref() != Some(&original.topic)
        || failure.partition != Some(original.partition)
        || failure.offset != Some(original.offset)
    {
        return Err(NotTheOriginal::Position);
    }
    let time = original.timestamp_ms.map(|ms| ms.to_string());
    if reference.key != original.key
        || reference.headers.last(RECORD_TIMESTAMP) != time.as_deref().map(str::as_bytes)
    {
        return Err(NotTheOriginal::Identity);
    }
    let own = original.headers.iter();
    let own = own.filter(|(name, _)| !is_failure_header(name));
    let about_failure = reference.headers.iter();
    let about_failure =
        about_failure.filter(|(name, _)| is_failure_header(name) && *name != REFERENCE.as_bytes());
    let headers: Headers = own.chain(about_failure).collect();
    Ok(LogRecord {
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
    fn it_is_the_letter_with_what_the_original_held() {
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
}

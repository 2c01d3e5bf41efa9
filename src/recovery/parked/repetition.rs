//! The repetitions of a drill: settled events that are delivered to their group once more, and the
//! group's answers.
//!
//! A repetition is written to the group's own retry topic, so that no other group receives it,
//! behind the waiting records of its key. It takes no held place. A member handles it like any
//! parked record, and then notes in the same partition how it was settled. So the group itself
//! reports to the drill whether it recognised the event as a duplicate, whatever its store.

use super::entry::{Owner, Values};
use super::entry_headers::{ANSWER, KIND, OF, OFFSET, PREFIX, retry_topic};
use super::write::{note, push_place};
use crate::event::{Headers, HeadersIter, OutgoingRecord, Record};
use crate::kafka::reader::LogRecord;
use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;

/// The kind of a repetition.
const REPETITION: &[u8] = b"repetition";
/// In an answer: how the repetition was settled, as [`RepetitionOutcome`] in text.
const OUTCOME: &str = "evenkeel.parked.outcome";
/// The id of the drill.
const DRILL: &str = "evenkeel.parked.drill";
/// The operator who runs the drill.
const BY: &str = "evenkeel.parked.by";
/// When the drill began, in RFC 3339.
const AT: &str = "evenkeel.parked.at";

/// The drill that repeats events. Written into each repetition, so that members, operators and the
/// drill itself recognise it.
#[derive(Debug, Clone)]
pub struct Drill {
    /// The id that distinguishes its repetitions from those of other drills.
    pub id: String,
    /// The operator who runs it.
    pub by: String,
    /// When it began.
    pub at: Timestamp,
}

/// How a repetition was settled. A member writes it as text into its answer; a drill reads it.
///
/// ```
/// use evenkeel::recovery::RepetitionOutcome;
///
/// assert_eq!("duplicate".parse::<RepetitionOutcome>(), Ok(RepetitionOutcome::Duplicate));
/// assert_eq!(RepetitionOutcome::Done.to_string(), "done");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RepetitionOutcome {
    /// The inbox recognised it, and no handler was called: the event's handler is idempotent.
    Duplicate,
    /// A handler was called again, and succeeded: its effect exists twice, unless the handler
    /// itself tolerates that.
    Done,
    /// No handler accepts its type.
    Ignored,
    /// It became a dead letter.
    Dead,
    /// An operator skipped it.
    Skipped,
}

impl RepetitionOutcome {
    /// All outcomes that this version knows. A newer member may answer with others.
    const ALL: [Self; 5] = [
        Self::Duplicate,
        Self::Done,
        Self::Ignored,
        Self::Dead,
        Self::Skipped,
    ];

    /// The outcome in the header of an answer.
    fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Done => "done",
            Self::Ignored => "ignored",
            Self::Dead => "dead",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for RepetitionOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RepetitionOutcome {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|outcome| outcome.as_str() == text).ok_or(())
    }
}

/// Creates the record that delivers `record` to `group` once more, for a drill. Its key, value and
/// headers, including the event's id, are those of `record`, and the handler sees the same event at
/// the same position.
///
/// The record goes to the partition of the same number of the group's retry topic: the caller makes
/// sure that it exists, and that the group has settled `record`. A repetition of an unsettled
/// record would have its effect before the record itself.
///
/// ```
/// use evenkeel::kafka::reader::LogRecord;
/// use evenkeel::recovery::{Drill, repetition, repetition_of};
///
/// # fn example(record: LogRecord, drill: Drill) {
/// let offset = record.offset;
/// let repeated = repetition("payments", record, &drill);
/// assert_eq!(repetition_of(repeated.headers.iter()), Some((&*drill.id, offset)));
/// # }
/// ```
pub fn repetition(group: &str, record: LogRecord, drill: &Drill) -> OutgoingRecord {
    let own = record.headers.iter();
    let mut headers: Headers = own.filter(|(name, _)| !name.starts_with(PREFIX)).collect();
    headers.push(KIND, Some(REPETITION));
    push_place(&mut headers, Some(record.offset), record.timestamp_ms);
    headers.push(DRILL, Some(drill.id.as_bytes()));
    headers.push(BY, Some(drill.by.as_bytes()));
    headers.push(AT, Some(drill.at.to_string().as_bytes()));
    let topic = &record.topic;
    Owner { group, topic }.push(&mut headers);
    OutgoingRecord {
        topic: retry_topic(group, &record.topic),
        partition: Some(record.partition),
        key: record.key.map(Into::into),
        value: record.value.map(Into::into),
        headers,
        timestamp_ms: None,
    }
}

/// The id of the drill that a record in a retry topic belongs to, and the source offset of the
/// repeated record. None for any other record.
pub fn repetition_of(headers: HeadersIter<'_>) -> Option<(&str, i64)> {
    let values = Values(headers.clone());
    let drill = headers.clone().last_value(DRILL)?;
    let drill = std::str::from_utf8(drill).ok()?;
    is_repetition(headers).then(|| Some((drill, values.number(OFFSET)?)))?
}

/// A member's answer for the repetition at an offset of this partition of the retry topic. None for
/// any other record, and for an outcome that this version does not know.
pub fn repetition_answer(headers: HeadersIter<'_>) -> Option<(i64, RepetitionOutcome)> {
    let values = Values(headers);
    let text = |name| std::str::from_utf8(values.0.clone().last_value(name)?).ok();
    if values.0.clone().last_value(KIND) != Some(ANSWER) {
        return None;
    }
    Some((values.number(OF)?, text(OUTCOME)?.parse().ok()?))
}

/// Whether a record in a retry topic is a repetition.
pub(crate) fn is_repetition<'h>(
    headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)>,
) -> bool {
    let kinds = headers.filter(|(name, _)| *name == KIND.as_bytes());
    kinds
        .last()
        .is_some_and(|(_, kind)| kind == Some(REPETITION))
}

/// Creates the answer for the repetition at `retry_offset` of the retry topic.
pub(crate) fn answer(
    group: &str,
    record: &Record,
    retry_offset: i64,
    outcome: RepetitionOutcome,
) -> OutgoingRecord {
    let mut headers = Headers::new();
    headers.push(KIND, Some(ANSWER));
    headers.push(OF, Some(retry_offset.to_string().as_bytes()));
    headers.push(OUTCOME, Some(outcome.as_str().as_bytes()));
    note(group, record, headers)
}

#[cfg(test)]
mod tests {
    use super::super::{RetryState, RetryTopicEntry, Stored, restored};
    use super::*;
    use crate::kafka::reader::TimestampKind;

    const OWNER: Owner<'_> = Owner {
        group: "g",
        topic: "orders",
    };

    fn drill() -> Drill {
        Drill {
            id: "d1".to_owned(),
            by: "ada".to_owned(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    fn settled(headers: &[(&str, &str)]) -> LogRecord {
        let headers = headers.iter();
        LogRecord {
            topic: "orders".into(),
            partition: 3,
            offset: 42,
            timestamp_kind: TimestampKind::Create,
            timestamp_ms: Some(1_700),
            key: Some(b"k".to_vec()),
            value: Some(b"v".to_vec()),
            headers: headers
                .map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())))
                .collect(),
        }
    }

    fn handled(written: &OutgoingRecord) -> Record {
        let stored = Stored {
            partition: 3,
            offset: 900,
            timestamp_ms: 1,
            key: written.key.as_deref(),
            value: written.value.as_deref(),
        };
        let headers = written.headers.iter();
        restored(&"orders".into(), stored, headers, None).expect("a record")
    }

    #[test]
    fn a_repetition_equals_its_record_and_takes_no_held_place() {
        let own = [("ce_id", "1"), ("evenkeel.parked.not-before", "9999999999")];
        let written = repetition("g", settled(&own), &drill());
        assert_eq!(
            (&*written.topic, written.partition, written.timestamp_ms),
            ("retry.g.orders", Some(3), None)
        );
        assert_eq!(repetition_of(written.headers.iter()), Some(("d1", 42)));
        let entry = RetryTopicEntry::Parked {
            source_offset: Some(42),
            wait: RetryState::default(),
            is_replay: false,
        };
        assert_eq!(RetryTopicEntry::read(written.headers.iter(), OWNER), entry);
        let record = handled(&written);
        assert_eq!((record.offset(), record.timestamp_ms()), (42, Some(1_700)));
        let seen: Vec<_> = record.headers().collect();
        assert_eq!(seen, [(&b"ce_id"[..], Some(&b"1"[..]))]);
    }

    #[test]
    fn an_answer_is_read_back_and_makes_nothing_wait() {
        let record = handled(&repetition("g", settled(&[]), &drill()));
        for outcome in RepetitionOutcome::ALL {
            let told = answer("g", &record, 900, outcome);
            assert_eq!((&*told.topic, told.partition), ("retry.g.orders", Some(3)));
            assert_eq!(repetition_answer(told.headers.iter()), Some((900, outcome)));
            assert_eq!(
                RetryTopicEntry::read(told.headers.iter(), OWNER),
                RetryTopicEntry::Unknown
            );
            assert_eq!(repetition_of(told.headers.iter()), None);
        }
    }

    #[test]
    fn a_malformed_answer_is_ignored() {
        let check = |headers: &[(&str, &str)]| {
            let record = settled(headers);
            assert_eq!(
                repetition_answer(record.headers.iter()),
                None,
                "{headers:?}"
            );
        };
        check(&[]);
        check(&[(OF, "1"), (OUTCOME, "duplicate")]);
        check(&[(KIND, "repetition"), (OF, "1"), (OUTCOME, "duplicate")]);
        check(&[(KIND, "repeated"), (OF, "-1"), (OUTCOME, "duplicate")]);
        check(&[(KIND, "repeated"), (OF, "1"), (OUTCOME, "fine")]);
        check(&[(KIND, "repeated"), (OUTCOME, "done")]);
    }
}

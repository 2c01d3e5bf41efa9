//! Creates the replay of a dead letter: the original record, with headers about the replay instead
//! of the failure.
//!
//! Pure. Owns the headers of a replay. Key, value and all other headers stay byte for byte and in
//! order, including the event's id: by it the inbox of a consumer recognises an event that has
//! already had its effect.
//!
//! A record that fails again becomes a dead letter again, which keeps these headers: only those of
//! the failure are replaced. So the count grows with each replay, and the time of the first failure
//! is kept.
//!
//! | destination | who handles it | order |
//! |---|---|---|
//! | retry topic | the group that dead-lettered it | in its held place, or behind those parked |
//! | source topic | all groups of the topic | behind all records of its key |
//! | another topic | its readers | as its key says |

use super::dead_letter::{
    EDITED, FIRST_FAILURE, REPLAY_COUNT, REPLAY_OF, REPLAYED_AT, REPLAYED_BY, is_edited,
    record_timestamp_ms,
};
use super::parked::{Owner, is_parking_header, push_replay_origin};
use super::{DeadLetter, retry_topic};
use crate::event::{Headers, OutgoingRecord};
use crate::kafka::RecordPosition;
use crate::kafka::reader::LogRecord;
use jiff::Timestamp;

/// Who replays a dead letter, and when. Written into the replayed record, and kept if it fails
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provenance<'a> {
    /// The operator.
    pub by: &'a str,
    /// The time of the replay.
    pub at: Timestamp,
    /// Whether the dead letter may have been edited before. An inbox then accepts the record as the
    /// failed event, whatever its content. A dead letter that was edited once stays marked.
    pub edited: bool,
}

/// The destination of a replayed record.
///
/// ```
/// use evenkeel::event::Headers;
/// use evenkeel::recovery::{DeadLetter, Destination};
///
/// let mut headers = Headers::new();
/// for (name, value) in [("topic", "shop.orders"), ("partition", "2"), ("group", "payments")] {
///     headers.push(&format!("__dlq.errors.{name}"), Some(value.as_bytes()));
/// }
/// let failure = DeadLetter::read(headers.iter());
/// let retry = Destination::retry(&failure, |_topic| 3).expect("it names group and topic");
/// assert_eq!((retry.topic.as_str(), retry.partition), ("retry.payments.shop.orders", Some(2)));
/// assert_eq!(Destination::retry(&failure, |_topic| 0), None, "the topic does not exist");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The topic.
    pub topic: String,
    /// The partition. None lets the key decide.
    pub partition: Option<i32>,
    /// Whether the topic is a retry topic, whose records only its group handles. The replay then
    /// names its owner and source offset, by which it takes the place that was held for it.
    pub is_retry: bool,
}

impl Destination {
    /// The source topic of the record. None if the dead letter does not name it, as those of
    /// Laravel Kafka.
    ///
    /// The record keeps its partition, among the records of its key, if the topic still has it
    /// (`partitions` returns their number, 0 for a topic that does not exist). All groups that read
    /// the topic receive the record; those that have handled it recognise it by its id if they use
    /// an inbox.
    pub fn source(dead_letter: &DeadLetter, partitions: impl Fn(&str) -> usize) -> Option<Self> {
        let topic = dead_letter.topic.clone()?;
        let count = partitions(&topic);
        let exists = |number: &i32| usize::try_from(*number).is_ok_and(|number| number < count);
        let partition = dead_letter.partition.filter(exists);
        Some(Self {
            topic,
            partition,
            is_retry: false,
        })
    }

    /// The retry topic of the group that dead-lettered the record. None if the dead letter does not
    /// name the group, or the retry topic has no such partition.
    ///
    /// Only this group handles the record, behind the other parked records of its key, or in the
    /// place that was held for it. `partitions` returns the number of a topic's partitions, 0 for a
    /// topic that does not exist.
    pub fn retry(dead_letter: &DeadLetter, partitions: impl Fn(&str) -> usize) -> Option<Self> {
        let topic = retry_topic(dead_letter.group.as_ref()?, dead_letter.topic.as_ref()?);
        let count = partitions(&topic);
        let exists = |number: &i32| usize::try_from(*number).is_ok_and(|number| number < count);
        Some(Self {
            partition: Some(dead_letter.partition.filter(exists)?),
            topic,
            is_retry: true,
        })
    }
}

/// Creates the record that a replay of the dead letter publishes.
///
/// Its timestamp is the time of the replay, not that of the failed record: retention counts from a
/// record's timestamp. A dead letter without its value ([`DeadLetter::is_reference`]) must be
/// completed first ([`restored`](super::restored)): a record without a value would be published.
///
/// The caller marks the dead letter as replayed ([`ReplayLog`](super::ReplayLog)) after the brokers
/// acknowledged the record.
///
/// ```
/// use evenkeel::event::OutgoingRecord;
/// use evenkeel::kafka::reader::LogRecord;
/// use evenkeel::recovery::{DeadLetter, Destination, Provenance, replayed};
///
/// fn to_source(
///     dead_letter: LogRecord,
///     provenance: &Provenance<'_>,
///     partitions: usize,
/// ) -> Option<OutgoingRecord> {
///     let failure = DeadLetter::read(dead_letter.headers.iter());
///     let to = Destination::source(&failure, |_topic| partitions)?;
///     Some(replayed(dead_letter, to, provenance))
/// }
/// ```
pub fn replayed(
    dead_letter: LogRecord,
    to: Destination,
    provenance: &Provenance<'_>,
) -> OutgoingRecord {
    let failure = DeadLetter::read(dead_letter.headers.iter());
    let edited = provenance.edited || is_edited(dead_letter.headers.iter());
    let mut headers: Headers = dead_letter
        .headers
        .iter()
        .filter(|(name, _)| !failure.is_failure_header(name) && !is_parking_header(name))
        .collect();
    let position = RecordPosition {
        topic: dead_letter.topic.to_string(),
        partition: dead_letter.partition,
        offset: dead_letter.offset,
    };
    let mut add = |name, value: &str| headers.push(name, Some(value.as_bytes()));
    add(
        REPLAY_COUNT,
        &failure.replay_count.saturating_add(1).to_string(),
    );
    add(REPLAY_OF, &position.to_string());
    add(REPLAYED_BY, provenance.by);
    add(REPLAYED_AT, &provenance.at.to_string());
    if let Some(first) = failure.first_failure {
        add(FIRST_FAILURE, &first.to_string());
    }
    if edited {
        add(EDITED, "true");
    }
    if to.is_retry
        && let (Some(group), Some(topic)) = (&failure.group, &failure.topic)
    {
        let timestamp_ms = record_timestamp_ms(&dead_letter.headers);
        let owner = Owner { group, topic };
        push_replay_origin(&mut headers, owner, failure.offset, timestamp_ms);
    }
    let original_key = failure.original_key(dead_letter.headers.iter(), dead_letter.key.as_deref());
    let original_key = original_key.map(<[u8]>::to_vec);
    // If the record had no key, the header with the key is empty.
    let key = match original_key {
        Some(key) if key.is_empty() => None,
        Some(key) => Some(key),
        None => dead_letter.key,
    };
    OutgoingRecord {
        topic: to.topic,
        partition: to.partition,
        key: key.map(Into::into),
        value: dead_letter.value.map(Into::into),
        headers,
        timestamp_ms: None,
    }
}

/// The dead letter of which a record is the replay, with the operator and the time. None for any
/// other record.
///
/// A dead letter of a replayed record still has these headers, but is no replay. A run that was
/// killed is completed with this function: the records that it published name their dead letters.
///
/// ```
/// use evenkeel::event::Headers;
/// use evenkeel::recovery::replay_of;
///
/// let mut headers = Headers::new();
/// for (name, value) in [
///     ("evenkeel.dlq.replay-of", "dlq.payments.shop.orders/2@17"),
///     ("evenkeel.dlq.replayed-by", "jane"),
///     ("evenkeel.dlq.replayed-at", "2026-05-01T12:00:00Z"),
/// ] {
///     headers.push(name, Some(value.as_bytes()));
/// }
/// let (dead_letter, by, _at) = replay_of(&headers).expect("it is a replay");
/// assert_eq!((dead_letter.offset, by.as_str()), (17, "jane"));
/// ```
pub fn replay_of(headers: &Headers) -> Option<(RecordPosition, String, Timestamp)> {
    let text = |name| {
        headers
            .last(name)
            .and_then(|value| std::str::from_utf8(value).ok())
    };
    let position = text(REPLAY_OF)?.parse().ok()?;
    if DeadLetter::read(headers.iter()).family.is_some() {
        return None;
    }
    let by = text(REPLAYED_BY)?.to_owned();
    Some((position, by, text(REPLAYED_AT)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::reader::TimestampKind;
    use crate::recovery::{RetryState, RetryTopicEntry};

    type Header<'a> = (&'a [u8], Option<&'a [u8]>);

    const AT: &str = "2026-11-21T12:00:00Z";

    fn dead_letter(headers: &[Header<'_>]) -> LogRecord {
        LogRecord {
            topic: "dlq.payments.orders".into(),
            partition: 3,
            offset: 42,
            timestamp_kind: TimestampKind::Create,
            timestamp_ms: Some(1),
            key: Some(vec![0, 0xff]),
            value: Some(vec![0xc3, 0x28]),
            headers: headers.iter().copied().collect(),
        }
    }

    fn replay(headers: &[Header<'_>], edited: bool) -> OutgoingRecord {
        let provenance = Provenance {
            by: "ada",
            at: AT.parse().expect("a timestamp"),
            edited,
        };
        let to = Destination {
            topic: "orders".to_owned(),
            partition: Some(3),
            is_retry: false,
        };
        replayed(dead_letter(headers), to, &provenance)
    }

    #[test]
    fn a_replay_to_a_retry_topic_keeps_its_source_position() {
        let letter_headers: [Header<'_>; 6] = [
            (b"ce_id", Some(b"1")),
            (b"__dlq.errors.topic", Some(b"orders")),
            (b"__dlq.errors.partition", Some(b"3")),
            (b"__dlq.errors.offset", Some(b"17")),
            (b"__dlq.errors.group", Some(b"payments")),
            (b"evenkeel.dlq.record.timestamp", Some(b"1700")),
        ];
        let dead_letter = dead_letter(&letter_headers);
        let failure = DeadLetter::read(dead_letter.headers.iter());
        assert_eq!(Destination::retry(&failure, |_| 3), None);
        let to = Destination::retry(&failure, |_| 4).expect("the group has that partition");
        assert_eq!(
            (&*to.topic, to.partition),
            ("retry.payments.orders", Some(3))
        );
        let provenance = Provenance {
            by: "ada",
            at: AT.parse().expect("a timestamp"),
            edited: false,
        };
        let replay = replayed(dead_letter, to, &provenance);
        let entry = RetryTopicEntry::Parked {
            source_offset: Some(17),
            wait: RetryState::default(),
            is_replay: true,
        };
        let owner = |group| Owner {
            group,
            topic: "orders",
        };
        assert_eq!(
            RetryTopicEntry::read(replay.headers.iter(), owner("payments")),
            entry
        );
        assert_eq!(
            RetryTopicEntry::read(replay.headers.iter(), owner("p")),
            RetryTopicEntry::Foreign
        );
        assert_eq!(
            replay.headers.last("evenkeel.parked.timestamp"),
            Some(&b"1700"[..])
        );
    }

    /// Headers keep their order.
    #[test]
    fn everything_but_the_failure_stays_byte_for_byte() {
        let kept: [Header<'_>; 6] = [
            (b"ce_id", Some(b"1")),
            (b"\xff\xfe", Some(&[0, 0xff])),
            (b"absent", None),
            (b"empty", Some(&[])),
            (b"ce_id", Some(b"2")),
            (b"__dlqX", Some(b"a near miss")),
        ];
        let failure: [Header<'_>; 7] = [
            (b"__dlq.errors.topic", Some(b"orders")),
            (b"evenkeel.dlq.error.class", Some(b"permanent")),
            (b"evenkeel.dlq.anything", None),
            (b"__streams.errors.offset", Some(b"1")),
            (b"__connect.errors.stage", Some(b"TASK_PUT")),
            (b"kafka_dlt-original-offset", Some(&[0; 8])),
            (b"retry_topic-attempts", Some(&[0, 0, 0, 3])),
        ];
        let mixed: Vec<Header<'_>> = failure
            .into_iter()
            .zip(kept)
            .flat_map(|(f, k)| [f, k])
            .collect();
        let record = replay(&mixed, false);
        assert!(record.headers.iter().take(kept.len()).eq(kept));
        let added: Vec<&[u8]> = record
            .headers
            .iter()
            .skip(kept.len())
            .map(|(name, _)| name)
            .collect();
        let expected = [REPLAY_COUNT, REPLAY_OF, REPLAYED_BY, REPLAYED_AT].map(str::as_bytes);
        assert_eq!(added, expected);
        assert_eq!(record.key.as_deref(), Some(&[0, 0xff][..]));
        assert_eq!(record.value.as_deref(), Some(&[0xc3, 0x28][..]));
        assert_eq!(
            (record.topic.as_str(), record.partition),
            ("orders", Some(3))
        );
        assert_eq!(record.timestamp_ms, None);
    }

    #[test]
    fn headers_and_key_follow_the_dead_letters_family() {
        let check =
            |headers: &[Header<'_>], key: &[u8], expected_key: Option<&[u8]>, kept: &[&str]| {
                let mut dead_letter = dead_letter(headers);
                dead_letter.key = Some(key.to_vec());
                let to = Destination {
                    topic: "orders".to_owned(),
                    partition: None,
                    is_retry: false,
                };
                let provenance = Provenance {
                    by: "ada",
                    at: Timestamp::UNIX_EPOCH,
                    edited: false,
                };
                let record = replayed(dead_letter, to, &provenance);
                assert_eq!(record.key.as_deref(), expected_key);
                let names = record
                    .headers
                    .iter()
                    .map(|(name, _)| String::from_utf8_lossy(name));
                let names: Vec<_> = names
                    .filter(|name| !name.starts_with("evenkeel."))
                    .collect();
                assert_eq!(names, kept);
            };
        let retryable: [Header<'_>; 4] = [
            (b"ce_id", Some(b"1")),
            (b"kafka_original-topic", Some(b"orders")),
            (b"kafka_exception-stacktrace", Some(b"at ...")),
            (b"kafka_key-exception-fqcn", Some(b"X")),
        ];
        check(&retryable, b"k", Some(b"k"), &["ce_id"]);
        let karafka: [Header<'_>; 5] = [
            (b"ce_id", Some(b"1")),
            (b"source_topic", Some(b"orders")),
            (b"source_partition", Some(b"3")),
            (b"source_key", Some(b"o-1")),
            (b"source_consumer_group", Some(b"billing")),
        ];
        check(&karafka, b"3", Some(b"o-1"), &["ce_id"]);
        let mut keyless = karafka;
        keyless[3].1 = Some(b"");
        check(&keyless, b"3", None, &["ce_id"]);
        // A header of an application, not of Karafka.
        check(
            &karafka[..4],
            b"k",
            Some(b"k"),
            &["ce_id", "source_topic", "source_partition", "source_key"],
        );
    }

    #[test]
    fn absent_and_empty_stay_apart() {
        let provenance = Provenance {
            by: "ada",
            at: Timestamp::UNIX_EPOCH,
            edited: false,
        };
        let mut empty = dead_letter(&[]);
        (empty.key, empty.value) = (None, Some(Vec::new()));
        let to = Destination {
            topic: "t".to_owned(),
            partition: None,
            is_retry: false,
        };
        let record = replayed(empty, to, &provenance);
        assert_eq!(
            (record.key, record.value.as_deref()),
            (None, Some(&b""[..]))
        );
    }

    /// The origin: who replayed which dead letter, and when.
    #[test]
    fn the_replay_count_grows_and_its_origin_stands_once() {
        let check = |before: Option<&[u8]>, expected: &str| {
            let count = before.map(|before| (REPLAY_COUNT.as_bytes(), Some(before)));
            let old: [Header<'_>; 2] = [
                (REPLAYED_BY.as_bytes(), Some(b"bob")),
                (REPLAY_OF.as_bytes(), Some(b"dlq.payments.orders/3@1")),
            ];
            let headers: Vec<Header<'_>> = old.into_iter().chain(count).collect();
            let record = replay(&headers, false);
            let all: Vec<Header<'_>> = record.headers.iter().collect();
            let expected: [Header<'_>; 4] = [
                (REPLAY_COUNT.as_bytes(), Some(expected.as_bytes())),
                (REPLAY_OF.as_bytes(), Some(b"dlq.payments.orders/3@42")),
                (REPLAYED_BY.as_bytes(), Some(b"ada")),
                (REPLAYED_AT.as_bytes(), Some(AT.as_bytes())),
            ];
            assert_eq!(all, expected);
        };
        check(None, "1");
        check(Some(b"1"), "2");
        check(Some(b"-7"), "1");
        check(Some(b"99999999999999999999"), "4294967295");
    }

    #[test]
    fn the_first_failure_and_an_edit_are_handed_on() {
        let failed: Header<'_> = (
            b"evenkeel.dlq.error.timestamp",
            Some(b"2026-11-20T00:00:00Z"),
        );
        let once = replay(&[failed], true);
        assert_eq!(once.headers.last(FIRST_FAILURE), failed.1);
        assert_eq!(once.headers.last(EDITED), Some(&b"true"[..]));
        let mut again: Vec<Header<'_>> = once.headers.iter().collect();
        again.push((failed.0, Some(b"2026-11-21T00:00:00Z")));
        let twice = replay(&again, false);
        assert_eq!(twice.headers.last(FIRST_FAILURE), failed.1);
        assert_eq!(twice.headers.last(EDITED), Some(&b"true"[..]));
        assert_eq!(replay(&[failed], false).headers.last(EDITED), None);
    }

    #[test]
    fn a_replay_is_recognised_and_its_dead_letter_is_not() {
        let record = replay(&[(b"ce_id", Some(b"1"))], false);
        let (position, by, at) = replay_of(&record.headers).expect("a replay");
        assert_eq!(position.to_string(), "dlq.payments.orders/3@42");
        assert_eq!((by.as_str(), at.to_string().as_str()), ("ada", AT));
        let mut dead = record.headers;
        dead.push("__dlq.errors.topic", Some(b"orders"));
        assert_eq!(replay_of(&dead), None);
        assert_eq!(replay_of(&Headers::new()), None);
    }

    #[test]
    fn it_goes_back_to_its_partition_where_there_is_one() {
        let check = |topic: Option<&str>, partition, expected: Option<Option<i32>>| {
            let failure = DeadLetter {
                topic: topic.map(str::to_owned),
                partition,
                ..DeadLetter::default()
            };
            let to = Destination::source(&failure, |_| 4);
            assert_eq!(
                to.map(|to| to.partition),
                expected,
                "{topic:?} {partition:?}"
            );
        };
        check(None, Some(0), None);
        check(Some("orders"), Some(3), Some(Some(3)));
        check(Some("orders"), Some(4), Some(None));
        check(Some("orders"), None, Some(None));
    }
}

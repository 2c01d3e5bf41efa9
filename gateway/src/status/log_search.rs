//! Finds events and dead letters on topics, by reading them from a time on. Every function blocks
//! its thread, within the limits that it is given.
//!
//! A limit is not an error: the result says whether everything was read.

use super::verdict::{DeadLetterSearch, FoundDeadLetter};
use evenkeel::event::decode;
use evenkeel::handler::Stage;
use evenkeel::kafka::reader::{LogRecord, Reader, Reading, Start};
use evenkeel::kafka::{KafkaConfig, KafkaError, RecordPosition, is_topic_name};
use evenkeel::recovery::{DeadLetter, ReplayLogEntry, replay_topic};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long one poll for a record takes.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// The least time that a request to the brokers is given.
const REQUEST_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// The most records of one event that are reported.
const HITS_MAX: usize = 16;
/// How many records are read after the event was found, in search of duplicates.
const DUPLICATES_RECORDS: u64 = 10_000;
/// The header with the operator of a skip, in a dead letter.
const SKIPPED_BY: &str = "evenkeel.dlq.skipped-by";

/// The limits of a search.
#[derive(Debug, Clone, Copy)]
pub(super) struct SearchLimits {
    pub(super) records_max: u64,
    /// When the search ends.
    pub(super) until: Instant,
}

impl SearchLimits {
    /// Limits that begin now.
    pub(super) fn new(records_max: u64, timeout: Duration) -> Self {
        Self {
            records_max,
            until: Instant::now() + timeout,
        }
    }

    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// The timeout of the next request.
    pub(super) fn request_timeout(&self) -> Duration {
        self.left().max(REQUEST_TIMEOUT_MIN)
    }
}

/// The events that a caller may see.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Visible {
    pub(super) types: BTreeSet<String>,
    /// Events of this source, whatever their type.
    pub(super) source: String,
}

/// The event to find.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    pub(super) id: String,
    /// `None` for any source.
    pub(super) source: Option<String>,
    /// Other events are not there. `None` if all are visible.
    pub(super) visible: Option<Visible>,
}

/// A record of the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) at: RecordPosition,
    pub(super) timestamp_ms: Option<i64>,
    pub(super) source: String,
    pub(super) ty: String,
}

/// The result of a search for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Searched {
    /// Its records, the earliest first.
    pub(super) hits: Vec<Hit>,
    /// Whether every record from the time on was read, or the event was found.
    pub(super) is_complete: bool,
    /// Whether records at the beginning of a topic were deleted, perhaps this one. Known only if
    /// nothing was found.
    pub(super) may_be_deleted: bool,
}

/// Searches topics for an event from a time on, in milliseconds since 1970. Topics that do not
/// exist are empty.
///
/// # Errors
/// If a request to the cluster fails.
pub(super) fn event(
    kafka: &KafkaConfig,
    topics: &[String],
    from_ms: i64,
    wanted: &Wanted,
    limits: SearchLimits,
) -> Result<Searched, KafkaError> {
    let (mut hits, mut since_hit) = (Vec::new(), 0);
    let (existing, is_whole) = read(
        kafka,
        topics,
        Start::Time(from_ms.max(0)),
        limits,
        |record| {
            if let Some(hit) = hit(&record, wanted) {
                hits.push(hit);
            }
            since_hit += u64::from(!hits.is_empty());
            hits.len() < HITS_MAX && since_hit < DUPLICATES_RECORDS
        },
    )?;
    // A key has one partition, but records of an event without a key may be in several.
    hits.sort_by_key(|hit| (hit.timestamp_ms, hit.at.partition, hit.at.offset));
    let may_be_deleted = hits.is_empty() && were_records_deleted(kafka, &existing, limits)?;
    Ok(Searched {
        is_complete: is_whole || !hits.is_empty(),
        hits,
        may_be_deleted,
    })
}

/// The record as a hit, if it is of the event.
fn hit(record: &LogRecord, wanted: &Wanted) -> Option<Hit> {
    let text = |name| record.headers.last(name).and_then(utf8);
    let (id, source, ty) = match text("ce_id") {
        Some(id) => (id, text("ce_source")?, text("ce_type")?),
        // Perhaps an event in structured mode, whose attributes are in the value.
        None => {
            let event = decode(record.headers.iter(), record.value.as_deref()).ok()?;
            let attributes = event.attributes;
            (attributes.id, attributes.source, attributes.ty)
        }
    };
    let is_source = wanted
        .source
        .as_ref()
        .is_none_or(|wanted| *wanted == source);
    let is_visible = wanted
        .visible
        .as_ref()
        .is_none_or(|visible| visible.source == source || visible.types.contains(&ty));
    (id == wanted.id && is_source && is_visible).then(|| Hit {
        at: position(record),
        timestamp_ms: record.timestamp_ms,
        source,
        ty,
    })
}

fn utf8(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

fn position(record: &LogRecord) -> RecordPosition {
    RecordPosition {
        topic: record.topic.to_string(),
        partition: record.partition,
        offset: record.offset,
    }
}

/// Whether any of the topics has lost its first records, to retention or to an operator.
fn were_records_deleted(
    kafka: &KafkaConfig,
    topics: &[String],
    limits: SearchLimits,
) -> Result<bool, KafkaError> {
    if topics.is_empty() {
        return Ok(false);
    }
    // An empty extent: it is opened for its start only.
    let reading = Reading::whole(topics).with_end(Start::Beginning);
    let reader = Reader::open(kafka, &reading, limits.request_timeout())?;
    Ok(reader.spans().any(|span| span.start > 0))
}

/// The timestamp of the record at a position. `None` if it is gone or has none.
///
/// # Errors
/// If a request to the cluster fails.
pub(super) fn timestamp_ms(
    kafka: &KafkaConfig,
    at: &RecordPosition,
    limits: SearchLimits,
) -> Result<Option<i64>, KafkaError> {
    let reading = Reading::whole([at.topic.as_str()])
        .with_partitions([at.partition])
        .with_start(Start::Offset(at.offset))
        .with_end(Start::Offset(at.offset.saturating_add(1)));
    let mut reader = Reader::open(kafka, &reading, limits.request_timeout())?;
    while !reader.at_end() && !limits.left().is_zero() {
        if let Some(record) = reader.next(limits.left().min(POLL_TIMEOUT))? {
            let is_it = record.offset == at.offset;
            return Ok(record.timestamp_ms.filter(|_| is_it));
        }
    }
    Ok(None)
}

/// Where a group's dead letters of a record are.
#[derive(Debug, Clone)]
pub(super) struct DeadLetterPlace {
    /// The dead-letter topic.
    pub(super) topic: String,
    /// The group that dead-letters.
    pub(super) group: String,
    /// The record.
    pub(super) origin: RecordPosition,
    /// A time before the dead letter was written, in milliseconds since 1970, if it is known.
    pub(super) from_ms: Option<i64>,
}

/// The last dead letter of a record.
///
/// # Errors
/// If a request to the cluster fails.
pub(super) fn dead_letter(
    kafka: &KafkaConfig,
    place: &DeadLetterPlace,
    limits: SearchLimits,
) -> Result<DeadLetterSearch, KafkaError> {
    let start = place
        .from_ms
        .map_or(Start::Beginning, |ms| Start::Time(ms.max(0)));
    let mut last = None;
    let topics = [place.topic.clone()];
    let (_, is_whole) = read(kafka, &topics, start, limits, |record| {
        if let Some(found) = dead_letter_of(&record, place) {
            last = Some((found, record.timestamp_ms));
        }
        true
    })?;
    let Some((mut found, written_ms)) = last else {
        return Ok(match is_whole {
            true => DeadLetterSearch::Nothing,
            false => DeadLetterSearch::Incomplete,
        });
    };
    let (is_replayed, are_marks_whole) = is_replayed(kafka, &found, written_ms, limits)?;
    found.is_replayed = is_replayed;
    found.is_last = is_whole && are_marks_whole;
    Ok(DeadLetterSearch::Found(found))
}

/// The record as a dead letter of the group and the record that is looked for.
fn dead_letter_of(record: &LogRecord, place: &DeadLetterPlace) -> Option<FoundDeadLetter> {
    let failure = DeadLetter::read(record.headers.iter());
    let origin = &place.origin;
    let is_it = failure.offset == Some(origin.offset)
        && failure.partition == Some(origin.partition)
        && failure.topic.as_deref() == Some(&*origin.topic)
        && failure.group.as_deref() == Some(&*place.group);
    if !is_it {
        return None;
    }
    let is_skip = failure.stage.as_deref() == Some(Stage::Skipped.as_str());
    let operator = || {
        let named = record.headers.last(SKIPPED_BY).and_then(utf8);
        named.unwrap_or_else(|| "an operator".to_owned())
    };
    Some(FoundDeadLetter {
        at: position(record),
        skipped_by: is_skip.then(operator),
        class: failure.class,
        message: failure.message,
        attempts: failure.attempts,
        is_replayed: false,
        is_last: true,
    })
}

/// Whether the dead letter was replayed, by the marks of replays, and whether all of them were
/// read.
fn is_replayed(
    kafka: &KafkaConfig,
    found: &FoundDeadLetter,
    written_ms: Option<i64>,
    limits: SearchLimits,
) -> Result<(bool, bool), KafkaError> {
    let Some(marks) = replay_topic(&found.at.topic) else {
        return Ok((false, true));
    };
    let mut is_marked = false;
    let (_, is_whole) = read(kafka, &[marks], Start::Beginning, limits, |record| {
        let entry = ReplayLogEntry::read(record.key.as_deref(), record.value.as_deref());
        if let Some(ReplayLogEntry::DeadLetter {
            partition,
            offset,
            replayed,
        }) = entry
            && (partition, offset) == (found.at.partition, found.at.offset)
        {
            is_marked = replayed.is_some_and(|replayed| replayed.is_of(written_ms));
        }
        true
    })?;
    Ok((is_marked, is_whole))
}

/// Passes the records of the topics to `each`, in offset order within each partition, until it
/// returns false or a limit is reached. Returns the topics that exist, and whether everything was
/// read.
fn read(
    kafka: &KafkaConfig,
    topics: &[String],
    start: Start,
    limits: SearchLimits,
    mut each: impl FnMut(LogRecord) -> bool,
) -> Result<(Vec<String>, bool), KafkaError> {
    let mut existing: Vec<String> = topics.to_vec();
    existing.retain(|topic| is_topic_name(topic));
    let mut reader = loop {
        if existing.is_empty() {
            return Ok((existing, true));
        }
        let reading = Reading::whole(existing.iter().cloned()).with_start(start);
        match Reader::open(kafka, &reading, limits.request_timeout()) {
            Ok(reader) => break reader,
            Err(KafkaError::UnknownTopic { topic }) if existing.contains(&topic) => {
                existing.retain(|existing| *existing != topic);
            }
            Err(error) => return Err(error),
        }
    };
    let (mut records, mut is_whole) = (0, true);
    while !reader.at_end() {
        let left = limits.left();
        if left.is_zero() || records >= limits.records_max {
            is_whole = false;
            break;
        }
        match reader.next(left.min(POLL_TIMEOUT)) {
            Ok(Some(record)) => {
                records += 1;
                if !each(record) {
                    is_whole = false;
                    break;
                }
            }
            Ok(None) => {}
            // The partition ends there, and the others continue.
            Err(KafkaError::UnreadableBatch(_)) => is_whole = false,
            Err(error) => return Err(error),
        }
    }
    Ok((existing, is_whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::event::Headers;
    use evenkeel::kafka::reader::TimestampKind;

    fn record(headers: &[(&str, &str)], value: Option<&str>) -> LogRecord {
        let mut packed = Headers::new();
        for (name, value) in headers {
            packed.push(name, Some(value.as_bytes()));
        }
        LogRecord {
            topic: "shop.orders".into(),
            partition: 3,
            offset: 17,
            timestamp_kind: TimestampKind::Create,
            timestamp_ms: Some(5),
            key: None,
            value: value.map(|value| value.as_bytes().to_vec()),
            headers: packed,
        }
    }

    fn wanted(id: &str, source: Option<&str>) -> Wanted {
        Wanted {
            id: id.to_owned(),
            source: source.map(str::to_owned),
            visible: None,
        }
    }

    #[test]
    fn an_event_is_recognised_in_both_content_modes() {
        let binary = [
            ("ce_specversion", "1.0"),
            ("ce_id", "o-1"),
            ("ce_source", "/web"),
            ("ce_type", "shop.order-placed.v1"),
        ];
        let structured = r#"{"specversion":"1.0","id":"o-1","source":"/web",
            "type":"shop.order-placed.v1","data":{}}"#;
        let mode = [("content-type", "application/cloudevents+json")];
        for record in [record(&binary, Some("{}")), record(&mode, Some(structured))] {
            for (id, source, is_hit) in [
                ("o-1", None, true),
                ("o-1", Some("/web"), true),
                ("o-1", Some("/other"), false),
                ("o-2", None, false),
            ] {
                let found = hit(&record, &wanted(id, source));
                assert_eq!(found.is_some(), is_hit, "{id} {source:?}");
                if let Some(found) = found {
                    assert_eq!(
                        (&*found.source, &*found.ty),
                        ("/web", "shop.order-placed.v1")
                    );
                    assert_eq!(found.at.to_string(), "shop.orders/3@17");
                }
            }
        }
        assert_eq!(hit(&record(&[], Some("noise")), &wanted("o-1", None)), None);
        assert_eq!(
            hit(&record(&[("ce_id", "o-1")], None), &wanted("o-1", None)),
            None
        );
    }

    #[test]
    fn only_a_dead_letter_of_this_record_and_group_counts() {
        let mut headers = vec![
            ("__dlq.errors.topic", "shop.orders"),
            ("__dlq.errors.partition", "3"),
            ("__dlq.errors.offset", "90"),
            ("__dlq.errors.group", "payments"),
            ("__dlq.errors.delivery.count", "4"),
            ("__dlq.errors.message", "no such customer"),
            ("evenkeel.dlq.error.class", "permanent"),
            ("evenkeel.dlq.error.stage", "handler"),
        ];
        let place = |group: &str, topic: &str, partition, offset| DeadLetterPlace {
            topic: "dlq.payments.shop.orders".to_owned(),
            group: group.to_owned(),
            origin: RecordPosition {
                topic: topic.to_owned(),
                partition,
                offset,
            },
            from_ms: None,
        };
        let own = place("payments", "shop.orders", 3, 90);
        let found = dead_letter_of(&record(&headers, None), &own).expect("it is this one");
        assert_eq!(found.message.as_deref(), Some("no such customer"));
        assert_eq!((found.attempts, found.skipped_by), (Some(4), None));
        for other in [
            place("stock", "shop.orders", 3, 90),
            place("payments", "shop.stock", 3, 90),
            place("payments", "shop.orders", 2, 90),
            place("payments", "shop.orders", 3, 91),
        ] {
            assert_eq!(dead_letter_of(&record(&headers, None), &other), None);
        }
        headers.retain(|(name, _)| *name != "evenkeel.dlq.error.stage");
        headers.push(("evenkeel.dlq.error.stage", "skipped"));
        headers.push((SKIPPED_BY, "ada"));
        let skipped = dead_letter_of(&record(&headers, None), &own).expect("it is this one");
        assert_eq!(skipped.skipped_by.as_deref(), Some("ada"));
    }
}

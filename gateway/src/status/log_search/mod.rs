//! Finds events and dead letters on topics, by reading them from a time on. Every function blocks
//! its thread, within the limits that it is given.
//!
//! A limit is not an error: the result says whether everything was read.
//!
//! A time that a publisher set may be wrong, in the future for example, and be over by now. So it
//! is only where a search begins: what is not found from there on may be among the records before.
//! [`Since`] has the choice whether these are searched, too, and [`Earlier`] the result.

mod since;

pub(super) use self::since::{Earlier, Since};
use super::verdict::{DeadLetterSearch, FoundDeadLetter};
use evenkeel::event::decode;
use evenkeel::handler::Stage;
use evenkeel::kafka::reader::{LogRecord, Reader, Reading, Span, Start, TimestampKind};
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
/// How many records before the time in an id are searched, the latest ones. A client that polls for
/// an event that is not there yet pays for them with each request.
const EARLIER_RECORDS: u64 = 10_000;
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

    /// The same time for fewer records.
    fn with_records_max(self, records_max: u64) -> Self {
        Self {
            records_max: records_max.min(self.records_max),
            ..self
        }
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
    /// Who set `timestamp_ms`.
    pub(super) timestamp_kind: TimestampKind,
    pub(super) source: String,
    pub(super) ty: String,
}

/// The result of a search for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Searched {
    /// Its records, the earliest first.
    pub(super) hits: Vec<Hit>,
    /// Whether every record from the start on was read, or the event was found.
    pub(super) is_complete: bool,
    /// The records before the start.
    pub(super) earlier: Earlier,
    /// Whether records at the beginning of a topic were deleted, perhaps this one. Known only if
    /// nothing was found.
    pub(super) may_be_deleted: bool,
}

/// Searches topics for an event from a time on. Topics that do not exist are empty.
///
/// # Errors
/// If a request to the cluster fails.
pub(super) fn event(
    kafka: &KafkaConfig,
    topics: &[String],
    since: Since,
    wanted: &Wanted,
    limits: SearchLimits,
) -> Result<Searched, KafkaError> {
    let (mut hits, mut since_hit) = (Vec::new(), 0);
    let mut add = |record: LogRecord| {
        if let Some(hit) = hit(&record, wanted) {
            hits.push(hit);
        }
        since_hit += u64::from(!hits.is_empty());
        hits.len() < HITS_MAX && since_hit < DUPLICATES_RECORDS
    };
    let (existing, is_whole) = read(kafka, topics, since.start(), limits, &mut add)?;
    let earlier = match since {
        Since::Known(_) => Earlier::RuledOut,
        Since::Claimed(_) if hits.is_empty() && is_whole => {
            let mut add = |record: LogRecord| {
                hits.extend(hit(&record, wanted));
                hits.len() < HITS_MAX
            };
            let limits = limits.with_records_max(EARLIER_RECORDS);
            match read_before(kafka, &existing, since.start(), limits, &mut add)? {
                true => Earlier::RuledOut,
                false => Earlier::Limited,
            }
        }
        Since::Claimed(_) | Since::Probable(_) => Earlier::Unread,
    };
    // A key has one partition, but records of an event without a key may be in several.
    hits.sort_by_key(|hit| (hit.timestamp_ms, hit.at.partition, hit.at.offset));
    let may_be_deleted = hits.is_empty() && were_records_deleted(kafka, &existing, limits)?;
    Ok(Searched {
        is_complete: is_whole || !hits.is_empty(),
        earlier,
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
        timestamp_kind: record.timestamp_kind,
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
    /// A time before the dead letter was written. `None` if nothing is known.
    pub(super) since: Option<Since>,
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
    let start = place.since.map_or(Start::Beginning, Since::start);
    let mut last = None;
    let topics = [place.topic.clone()];
    let (existing, mut is_whole) = read(
        kafka,
        &topics,
        start,
        limits,
        &mut keep_last(place, &mut last),
    )?;
    // An absence is a statement about all records.
    if last.is_none() && is_whole && matches!(place.since, Some(Since::Claimed(_))) {
        is_whole = read_before(
            kafka,
            &existing,
            start,
            limits,
            &mut keep_last(place, &mut last),
        )?;
    }
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

/// Keeps the last dead letter of the record, with its timestamp.
fn keep_last(
    place: &DeadLetterPlace,
    last: &mut Option<(FoundDeadLetter, Option<i64>)>,
) -> impl FnMut(LogRecord) -> bool {
    move |record| {
        if let Some(found) = dead_letter_of(&record, place) {
            *last = Some((found, record.timestamp_ms));
        }
        true
    }
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
    let mut add = |record: LogRecord| {
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
    };
    let (_, is_whole) = read(kafka, &[marks], Start::Beginning, limits, &mut add)?;
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
    each: &mut dyn FnMut(LogRecord) -> bool,
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
    let is_whole = drain(&mut reader, limits, each)?;
    Ok((existing, is_whole))
}

/// As [`read`] for the records before `end`, of existing topics: the latest ones of each partition,
/// in offset order. Returns whether these are all, and were read.
fn read_before(
    kafka: &KafkaConfig,
    topics: &[String],
    end: Start,
    limits: SearchLimits,
    each: &mut dyn FnMut(LogRecord) -> bool,
) -> Result<bool, KafkaError> {
    if topics.is_empty() {
        return Ok(true);
    }
    if limits.left().is_zero() {
        return Ok(false);
    }
    // An empty extent: it is opened for its bounds only.
    let reading = Reading::whole(topics)
        .with_start(end)
        .with_end(Start::Beginning);
    let bounds = Reader::open(kafka, &reading, limits.request_timeout())?;
    let bounds: Vec<Span> = bounds.spans().cloned().collect();
    let (spans, are_all) = latest_before(bounds, limits.records_max);
    let mut reader = Reader::of_spans(kafka, spans, limits.request_timeout())?;
    Ok(drain(&mut reader, limits, each)? && are_all)
}

/// The last offsets before the start of each of these empty extents, which end at the first offset
/// of their partition, and whether these are all. They share the number of records equally.
fn latest_before(bounds: Vec<Span>, records_max: u64) -> (Vec<Span>, bool) {
    let partitions = u64::try_from(bounds.len()).unwrap_or(u64::MAX).max(1);
    let each = i64::try_from(records_max / partitions).unwrap_or(i64::MAX);
    let mut are_all = true;
    let spans = bounds.into_iter().map(|bounds| {
        let (first, end) = (bounds.end.unwrap_or(0), bounds.start);
        let start = end.saturating_sub(each).max(first);
        are_all &= start == first;
        Span {
            start,
            end: Some(end),
            ..bounds
        }
    });
    (spans.collect(), are_all)
}

/// Passes the records to `each` until it returns false or a limit is reached. Returns whether all
/// were read.
fn drain(
    reader: &mut Reader,
    limits: SearchLimits,
    each: &mut dyn FnMut(LogRecord) -> bool,
) -> Result<bool, KafkaError> {
    let (mut records, mut is_whole) = (0, true);
    while !reader.at_end() {
        let left = limits.left();
        if left.is_zero() || records >= limits.records_max {
            return Ok(false);
        }
        match reader.next(left.min(POLL_TIMEOUT)) {
            Ok(Some(record)) => {
                records += 1;
                if !each(record) {
                    return Ok(false);
                }
            }
            Ok(None) => {}
            // The partition ends there, and the others continue.
            Err(KafkaError::UnreadableBatch(_)) => is_whole = false,
            Err(error) => return Err(error),
        }
    }
    Ok(is_whole)
}

#[cfg(test)]
mod tests;

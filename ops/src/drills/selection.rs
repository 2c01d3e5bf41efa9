//! Selects the events of a group to repeat: the settled ones, except those whose repetition would
//! have another effect.
//!
//! - Records above the committed offset are still to be delivered anyway.
//! - Records that wait in the retry topic are excluded, with all events of their keys: nothing is
//!   queued behind them.
//! - Dead letters are excluded: they had no effect, so a repetition would be a replay.
//!
//! The group goes on meanwhile. The committed offsets are read first, then the waiting records,
//! then the dead letters: a record below the committed offset that is not handled is found in one
//! of the two, also if it becomes a dead letter in between.

use super::DrillError;
use crate::dead_letters::record::drain;
use crate::{Cluster, Observer, blocking};
use evenkeel::consumer::{ParkedKey, parked_keys};
use evenkeel::event::{DecodeError, decode};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::{Admin, PartitionLag};
use evenkeel::kafka::reader::{LogRecord, Reader, Reading, Span, Start};
use evenkeel::recovery::{DeadLetter, DeadLetterTopic, retry_topic};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Number of events that are read ahead.
const READ_AHEAD_MAX: usize = 64;

/// A settled event, and whether it is repeated.
pub(super) struct SettledEvent {
    pub(super) record: LogRecord,
    /// Its type, or a name that stands for it.
    pub(super) ty: String,
    pub(super) fate: Fate,
}

/// The fate of a settled record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is delivered again.
    Repeated,
    /// Its key, or the record itself, waits.
    KeyWaits,
    /// It is a dead letter.
    DeadLetter,
}

/// Partition and offset in the topic.
type PartitionOffset = (i32, i64);

/// The settled events of one topic that a drill repeats.
#[derive(Debug)]
pub(super) struct Selection {
    spans: Vec<Span>,
    waiting: Waiting,
    dead_letters: HashSet<PartitionOffset>,
}

/// Keys and records that wait in the retry topic.
#[derive(Debug, Default)]
struct Waiting {
    /// Waiting keys. `None` covers a partition in which a record without a key waits that cannot be
    /// distinguished from its neighbours.
    keys: HashSet<(i32, Option<Vec<u8>>)>,
    /// Records without a key. Each waits on its own.
    positions: HashSet<PartitionOffset>,
}

impl Waiting {
    /// The keys and records of a listing of the retry topic.
    fn new(waiting: Vec<ParkedKey>) -> Self {
        let mut all = Self::default();
        for key in waiting {
            match (&key.key, key.source_offset) {
                (None, Some(source_offset)) => all.positions.insert((key.partition, source_offset)),
                _ => all.keys.insert((key.partition, key.key)),
            };
        }
        all
    }

    /// Whether the record or its key waits.
    fn contains(&self, record: &LogRecord) -> bool {
        let key = (record.partition, record.key.clone());
        self.keys.contains(&key) || self.positions.contains(&(record.partition, record.offset))
    }
}

/// Settings of a drill: group and range of events.
///
/// ```
/// use evenkeel::kafka::reader::Start;
/// use evenkeel_ops::drills::DrillSettings;
///
/// let settings = DrillSettings::new("payments").with_from(Start::Last(1_000));
/// assert_eq!(settings.to, Start::End);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct DrillSettings {
    /// Name of the group.
    pub group: String,
    /// Where to begin in each partition. [`Start::Last`] counts back from the committed offset.
    /// Default: the last 100 settled records.
    pub from: Start,
    /// Where to end in each partition. Never after the group's committed offset. Default: there.
    pub to: Start,
    /// The group's dead-letter topic. It must be the one of the group's
    /// [`ConsumerSettings`](evenkeel::consumer::ConsumerSettings), or dead letters are repeated
    /// like settled events. Default: [`DeadLetterTopic::PerTopic`].
    pub dead_letter_topic: DeadLetterTopic,
}

impl DrillSettings {
    /// Creates the settings for the last 100 settled records of each partition.
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            from: Start::Last(100),
            to: Start::End,
            dead_letter_topic: DeadLetterTopic::default(),
        }
    }

    /// Sets [`from`](Self::from).
    pub fn with_from(mut self, from: Start) -> Self {
        self.from = from;
        self
    }

    /// Sets [`to`](Self::to).
    pub fn with_to(mut self, to: Start) -> Self {
        self.to = to;
        self
    }

    /// Sets [`dead_letter_topic`](Self::dead_letter_topic).
    pub fn with_dead_letter_topic(mut self, topic: DeadLetterTopic) -> Self {
        self.dead_letter_topic = topic;
        self
    }
}

impl Selection {
    /// Selects from the records of `topic` that the group has settled so far. Later ones are not
    /// repeated.
    ///
    /// # Errors
    /// [`DrillError::FewPartitions`] or [`DrillError::NoDeadLetterTopic`]. Also if a request to the
    /// cluster fails.
    pub(super) async fn of_topic(
        cluster: &Cluster,
        admin: &Admin,
        settings: &DrillSettings,
        topic: &str,
        stop: &CancellationToken,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, DrillError> {
        let (group, retry) = (&settings.group, retry_topic(&settings.group, topic));
        let topics = [topic.to_owned(), retry.clone()];
        let counts = admin.partition_counts(&topics).await?;
        if counts.get(&retry) < counts.get(topic) {
            return Err(DrillError::FewPartitions {
                retry,
                topic: topic.to_owned(),
                group: group.clone(),
            });
        }
        let lag = admin.group_lag(group, &topics[..1]).await?;
        let lag: Vec<PartitionLag> = lag.into_iter().filter(|at| at.topic == topic).collect();
        let (from, to) = (settings.from, settings.to);
        let dead_letter_topic = settings.dead_letter_topic.clone();
        let (cluster, group, topic) = (cluster.clone(), group.clone(), topic.to_owned());
        let stop = stop.clone();
        let select = move || {
            let waiting = parked_keys(&cluster.kafka, &group, &topic, cluster.timeout)?;
            let spans = spans(&cluster, &topic, (from, to), &lag)?;
            let origin = (group.as_str(), topic.as_str());
            let dead_letters = read_dead_letters(
                &cluster,
                &dead_letter_topic,
                origin,
                &spans,
                &stop,
                &*observer,
            )?;
            Ok(Self {
                waiting: Waiting::new(waiting),
                dead_letters,
                spans,
            })
        };
        blocking::run(select).await
    }

    /// The number of offsets to read.
    pub(super) fn offsets(&self) -> u64 {
        let offsets = |span: &Span| span.end.unwrap_or(span.start) - span.start;
        let lengths = self.spans.iter().map(offsets);
        lengths
            .map(|length| u64::try_from(length).unwrap_or(0))
            .sum()
    }

    /// The fate of a record.
    fn fate(&self, record: &LogRecord) -> Fate {
        match (
            self.dead_letters
                .contains(&(record.partition, record.offset)),
            self.waiting.contains(record),
        ) {
            (true, _) => Fate::DeadLetter,
            (false, true) => Fate::KeyWaits,
            (false, false) => Fate::Repeated,
        }
    }
}

/// The requested offsets below the committed offset. `Last` counts back from the committed offset,
/// not from the end of the log. A partition to which the group has not committed has none. Blocks.
fn spans(
    cluster: &Cluster,
    topic: &str,
    (from, to): (Start, Start),
    lag: &[PartitionLag],
) -> Result<Vec<Span>, KafkaError> {
    let reading = Reading::whole([topic]).with_start(from).with_end(to);
    let reader = Reader::open(&cluster.kafka, &reading, cluster.timeout)?;
    let settled = reader.spans().filter_map(|span| {
        let at = lag.iter().find(|at| at.partition == span.partition)?;
        let committed = at.committed?.min(at.high);
        let before = |last: i64| committed.saturating_sub(last).max(at.low);
        Some(Span {
            start: match from {
                Start::Last(last) => before(last),
                _ => span.start,
            },
            end: Some(match to {
                Start::Last(last) => before(last),
                _ => span.end.unwrap_or(committed).min(committed),
            }),
            ..span.clone()
        })
    });
    Ok(settled.collect())
}

/// The positions in `spans` of the group's dead letters. The whole dead-letter topic is read: its
/// order is not that of the source. Blocks.
fn read_dead_letters(
    cluster: &Cluster,
    dead_letter_topic: &DeadLetterTopic,
    (group, topic): (&str, &str),
    spans: &[Span],
    stop: &CancellationToken,
    observer: &dyn Observer,
) -> Result<HashSet<PartitionOffset>, DrillError> {
    let name = dead_letter_topic.of(group, topic);
    let reading = Reading::whole([name.as_str()]);
    let mut reader = match Reader::open(&cluster.kafka, &reading, cluster.timeout) {
        Ok(reader) => reader,
        Err(KafkaError::UnknownTopic { .. }) if *dead_letter_topic == DeadLetterTopic::PerTopic => {
            observer.notice(&format!(
                "there is no {name}, so no event of {topic} is left out as a dead letter; if \
                 {group} writes its dead letters to another topic, name it with --dead-letter-topic"
            ));
            return Ok(HashSet::new());
        }
        Err(KafkaError::UnknownTopic { .. }) => {
            return Err(DrillError::NoDeadLetterTopic {
                topic: name,
                group: group.to_owned(),
                default: DeadLetterTopic::PerTopic.of(group, topic),
            });
        }
        Err(error) => return Err(DrillError::DeadLetters(error)),
    };
    let mut dead_letters = HashSet::new();
    drain(&mut reader, stop, |record| {
        let failure = DeadLetter::read(record.headers.iter());
        let is_own =
            failure.group.as_deref() == Some(group) && failure.topic.as_deref() == Some(topic);
        if let (true, Some(partition), Some(offset)) = (is_own, failure.partition, failure.offset)
            && spans.iter().any(|span| covers(span, partition, offset))
        {
            dead_letters.insert((partition, offset));
        }
        Ok::<bool, KafkaError>(true)
    })?;
    Ok(dead_letters)
}

/// Whether an offset of a partition is in the span.
fn covers(span: &Span, partition: i32, offset: i64) -> bool {
    let is_before_end = span.end.is_none_or(|end| offset < end);
    span.partition == partition && span.start <= offset && is_before_end
}

/// Reads the selected topics one after the other, each partition in order. The thread ends when the
/// receiver is dropped.
pub(super) fn stream(
    cluster: &Cluster,
    selections: Vec<Selection>,
    stop: CancellationToken,
) -> mpsc::Receiver<Result<SettledEvent, KafkaError>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD_MAX);
    let cluster = cluster.clone();
    tokio::task::spawn_blocking(move || {
        for selection in selections {
            if let Err(error) = send_each(&cluster, &selection, &stop, &sender) {
                // The receiver may be gone.
                let _ = sender.blocking_send(Err(error));
                return;
            }
        }
    });
    receiver
}

/// Passes the records of one topic to the channel, with their fates. Ends without an error when the
/// receiver is dropped.
fn send_each(
    cluster: &Cluster,
    selection: &Selection,
    stop: &CancellationToken,
    sender: &mpsc::Sender<Result<SettledEvent, KafkaError>>,
) -> Result<(), KafkaError> {
    let spans = selection.spans.iter();
    let spans: Vec<Span> = spans
        .filter(|span| span.end.is_some_and(|end| end > span.start))
        .cloned()
        .collect();
    if spans.is_empty() {
        return Ok(());
    }
    let mut reader = Reader::of_spans(&cluster.kafka, spans, cluster.timeout)?;
    drain(&mut reader, stop, |record| {
        let found = SettledEvent {
            ty: type_of(&record),
            fate: selection.fate(&record),
            record,
        };
        Ok::<bool, KafkaError>(sender.blocking_send(Ok(found)).is_ok())
    })?;
    Ok(())
}

/// The type that decides which handler a record has. No naming convention in use has types that
/// begin with a bracket.
pub(super) fn type_of(record: &LogRecord) -> String {
    match decode(record.headers.iter(), record.value.as_deref()) {
        Ok(event) => event.attributes.ty,
        Err(DecodeError::NotAnEvent) => "(raw)".to_owned(),
        Err(_) => "(unreadable)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::kafka::reader::TimestampKind;

    fn record(partition: i32, offset: i64, key: Option<&str>) -> LogRecord {
        LogRecord {
            topic: "orders".into(),
            partition,
            offset,
            timestamp_kind: TimestampKind::Absent,
            timestamp_ms: None,
            key: key.map(|key| key.as_bytes().to_vec()),
            value: None,
            headers: std::iter::empty::<(&[u8], Option<&[u8]>)>().collect(),
        }
    }

    fn parked(key: Option<&str>, source_offset: Option<i64>) -> ParkedKey {
        let mut parked = ParkedKey::default();
        parked.topic = "orders".to_owned();
        parked.key = key.map(|key| key.as_bytes().to_vec());
        parked.offsets = vec![900];
        parked.source_offset = source_offset;
        parked
    }

    /// All keyless records wait where it is unknown which one does.
    #[test]
    fn a_key_waits_as_a_whole_and_keyless_records_alone() {
        let check = |waiting: ParkedKey, record: LogRecord, expected| {
            let found = Waiting::new(vec![waiting.clone()]).contains(&record);
            assert_eq!(found, expected, "{record:?} beside {waiting:?}");
        };
        check(parked(Some("a"), Some(5)), record(0, 1, Some("a")), true);
        check(parked(Some("a"), Some(5)), record(1, 5, Some("a")), false);
        check(parked(Some("a"), None), record(0, 1, Some("b")), false);
        check(parked(None, Some(5)), record(0, 5, None), true);
        check(parked(None, Some(5)), record(0, 6, None), false);
        check(parked(None, Some(5)), record(1, 5, None), false);
        check(parked(None, None), record(0, 6, None), true);
        check(parked(None, None), record(0, 6, Some("b")), false);
    }
}

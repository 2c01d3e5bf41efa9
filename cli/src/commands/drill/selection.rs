//! Which events of a group are repeated: those that it has settled, but for those whose repetition would be more than one.
//!
//! - What the group has not committed is still to come by itself.
//! - What waits in the retry topic is left out, and with it the events of its key: nothing is put behind what waits there.
//! - What became a dead letter is left out: it had no effect, and its repetition would be a replay.

use crate::commands::dlq::Cluster;
use crate::commands::dlq::letters::drain;
use crate::stop::Stop;
use anyhow::Context;
use evenkeel::consumer::{ParkedKey, parked_keys};
use evenkeel::event::{DecodeError, decode};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::{Admin, PartitionLag};
use evenkeel::kafka::reader::{LogRecord, Reader, Reading, Span, Start};
use evenkeel::recovery::{DeadLetter, DeadLetterTopic, retry_topic};
use std::collections::HashSet;
use tokio::sync::mpsc;

/// Events that are read ahead.
const AHEAD_EVENTS: usize = 64;

/// Of what an event's repetition is made.
pub(super) struct Found {
    pub(super) record: LogRecord,
    /// Its type, or what stands for it.
    pub(super) ty: String,
    pub(super) fate: Fate,
}

/// What becomes of a settled record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is delivered once more.
    Repeated,
    /// Its key waits, or it does so itself.
    KeyWaits,
    /// It is a dead letter.
    Died,
}

/// Where an event stands in its topic.
type Place = (i32, i64);

/// What is known of one topic.
pub(super) struct Selection {
    spans: Vec<Span>,
    waiting: Waiting,
    died: HashSet<Place>,
}

/// What waits in the retry topic.
#[derive(Default)]
struct Waiting {
    /// Keys. None is that of a partition in which a record waits that has no key and cannot be told from its neighbours.
    keys: HashSet<(i32, Option<Vec<u8>>)>,
    /// Records without a key, each of which waits for itself.
    places: HashSet<Place>,
}

impl Waiting {
    fn new(waiting: Vec<ParkedKey>) -> Self {
        let mut found = Self::default();
        for key in waiting {
            match (&key.key, key.origin) {
                (None, Some(origin)) => found.places.insert((key.partition, origin)),
                _ => found.keys.insert((key.partition, key.key)),
            };
        }
        found
    }

    fn has(&self, record: &LogRecord) -> bool {
        let key = (record.partition, record.key.clone());
        self.keys.contains(&key) || self.places.contains(&(record.partition, record.offset))
    }
}

/// What is asked for.
pub(super) struct Asked {
    pub(super) group: String,
    pub(super) from: Start,
    pub(super) to: Start,
    pub(super) letters: DeadLetterTopic,
}

impl Selection {
    /// Looks at what the group has settled of `topic`, as it is now: what comes later is not repeated.
    pub(super) async fn look(
        cluster: &Cluster,
        admin: &Admin,
        asked: &Asked,
        topic: &str,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let (group, retry) = (&asked.group, retry_topic(&asked.group, topic));
        let topics = [topic.to_owned(), retry.clone()];
        let counts = admin.partition_counts(&topics).await?;
        anyhow::ensure!(
            counts.get(&retry) >= counts.get(topic),
            "{retry} has not as many partitions as {topic}: start a member of {group}, which gives it more"
        );
        let lag = admin.group_lag(group, &topics[..1]).await?;
        let lag: Vec<PartitionLag> = lag.into_iter().filter(|at| at.topic == topic).collect();
        let (from, to) = (asked.from, asked.to);
        let letters = asked.letters.clone();
        let (cluster, group, topic) = (cluster.clone(), group.clone(), topic.to_owned());
        let stop = stop.clone();
        let look = move || {
            let waiting = parked_keys(&cluster.kafka, &group, &topic, cluster.timeout)?;
            let spans = spans(&cluster, &topic, (from, to), &lag)?;
            anyhow::Ok(Self {
                waiting: Waiting::new(waiting),
                died: died(&cluster, &letters, (&group, &topic), &spans, &stop)?,
                spans,
            })
        };
        tokio::task::spawn_blocking(look).await?
    }

    /// How many offsets there are to be looked at.
    pub(super) fn offsets(&self) -> u64 {
        let offsets = |span: &Span| span.end.unwrap_or(span.start) - span.start;
        let lengths = self.spans.iter().map(offsets);
        lengths
            .map(|length| u64::try_from(length).unwrap_or(0))
            .sum()
    }

    /// What becomes of a record.
    fn fate(&self, record: &LogRecord) -> Fate {
        match (
            self.died.contains(&(record.partition, record.offset)),
            self.waiting.has(record),
        ) {
            (true, _) => Fate::Died,
            (false, true) => Fate::KeyWaits,
            (false, false) => Fate::Repeated,
        }
    }
}

/// The offsets that are asked for and committed. The last ones are those before the committed offset, however long the log is.
fn spans(
    cluster: &Cluster,
    topic: &str,
    (from, to): (Start, Start),
    lag: &[PartitionLag],
) -> anyhow::Result<Vec<Span>> {
    let reading = Reading {
        topics: vec![topic.to_owned()],
        partitions: Vec::new(),
        start: from,
        end: Some(to),
    };
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

/// The places in `spans` of what became dead letters of the group.
fn died(
    cluster: &Cluster,
    letters: &DeadLetterTopic,
    (group, topic): (&str, &str),
    spans: &[Span],
    stop: &Stop,
) -> anyhow::Result<HashSet<Place>> {
    let name = letters.of(group, topic);
    let reading = Reading::whole([name.as_str()]);
    let mut reader = match Reader::open(&cluster.kafka, &reading, cluster.timeout) {
        Ok(reader) => reader,
        Err(KafkaError::UnknownTopic { .. }) if *letters == DeadLetterTopic::PerTopic => {
            anstream::eprintln!(
                "evenkeel: there is no {name}, so no event of {topic} is left out as a dead letter: if {group} writes its dead letters to \
                 another topic, name it with --dead-letter-topic"
            );
            return Ok(HashSet::new());
        }
        Err(KafkaError::UnknownTopic { .. }) => anyhow::bail!(
            "there is no topic {name}: give --dead-letter-topic the one that {group} writes its dead letters to, or leave it out if \
             that is {}",
            DeadLetterTopic::PerTopic.of(group, topic)
        ),
        Err(error) => return Err(error).context("looking for dead letters"),
    };
    let mut died = HashSet::new();
    drain(&mut reader, stop, |record| {
        let letter = DeadLetter::read(record.headers.iter());
        let is_own =
            letter.group.as_deref() == Some(group) && letter.topic.as_deref() == Some(topic);
        if let (true, Some(partition), Some(offset)) = (is_own, letter.partition, letter.offset)
            && spans.iter().any(|span| covers(span, partition, offset))
        {
            died.insert((partition, offset));
        }
        Ok(true)
    })?;
    Ok(died)
}

fn covers(span: &Span, partition: i32, offset: i64) -> bool {
    let is_before_end = span.end.is_none_or(|end| offset < end);
    span.partition == partition && span.start <= offset && is_before_end
}

/// Reads the selected topics one after the other, each partition in its order. The receiver's end ends it.
pub(super) fn stream(
    cluster: &Cluster,
    selections: Vec<Selection>,
    stop: Stop,
) -> mpsc::Receiver<anyhow::Result<Found>> {
    let (sender, receiver) = mpsc::channel(AHEAD_EVENTS);
    let cluster = cluster.clone();
    tokio::task::spawn_blocking(move || {
        for selection in selections {
            if let Err(error) = each(&cluster, &selection, &stop, &sender) {
                // Nobody may listen any more.
                let _ = sender.blocking_send(Err(error));
                return;
            }
        }
    });
    receiver
}

fn each(
    cluster: &Cluster,
    selection: &Selection,
    stop: &Stop,
    sender: &mpsc::Sender<anyhow::Result<Found>>,
) -> anyhow::Result<()> {
    let spans = selection.spans.iter();
    let spans: Vec<Span> = spans
        .filter(|span| span.end.is_some_and(|end| end > span.start))
        .cloned()
        .collect();
    if spans.is_empty() {
        return Ok(());
    }
    let mut reader = Reader::over(&cluster.kafka, spans, cluster.timeout)?;
    drain(&mut reader, stop, |record| {
        let found = Found {
            ty: type_of(&record),
            fate: selection.fate(&record),
            record,
        };
        Ok(sender.blocking_send(Ok(found)).is_ok())
    })?;
    Ok(())
}

/// The type that decides which handler a record has. No type begins with a bracket in any naming that is used.
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

    fn parked(key: Option<&str>, origin: Option<i64>) -> ParkedKey {
        ParkedKey {
            topic: "orders".to_owned(),
            partition: 0,
            key: key.map(|key| key.as_bytes().to_vec()),
            offsets: vec![900],
            origin,
            wait: Default::default(),
            why: Default::default(),
            held_for: None,
        }
    }

    #[test]
    fn a_key_waits_whole_and_a_record_without_one_alone_unless_it_is_not_known_which() {
        let check = |waiting: ParkedKey, record: LogRecord, expected| {
            let found = Waiting::new(vec![waiting.clone()]).has(&record);
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

//! Which events of a group are repeated: those that it has settled, but for those whose repetition would be more than one.
//!
//! - What the group has not committed is still to come by itself.
//! - The events of a key that waits in the retry topic are left out: nothing is put behind what waits there.
//! - What became a dead letter is left out: it had no effect, and its repetition would be a replay.

use crate::commands::dlq::Cluster;
use crate::commands::dlq::letters::drain;
use crate::stop::Stop;
use anyhow::Context;
use evenkeel::consumer::parked_keys;
use evenkeel::event::{DecodeError, decode};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::{LogRecord, Reader, Reading, Span, Start};
use evenkeel::recovery::{DeadLetter, DeadLetterTopic, retry_topic};
use std::collections::{BTreeMap, HashSet};
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
    /// Its key waits.
    KeyWaits,
    /// It is a dead letter.
    Died,
}

/// Where an event stands in its topic.
type Place = (i32, i64);

/// What is known of one topic.
pub(super) struct Selection {
    spans: Vec<Span>,
    waiting: HashSet<(i32, Option<Vec<u8>>)>,
    died: HashSet<Place>,
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
        let lag = lag.into_iter().filter(|at| at.topic == topic);
        let committed = lag.filter_map(|at| Some((at.partition, at.committed?)));
        let committed: BTreeMap<i32, i64> = committed.collect();
        let (from, to) = (asked.from, asked.to);
        let letters = asked.letters.of(group, topic);
        let (cluster, group, topic) = (cluster.clone(), group.clone(), topic.to_owned());
        let stop = stop.clone();
        let look = move || {
            let waiting = parked_keys(&cluster.kafka, &group, &topic, cluster.timeout)?;
            anyhow::Ok(Self {
                spans: spans(&cluster, &topic, (from, to), &committed)?,
                waiting: waiting
                    .into_iter()
                    .map(|key| (key.partition, key.key))
                    .collect(),
                died: died(&cluster, &letters, (&group, &topic), &stop)?,
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
        let key = (record.partition, record.key.clone());
        match (
            self.died.contains(&(record.partition, record.offset)),
            // A record without a key waits for nobody.
            record.key.is_some() && self.waiting.contains(&key),
        ) {
            (true, _) => Fate::Died,
            (false, true) => Fate::KeyWaits,
            (false, false) => Fate::Repeated,
        }
    }
}

/// The offsets that are asked for and committed.
fn spans(
    cluster: &Cluster,
    topic: &str,
    (from, to): (Start, Start),
    committed: &BTreeMap<i32, i64>,
) -> anyhow::Result<Vec<Span>> {
    let reading = Reading {
        topics: vec![topic.to_owned()],
        partitions: Vec::new(),
        start: from,
        end: Some(to),
    };
    let reader = Reader::open(&cluster.kafka, &reading, cluster.timeout)?;
    let settled = reader.spans().filter_map(|span| {
        let committed = *committed.get(&span.partition)?;
        Some(Span {
            end: Some(span.end.unwrap_or(committed).min(committed)),
            ..span.clone()
        })
    });
    Ok(settled.collect())
}

/// The places of what became dead letters of the group.
fn died(
    cluster: &Cluster,
    letters: &str,
    (group, topic): (&str, &str),
    stop: &Stop,
) -> anyhow::Result<HashSet<Place>> {
    let reading = Reading::whole([letters]);
    let mut reader = match Reader::open(&cluster.kafka, &reading, cluster.timeout) {
        Ok(reader) => reader,
        Err(KafkaError::UnknownTopic { .. }) => return Ok(HashSet::new()),
        Err(error) => return Err(error).context("looking for dead letters"),
    };
    let mut died = HashSet::new();
    drain(&mut reader, stop, |record| {
        let letter = DeadLetter::read(record.headers.iter());
        let is_own = letter.group.as_deref() == Some(group);
        if let (true, true, Some(partition), Some(offset)) = (
            is_own,
            letter.topic.as_deref() == Some(topic),
            letter.partition,
            letter.offset,
        ) {
            died.insert((partition, offset));
        }
        Ok(true)
    })?;
    Ok(died)
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

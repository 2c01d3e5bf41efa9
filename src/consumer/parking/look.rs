//! Looks at what of a group is parked, from outside of the group.

use super::super::metadata::{self, SettledAbove, Tag};
use crate::kafka::error::failed;
use crate::kafka::queue::{Committed, committed};
use crate::kafka::reader::{LogRecord, Reader, Reading, Span};
use crate::kafka::{KafkaConfig, KafkaError};
use crate::recovery::parking::Parking;
use crate::recovery::{Entry, Owner, Wait, Why, retry_topic};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use std::collections::HashMap;
use std::time::Duration;

/// A key of a group whose records wait in the retry topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedKey {
    /// The source topic.
    pub topic: String,
    /// The partition, of the source topic and of the retry topic.
    pub partition: i32,
    /// The key; none for a record without one, which waits for itself.
    pub key: Option<Vec<u8>>,
    /// Offsets of its records in the retry topic, in the order in which they are handled.
    pub offsets: Vec<i64>,
    /// Where the first of them stands in the source topic; none where that is not known.
    pub origin: Option<i64>,
    /// What is known of the attempts at it.
    pub wait: Wait,
    /// Why and since when it waits.
    pub why: Why,
    /// The dead letter whose replay the key waits for, by its offset in the source topic.
    pub held_for: Option<i64>,
}

/// What is known of one record beside its place in the queue.
#[derive(Default)]
struct Known {
    origin: Option<i64>,
    why: Why,
}

/// What `group` has parked of `topic`, by partition and by the first record of each key. Blocks the calling thread; no request
/// takes longer than `timeout`.
///
/// A key is what [`Ordering::Key`](crate::consumer::Ordering::Key) makes of it. What is parked or settled meanwhile may be
/// missing or be told.
///
/// # Errors
/// When the cluster cannot be reached, or there is no retry topic.
pub fn parked_keys(
    kafka: &KafkaConfig,
    group: &str,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<ParkedKey>, KafkaError> {
    let mut keys = Vec::new();
    for part in unsettled_parts(kafka, group, topic, timeout)? {
        let reader = Reader::over(kafka, vec![part.span.clone()], timeout)?;
        let owner = Owner { group, topic };
        let mut own = read(reader, owner, part.span.start, &part.settled_above, timeout)?;
        for key in &mut own {
            topic.clone_into(&mut key.topic);
            key.partition = part.span.partition;
        }
        own.sort_by_key(|key| key.offsets.first().copied());
        keys.extend(own);
    }
    Ok(keys)
}

/// Gives out the records that `group` has parked of `topic` and not settled, as they stand in the retry topic; notes are left
/// out. In offset order within each partition, and without remembering any. Blocks, and `wait`s for each record.
///
/// # Errors
/// When the cluster cannot be reached, there is no retry topic, or `each` fails.
pub(crate) fn parked_records<E: From<KafkaError>>(
    kafka: &KafkaConfig,
    group: &str,
    topic: &str,
    timeout: Duration,
    mut drain: impl FnMut(Reader, &mut dyn FnMut(LogRecord) -> Result<(), E>) -> Result<(), E>,
    each: &mut dyn FnMut(LogRecord) -> Result<(), E>,
) -> Result<(), E> {
    for part in unsettled_parts(kafka, group, topic, timeout)? {
        let reader = Reader::over(kafka, vec![part.span], timeout)?;
        drain(reader, &mut |record| {
            let entry = Entry::read(record.headers.iter(), Owner { group, topic });
            let is_parked = matches!(entry, Entry::Parked { .. });
            match is_parked && !part.settled_above.contains(record.offset) {
                true => each(record),
                false => Ok(()),
            }
        })?;
    }
    Ok(())
}

/// What of a retry partition is not settled.
struct Unsettled {
    span: Span,
    settled_above: SettledAbove,
}

fn unsettled_parts(
    kafka: &KafkaConfig,
    group: &str,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<Unsettled>, KafkaError> {
    let retry = retry_topic(group, topic);
    let mut spans: Vec<Span> = {
        let reader = Reader::open(kafka, &Reading::whole([retry.clone()]), timeout)?;
        reader.spans().cloned().collect()
    };
    let partitions: Vec<i32> = spans.iter().map(|span| span.partition).collect();
    let mut parts = Vec::with_capacity(spans.len());
    for found in committed_of(kafka, group, &retry, &partitions, timeout)? {
        let tag = Tag {
            group,
            topic: &retry,
            partition: found.partition,
        };
        let Some(at) = spans
            .iter()
            .position(|span| span.partition == found.partition)
        else {
            continue;
        };
        let span = spans.swap_remove(at);
        let settled_above = found
            .offset
            .map(|start| metadata::decode(tag, start, &found.metadata).settled_above);
        parts.push(Unsettled {
            span: Span {
                // What was deleted is settled.
                start: found.offset.unwrap_or(0).max(span.start),
                ..span
            },
            settled_above: settled_above.unwrap_or_default(),
        });
    }
    Ok(parts)
}

fn committed_of(
    kafka: &KafkaConfig,
    group: &str,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> Result<Vec<Committed>, KafkaError> {
    let what = "reading the group's offsets";
    let client: BaseConsumer = kafka
        .consumer(group)?
        .create()
        .map_err(|error| failed(what, error))?;
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    committed(&client, &list, timeout).map_err(|error| failed(what, error))
}

/// The parked set of one partition.
fn read(
    mut reader: Reader,
    owner: Owner<'_>,
    start: i64,
    settled_above: &SettledAbove,
    timeout: Duration,
) -> Result<Vec<ParkedKey>, KafkaError> {
    let mut known: HashMap<i64, Known> = HashMap::new();
    // As their headers say it: no policy is known here.
    let mut set = Parking::new(start, 0, settled_above.runs(), i64::MAX, false);
    while !reader.at_end() {
        let Some(record) = reader.next(timeout)? else {
            continue;
        };
        let entry = Entry::read(record.headers.iter(), owner);
        let why = || Why::read(record.headers.iter());
        match entry {
            Entry::Parked { origin, .. } => {
                known.insert(record.offset, Known { origin, why: why() });
            }
            Entry::Failed { of, .. } => {
                if let Some(known) = known.get_mut(&of) {
                    let why = why();
                    // A replay does not say since when: its first note does.
                    let since_ms = known.why.since_ms.or(why.since_ms);
                    known.why = Why { since_ms, ..why };
                }
            }
            Entry::Held { .. } | Entry::Unknown | Entry::Foreign => {}
        }
        set.seen(record.offset, record.key.as_deref(), entry, 0);
    }
    let keys = set.waiting().map(|key| {
        let first = key.queue.front().and_then(|offset| known.remove(offset));
        let first = first.unwrap_or_default();
        ParkedKey {
            topic: String::new(),
            partition: 0,
            key: key.name.map(<[u8]>::to_vec),
            offsets: key.queue.iter().copied().collect(),
            origin: first.origin,
            wait: key.wait,
            why: first.why,
            held_for: key.held_for,
        }
    });
    Ok(keys.collect())
}

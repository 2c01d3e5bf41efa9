//! Looks at what of a group is parked, from outside of the group.

use super::super::metadata::{self, SettledAbove, Tag};
use crate::kafka::error::failed;
use crate::kafka::queue::{Committed, committed};
use crate::kafka::reader::{Reader, Reading, Start};
use crate::kafka::{KafkaConfig, KafkaError};
use crate::recovery::parking::Parking;
use crate::recovery::{Entry, Wait, Why, retry_topic};
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
    let retry = retry_topic(group, topic);
    let whole = Reading::whole([retry.clone()]);
    let partitions: Vec<i32> = {
        let reader = Reader::open(kafka, &whole, timeout)?;
        reader.spans().map(|span| span.partition).collect()
    };
    let committed = committed_of(kafka, group, &retry, &partitions, timeout)?;
    let mut keys = Vec::new();
    for found in committed {
        let tag = Tag {
            group,
            topic: &retry,
            partition: found.partition,
        };
        let start = found.offset.unwrap_or(0);
        let settled_above = found
            .offset
            .map(|start| metadata::decode(tag, start, &found.metadata));
        let reading = Reading {
            partitions: vec![found.partition],
            start: found.offset.map_or(Start::Beginning, Start::Offset),
            ..whole.clone()
        };
        let reader = Reader::open(kafka, &reading, timeout)?;
        let mut own = read(reader, start, &settled_above.unwrap_or_default(), timeout)?;
        for key in &mut own {
            topic.clone_into(&mut key.topic);
            key.partition = found.partition;
        }
        own.sort_by_key(|key| key.offsets.first().copied());
        keys.extend(own);
    }
    Ok(keys)
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
        let entry = Entry::read(record.headers.iter());
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
            Entry::Held { .. } | Entry::Unknown => {}
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

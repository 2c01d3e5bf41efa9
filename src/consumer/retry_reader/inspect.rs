//! Reads the records that a group has parked, without being a member of the group.
//!
//! It reads the retry topic from the committed offset, with the settled offsets of the commit
//! metadata, and applies the entries to the same [`ParkedSet`] as a member does. So the tool shows
//! what a member that starts now would find.

use crate::consumer::state::commit_metadata::{self, SettledAbove, Tag};
use crate::kafka::error::failed;
use crate::kafka::log::LoggingContext;
use crate::kafka::native::{Committed, committed, logged_in};
use crate::kafka::reader::{LogRecord, Reader, Reading, Span};
use crate::kafka::{KafkaConfig, KafkaError};
use crate::recovery::parking::ParkedSet;
use crate::recovery::{Owner, ParkedReason as Why, RetryState, RetryTopicEntry, retry_topic};
use rdkafka::TopicPartitionList;
use std::collections::HashMap;
use std::time::Duration;

/// A key of a group whose records wait in the retry topic.
///
/// The records behind the first one wait for it: nothing of the key is handled until it is settled.
/// An operator may retry the key now, drop its first record, or let it wait.
///
/// A default one is empty: for tests of code that lists keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkedKey {
    /// The source topic.
    pub topic: String,
    /// The partition, of the source topic and of the retry topic.
    pub partition: i32,
    /// The key. None for a record without a key, which waits on its own.
    pub key: Option<Vec<u8>>,
    /// Offsets of its records in the retry topic, in the order in which they are handled. Not
    /// offsets of the source topic.
    pub offsets: Vec<i64>,
    /// The offset of its first record in the source topic. None if unknown.
    pub source_offset: Option<i64>,
    /// The attempts at its first record so far, and when the next one is due.
    pub wait: RetryState,
    /// Why it waits, and since when.
    pub why: Why,
    /// The dead letter whose replay the key waits for, by its offset in the source topic
    /// ([`AfterDeadLetter::HoldKey`](crate::consumer::AfterDeadLetter::HoldKey)). None for a key
    /// that waits for its next attempt.
    pub held_for: Option<i64>,
}

/// Data of one parked record beside its place in the queue.
#[derive(Default)]
struct Known {
    source_offset: Option<i64>,
    why: Why,
}

/// Returns the keys of `topic` that `group` has parked, by partition and by the first record of
/// each key. Blocks the calling thread; each request takes at most `timeout`.
///
/// A key is an ordering key by [`RecordOrdering::Key`](crate::consumer::RecordOrdering::Key). Records that are
/// parked or settled during the call may be missing or included.
///
/// # Errors
/// Returns an error if the cluster cannot be reached or the retry topic does not exist.
///
/// It needs the permissions to describe the group and to read the retry topic. It may run beside
/// the group, and changes nothing.
///
/// # Examples
/// ```no_run
/// use evenkeel::consumer::parked_keys;
/// use evenkeel::kafka::KafkaConfig;
/// use std::time::Duration;
///
/// // Blocks: call it on a thread of its own, or in `spawn_blocking`.
/// let kafka = KafkaConfig::from_env()?;
/// for key in parked_keys(&kafka, "payments", "shop.orders", Duration::from_secs(10))? {
///     let name = key.key.as_deref().map(String::from_utf8_lossy);
///     println!("{name:?}: {} records, {} attempts", key.offsets.len(), key.wait.attempts);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn parked_keys(
    kafka: &KafkaConfig,
    group: &str,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<ParkedKey>, KafkaError> {
    let mut keys = Vec::new();
    for part in unsettled_parts(kafka, group, topic, timeout)? {
        let reader = Reader::of_spans(kafka, vec![part.span.clone()], timeout)?;
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

/// Passes the unsettled records that `group` has parked of `topic` to `each`, without the notes
/// between them. They are in offset order within each partition, and none is kept in memory. Blocks
/// the calling thread; each request takes at most `timeout`.
///
/// `drain` is called once for each partition. It must pass every record of the reader to the
/// closure until [`Reader::at_end`]; it decides how long it waits and when it gives up.
///
/// # Errors
/// Returns an error if the cluster cannot be reached, the retry topic does not exist, or `each`
/// fails.
pub fn parked_records<E: From<KafkaError>>(
    kafka: &KafkaConfig,
    group: &str,
    topic: &str,
    timeout: Duration,
    mut drain: impl FnMut(Reader, &mut dyn FnMut(LogRecord) -> Result<(), E>) -> Result<(), E>,
    each: &mut dyn FnMut(LogRecord) -> Result<(), E>,
) -> Result<(), E> {
    for part in unsettled_parts(kafka, group, topic, timeout)? {
        let reader = Reader::of_spans(kafka, vec![part.span], timeout)?;
        drain(reader, &mut |record| {
            let entry = RetryTopicEntry::read(record.headers.iter(), Owner { group, topic });
            let is_parked = matches!(entry, RetryTopicEntry::Parked { .. });
            match is_parked && !part.settled_above.contains(record.offset) {
                true => each(record),
                false => Ok(()),
            }
        })?;
    }
    Ok(())
}

/// The unsettled part of a retry partition: from the committed offset to the end, without the
/// offsets that are settled above it.
struct Unsettled {
    span: Span,
    settled_above: SettledAbove,
}

/// The unsettled part of every partition of the retry topic.
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
            .map(|start| commit_metadata::decode(tag, start, &found.metadata).settled_above);
        parts.push(Unsettled {
            span: Span {
                // Deleted entries are settled.
                start: found.offset.unwrap_or(0).max(span.start),
                ..span
            },
            settled_above: settled_above.unwrap_or_default(),
        });
    }
    Ok(parts)
}

/// The group's committed offsets, read by a client that does not join the group.
fn committed_of(
    kafka: &KafkaConfig,
    group: &str,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> Result<Vec<Committed>, KafkaError> {
    let what = "reading the group's offsets";
    let config = kafka.consumer(group)?;
    let made = logged_in(&config, LoggingContext);
    let (client, _login) = made.map_err(|error| failed(what, error))?;
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    committed(&client, &list, timeout).map_err(|error| failed(what, error))
}

/// Reads the parked keys of one partition.
fn read(
    mut reader: Reader,
    owner: Owner<'_>,
    start: i64,
    settled_above: &SettledAbove,
    timeout: Duration,
) -> Result<Vec<ParkedKey>, KafkaError> {
    let mut known: HashMap<i64, Known> = HashMap::new();
    // Waits are as long as their headers tell: the group's policy is unknown here.
    let mut set = ParkedSet::new(start, 0, settled_above.runs(), i64::MAX, false);
    while !reader.at_end() {
        let Some(record) = reader.next(timeout)? else {
            continue;
        };
        let entry = RetryTopicEntry::read(record.headers.iter(), owner);
        let why = || Why::read(record.headers.iter());
        match entry {
            RetryTopicEntry::Parked { source_offset, .. } => {
                let (source_offset, why) = (source_offset, why());
                known.insert(record.offset, Known { source_offset, why });
            }
            RetryTopicEntry::Failed { retry_offset, .. } => {
                if let Some(known) = known.get_mut(&retry_offset) {
                    let why = why();
                    // A replay has no time. Its first note has.
                    let since_ms = known.why.since_ms.or(why.since_ms);
                    known.why = Why { since_ms, ..why };
                }
            }
            RetryTopicEntry::Held { .. } | RetryTopicEntry::Unknown | RetryTopicEntry::Foreign => {}
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
            source_offset: first.source_offset,
            wait: key.wait,
            why: first.why,
            held_for: key.held_for,
        }
    });
    Ok(keys.collect())
}

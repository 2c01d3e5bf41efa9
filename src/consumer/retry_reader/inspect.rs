//! Reads the progress of a group and the records that it has parked, without being a member of the
//! group.
//!
//! It reads the retry topic from the committed offset, with the settled offsets of the commit
//! metadata, and applies the entries to the same [`ParkedSet`] as a member does. So the tool shows
//! what a member that starts now would find.

use crate::consumer::state::commit_metadata::{self, Tag};
use crate::kafka::admin::Admin;
use crate::kafka::error::failed;
use crate::kafka::log::LoggingContext;
use crate::kafka::native::{Committed, committed, logged_in};
use crate::kafka::reader::{LogRecord, Reader, Reading, Span};
use crate::kafka::{KafkaConfig, KafkaError};
use crate::recovery::parking::ParkedSet;
use crate::recovery::{Owner, ParkedReason as Why, RetryState, RetryTopicEntry, retry_topic};
use rdkafka::TopicPartitionList;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

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
    /// Offsets of the same records in the source topic, in the same order. None if unknown, as for
    /// a record that another program wrote into the retry topic.
    pub source_offsets: Vec<Option<i64>>,
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
    let limit = ReadLimit {
        timeout,
        until: None,
    };
    let parts = unsettled_parts(kafka, group, topic, timeout)?;
    keys_in(kafka, Owner { group, topic }, parts, limit)
}

/// Returns the keys of `topic` that `group` has parked, in some partitions of its retry topic. As
/// [`parked_keys`], which reads all partitions: one is read faster. Reading the records ends
/// `timeout` after the call.
///
/// `progress` is that of the group on the retry topic, by [`group_progress`]. It names the
/// partitions, and where the unsettled entries begin.
///
/// # Errors
/// As for [`parked_keys`], [`KafkaError::UnknownPartition`] for a partition that the retry topic
/// does not have, and [`KafkaError::Timeout`] if the records are not read in time.
///
/// # Examples
/// ```no_run
/// use evenkeel::consumer::{group_progress, parked_keys_in};
/// use evenkeel::kafka::KafkaConfig;
/// use evenkeel::kafka::admin::Admin;
/// use evenkeel::recovery::retry_topic;
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// // Does the record at offset 17 of partition 3 wait in the retry topic?
/// let (kafka, limit) = (KafkaConfig::from_env()?, Duration::from_secs(10));
/// let admin = Admin::connect(&kafka, limit).await?;
/// let retry = retry_topic("payments", "shop.orders");
/// let progress = group_progress(&admin, "payments", &retry, &[3]).await?;
/// let read = move || parked_keys_in(&kafka, "payments", "shop.orders", &progress, limit);
/// let keys = tokio::task::spawn_blocking(read).await??;
/// let waits = keys.iter().any(|key| key.source_offsets.contains(&Some(17)));
/// # Ok(())
/// # }
/// ```
pub fn parked_keys_in(
    kafka: &KafkaConfig,
    group: &str,
    topic: &str,
    progress: &[PartitionProgress],
    timeout: Duration,
) -> Result<Vec<ParkedKey>, KafkaError> {
    let until = Instant::now().checked_add(timeout);
    let limit = ReadLimit { timeout, until };
    let partitions: Vec<i32> = progress.iter().map(|part| part.partition).collect();
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let spans = spans_of(kafka, &retry_topic(group, topic), &partitions, timeout)?;
    let parts = unsettled(spans, progress.to_vec());
    keys_in(kafka, Owner { group, topic }, parts, limit)
}

/// The parked keys in the unsettled parts of partitions.
fn keys_in(
    kafka: &KafkaConfig,
    owner: Owner<'_>,
    parts: Vec<Unsettled>,
    limit: ReadLimit,
) -> Result<Vec<ParkedKey>, KafkaError> {
    let mut keys = Vec::new();
    for part in parts {
        let reader = Reader::of_spans(kafka, vec![part.span.clone()], limit.timeout)?;
        let mut own = read(reader, owner, &part, limit)?;
        for key in &mut own {
            owner.topic.clone_into(&mut key.topic);
            key.partition = part.span.partition;
        }
        own.sort_by_key(|key| key.offsets.first().copied());
        keys.extend(own);
    }
    Ok(keys)
}

/// The progress of a group on one partition, as a member that starts now would find it.
///
/// ```
/// use evenkeel::consumer::PartitionProgress;
///
/// let mut progress = PartitionProgress::new(3);
/// progress.committed = Some(100);
/// progress.settled_above = vec![102..105];
/// assert!(progress.is_settled(99) && progress.is_settled(104));
/// assert!(!progress.is_settled(100) && !progress.is_settled(105));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionProgress {
    /// The partition.
    pub partition: i32,
    /// The committed next offset: the first one that is not settled. None if the group has never
    /// committed, or Kafka has deleted the commit.
    pub committed: Option<i64>,
    /// Offsets above it that are settled too, as ascending ranges. Empty if another client library
    /// committed the offset. A commit has room for a bounded number of ranges: offsets beyond them
    /// count as unsettled until the committed offset passes them.
    pub settled_above: Vec<Range<i64>>,
}

impl PartitionProgress {
    /// A partition without a commit. For tests of code that reads progress.
    pub fn new(partition: i32) -> Self {
        Self {
            partition,
            committed: None,
            settled_above: Vec::new(),
        }
    }

    /// Whether the group has settled the record at this offset: handled, ignored, parked,
    /// dead-lettered or skipped it.
    pub fn is_settled(&self, offset: i64) -> bool {
        let is_below = self.committed.is_some_and(|committed| offset < committed);
        is_below || self.settled_above.iter().any(|run| run.contains(&offset))
    }
}

/// Returns the progress of `group` on these partitions of `topic`, by the committed offsets and
/// their metadata. A topic that does not exist has none.
///
/// One client of the admin asks for all groups. Offsets that a transaction has not committed yet do
/// not count: they are awaited, up to the timeout of the admin.
///
/// It joins no group and reads no record. So it does not notice that a log was truncated or created
/// again since the commit; a member does, and then handles the records again.
///
/// # Errors
/// Returns [`KafkaError::Refused`] if this client may not describe the group or the topic, and an
/// error if the cluster cannot be reached or offsets of a transaction stay pending.
///
/// # Examples
/// ```no_run
/// use evenkeel::consumer::group_progress;
/// use evenkeel::kafka::admin::Admin;
///
/// # async fn example(admin: Admin) -> Result<(), evenkeel::kafka::KafkaError> {
/// for part in group_progress(&admin, "payments", "shop.orders", &[0, 1]).await? {
///     println!("{}: {:?}, and {:?}", part.partition, part.committed, part.settled_above);
/// }
/// # Ok(())
/// # }
/// ```
pub async fn group_progress(
    admin: &Admin,
    group: &str,
    topic: &str,
    partitions: &[i32],
) -> Result<Vec<PartitionProgress>, KafkaError> {
    let committed = admin.committed(group, topic, partitions).await?;
    decoded(group, topic, committed)
}

/// The progress by committed offsets and their metadata.
fn decoded(
    group: &str,
    topic: &str,
    committed: Vec<Committed>,
) -> Result<Vec<PartitionProgress>, KafkaError> {
    let progress = committed.into_iter().map(|found| {
        match found.error {
            // Brokers answer so, or that there is no offset.
            None | Some(Code::UnknownTopicOrPartition) => {}
            Some(code) => return Err(failed(OFFSETS, ClientError::OffsetFetch(code))),
        }
        let partition = found.partition;
        let tag = Tag {
            group,
            topic,
            partition,
        };
        let decoded = found
            .offset
            .map(|offset| commit_metadata::decode(tag, offset, &found.metadata));
        Ok(PartitionProgress {
            partition,
            committed: found.offset,
            settled_above: decoded.unwrap_or_default().settled_above.runs().to_vec(),
        })
    });
    progress.collect()
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
            match is_parked && !part.progress.is_settled(record.offset) {
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
    progress: PartitionProgress,
}

/// The unsettled parts of all partitions of the retry topic.
fn unsettled_parts(
    kafka: &KafkaConfig,
    group: &str,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<Unsettled>, KafkaError> {
    let retry = retry_topic(group, topic);
    let spans = spans_of(kafka, &retry, &[], timeout)?;
    let partitions: Vec<i32> = spans.iter().map(|span| span.partition).collect();
    let committed = committed_of(kafka, group, &retry, &partitions, timeout)?;
    Ok(unsettled(spans, decoded(group, &retry, committed)?))
}

/// The offsets of these partitions of a topic, or of all if there are none.
fn spans_of(
    kafka: &KafkaConfig,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> Result<Vec<Span>, KafkaError> {
    let partitions = partitions.iter().copied();
    let reading = Reading::whole([topic.to_owned()]).with_partitions(partitions);
    let reader = Reader::open(kafka, &reading, timeout)?;
    Ok(reader.spans().cloned().collect())
}

/// The unsettled parts of those partitions whose offsets and progress are known.
fn unsettled(mut spans: Vec<Span>, progress: Vec<PartitionProgress>) -> Vec<Unsettled> {
    let parts = progress.into_iter().filter_map(|progress| {
        let mut all = spans.iter();
        let at = all.position(|span| span.partition == progress.partition)?;
        let span = spans.swap_remove(at);
        Some(Unsettled {
            span: Span {
                // Deleted entries are settled.
                start: progress.committed.unwrap_or(0).max(span.start),
                ..span
            },
            progress,
        })
    });
    parts.collect()
}

/// The request for committed offsets, in errors.
const OFFSETS: &str = "reading the group's offsets";

/// The group's committed offsets, read by a client that does not join the group.
fn committed_of(
    kafka: &KafkaConfig,
    group: &str,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> Result<Vec<Committed>, KafkaError> {
    let config = kafka.consumer(group)?;
    let made = logged_in(&config, LoggingContext);
    let (client, _login) = made.map_err(|error| failed(OFFSETS, error))?;
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    committed(&client, &list, timeout).map_err(|error| failed(OFFSETS, error))
}

/// The limits of a reading loop.
#[derive(Clone, Copy)]
struct ReadLimit {
    /// Of each poll.
    timeout: Duration,
    /// When the loop ends.
    until: Option<Instant>,
}

impl ReadLimit {
    /// The timeout of the next poll.
    fn next(self) -> Result<Duration, KafkaError> {
        let Some(until) = self.until else {
            return Ok(self.timeout);
        };
        match until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(KafkaError::Timeout {
                what: "reading the parked records".to_owned(),
                seconds: self.timeout.as_secs(),
            }),
            left => Ok(left.min(self.timeout)),
        }
    }
}

/// Reads the parked keys of one partition.
fn read(
    mut reader: Reader,
    owner: Owner<'_>,
    part: &Unsettled,
    limit: ReadLimit,
) -> Result<Vec<ParkedKey>, KafkaError> {
    let mut known: HashMap<i64, Known> = HashMap::new();
    // Waits are as long as their headers tell: the group's policy is unknown here.
    let settled_above = &part.progress.settled_above;
    let mut set = ParkedSet::new(part.span.start, 0, settled_above, i64::MAX, false);
    while !reader.at_end() {
        let Some(record) = reader.next(limit.next()?)? else {
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
        let source_of = |offset: &i64| known.get(offset)?.source_offset;
        let source_offsets = key.queue.iter().map(source_of).collect();
        let first = key.queue.front().and_then(|offset| known.remove(offset));
        let first = first.unwrap_or_default();
        ParkedKey {
            topic: String::new(),
            partition: 0,
            key: key.name.map(<[u8]>::to_vec),
            offsets: key.queue.iter().copied().collect(),
            source_offsets,
            source_offset: first.source_offset,
            wait: key.wait,
            why: first.why,
            held_for: key.held_for,
        }
    });
    Ok(keys.collect())
}

//! Deletes dead letters that are no longer needed.
//!
//! Kafka can only delete the beginning of a partition. A purge therefore deletes up to the first
//! dead letter that must remain.
//!
//! Deleted records cannot be restored, so the cut of a partition (its first offset that remains) is
//! determined by expiry, and the steps after it only lower it: the restriction to a group, then the
//! existing offsets. A topic is refused as a whole if a record before a cut is no dead letter.
//!
//! ```no_run
//! use evenkeel::kafka::admin::Admin;
//! use evenkeel_ops::dead_letters::DeadLetterError;
//! use evenkeel_ops::dead_letters::purge::{Expired, PurgeSettings, purge};
//! use evenkeel_ops::{Cluster, SilentObserver};
//! use std::sync::Arc;
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(cluster: Cluster, admin: Admin) -> Result<(), DeadLetterError> {
//! let topics = ["dlq.payments.shop.orders".to_owned()];
//! let dry_run = PurgeSettings::new(Expired::Replayed);
//! let stop = CancellationToken::new();
//! let purged = purge(&cluster, &admin, &topics, &dry_run, &stop, Arc::new(SilentObserver)).await?;
//! for cut in purged.iter().flat_map(|purge| &purge.cuts) {
//!     println!("{}/{}: {} would be deleted", cut.topic, cut.partition, cut.delete);
//! }
//! # Ok(())
//! # }
//! ```

use super::record::drain;
use super::replay::write_entries;
use super::{DeadLetterError, DeadLetterRecord, End, replay_log};
use crate::cluster::EVENT_SOURCE;
use crate::{Cluster, Observer, blocking};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::{Reader, Reading, Start};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::recovery::{DeadLetter, ReplayLog, ReplayLogEntry, replay_topic};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Which dead letters are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expired {
    /// Dead letters that were written before this time, replayed or not.
    Before(Timestamp),
    /// Dead letters that were replayed, according to the replay log.
    Replayed,
}

/// Settings of a purge. See the module's example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PurgeSettings {
    /// Which dead letters to delete.
    pub expired: Expired,
    /// Restricts the purge to the dead letters of this group, if groups share a topic. Those of
    /// another group, and all behind them, remain. Default: all groups.
    pub group: Option<String>,
    /// Whether to delete. If false, the purge is only computed. Default: false.
    pub execute: bool,
}

impl PurgeSettings {
    /// Creates the settings of a dry run for all groups.
    pub fn new(expired: Expired) -> Self {
        Self {
            expired,
            group: None,
            execute: false,
        }
    }

    /// Sets [`expired`](Self::expired).
    #[must_use]
    pub fn with_expired(mut self, expired: Expired) -> Self {
        self.expired = expired;
        self
    }

    /// Sets [`group`](Self::group).
    #[must_use]
    pub fn with_group(mut self, group: impl Into<Option<String>>) -> Self {
        self.group = group.into();
        self
    }

    /// Sets [`execute`](Self::execute).
    #[must_use]
    pub fn with_execute(mut self, execute: bool) -> Self {
        self.execute = execute;
        self
    }
}

/// The result of a purge or of its dry run.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Purge {
    /// Deleted offsets by topic and partition.
    pub cuts: Vec<PurgedPartition>,
    /// Number of replayed dead letters that remain, because they follow one that was not replayed.
    /// Counted for [`Expired::Replayed`].
    pub stranded: usize,
}

/// Deletes dead letters from the topics. Returns `None` if `stop` is cancelled first; it is checked
/// between two topics. The marks of deleted dead letters are removed from the replay log.
///
/// The topics are purged one after the other. After an error or a stop, those before it stay
/// purged; call it again for the others. It does not check a topic's name: see [`check_purpose`].
///
/// # Errors
/// [`DeadLetterError::NoDeadLetter`] if a record to be deleted is no dead letter. Also if a request
/// to the cluster fails.
pub async fn purge(
    cluster: &Cluster,
    admin: &Admin,
    topics: &[String],
    settings: &PurgeSettings,
    stop: &CancellationToken,
    observer: Arc<dyn Observer>,
) -> Result<Option<Purge>, DeadLetterError> {
    let mut purge = Purge::default();
    for topic in topics {
        let replays = replay_log::read_topic(cluster, topic).await?.replays;
        let (at, token, name) = (cluster.clone(), stop.clone(), topic.clone());
        let (settings_of, observer) = (settings.clone(), Arc::clone(&observer));
        let compute = move || {
            let cuts = cuts(&at, &name, &settings_of, &replays, &token, &*observer);
            (cuts, replays)
        };
        let (cuts, replays) = blocking::run(compute).await;
        let cuts = cuts?.unwrap_or_default();
        if stop.is_cancelled() {
            return Ok(None);
        }
        let mut cuts = purged_partitions(admin, topic, &cuts, &replays).await?;
        if settings.expired == Expired::Replayed {
            purge.stranded += cuts
                .iter()
                .map(|cut| remaining_replayed(&replays, cut))
                .sum::<usize>();
        }
        if settings.execute {
            delete(cluster, admin, topic, &mut cuts, &replays).await?;
        }
        purge.cuts.extend(cuts);
    }
    Ok(Some(purge))
}

/// The cuts of a topic. `None` if cancelled first. Blocks.
fn cuts(
    cluster: &Cluster,
    topic: &str,
    settings: &PurgeSettings,
    replays: &ReplayLog,
    stop: &CancellationToken,
    observer: &dyn Observer,
) -> Result<Option<Cuts>, DeadLetterError> {
    let mut cuts = match settings.expired {
        Expired::Before(time) => Some(cuts_before(cluster, topic, time)?),
        Expired::Replayed => cuts_replayed(cluster, topic, replays, stop)?,
    };
    if let (Some(all), Some(group)) = (&cuts, &settings.group) {
        cuts = limit_to_group(cluster, topic, group, all.clone(), stop, observer)?;
    }
    if let Some(cuts) = &cuts {
        reject_other_records(cluster, topic, cuts, stop)?;
    }
    Ok(cuts)
}

/// Rejects a topic whose name shows that it holds no dead letters: retry topics, control topics,
/// replay logs, Kafka's own topics, and topics to which services publish, for which `is_declared`
/// returns true.
///
/// ```
/// use evenkeel_ops::dead_letters::purge::check_purpose;
///
/// let is_declared = |topic: &str| topic == "shop.orders";
/// assert!(check_purpose("dlq.payments.shop.orders", is_declared).is_ok());
/// assert!(check_purpose("retry.payments.shop.orders", is_declared).is_err());
/// assert!(check_purpose("shop.orders", is_declared).is_err());
/// ```
///
/// # Errors
/// [`DeadLetterError::OtherPurpose`] for such a topic.
pub fn check_purpose(
    topic: &str,
    is_declared: impl Fn(&str) -> bool,
) -> Result<(), DeadLetterError> {
    match purpose(topic, is_declared) {
        Some(holds) => Err(DeadLetterError::OtherPurpose {
            topic: topic.to_owned(),
            holds,
        }),
        None => Ok(()),
    }
}

/// The content of such a topic. `None` if the name allows dead letters.
fn purpose(topic: &str, is_declared: impl Fn(&str) -> bool) -> Option<&'static str> {
    const OTHER_PURPOSES: [(&str, &str); 4] = [
        ("retry.", "records that wait for their next attempt"),
        ("control.", "the commands of a group"),
        ("replays.", "records of which dead letters were replayed"),
        ("__", "data of Kafka itself"),
    ];
    // Retry topics of Spring and SmallRye: their waiting records have failure headers.
    let behind_retry = topic
        .rsplit_once("-retry")
        .map(|(_, rest)| rest.trim_start_matches('-'));
    let is_foreign_retry = behind_retry
        .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
        || topic.contains("delayed-retry");
    let foreign = is_foreign_retry.then_some(&(
        "",
        "records that wait for their next attempt, according to its name",
    ));
    let other = OTHER_PURPOSES
        .iter()
        .find(|(prefix, _)| topic.starts_with(prefix))
        .or(foreign);
    match other {
        Some((_, holds)) => Some(holds),
        None => is_declared(topic).then_some("events that services publish"),
    }
}

/// The deleted and the remaining offsets of a partition. Its serialised form is stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PurgedPartition {
    /// Name of the dead-letter topic.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// First offset before the purge.
    pub low: i64,
    /// First offset that remains.
    pub before: i64,
    /// Number of deleted offsets.
    pub delete: i64,
    /// Number of deleted dead letters that were replayed.
    pub replayed: usize,
    /// Number of remaining offsets.
    pub keep: i64,
    /// Whether the offsets were deleted. False in a dry run.
    pub done: bool,
}

/// First remaining offset by partition. Partitions without a cut keep everything.
type Cuts = BTreeMap<i32, i64>;

/// Cuts before the first record of `time` or later. The brokers look the offsets up by timestamp;
/// no record is read. Blocks.
fn cuts_before(cluster: &Cluster, topic: &str, time: Timestamp) -> Result<Cuts, KafkaError> {
    let reading = Reading::whole([topic]).with_start(Start::Time(time.as_millisecond()));
    let reader = Reader::open(&cluster.kafka, &reading, cluster.timeout)?;
    Ok(reader
        .spans()
        .map(|span| (span.partition, span.start))
        .collect())
}

/// Cuts before the first dead letter that was not replayed. `None` if cancelled first. Reads until
/// every partition has a cut. Blocks.
fn cuts_replayed(
    cluster: &Cluster,
    topic: &str,
    replays: &ReplayLog,
    stop: &CancellationToken,
) -> Result<Option<Cuts>, KafkaError> {
    let mut reader = Reader::open(&cluster.kafka, &Reading::whole([topic]), cluster.timeout)?;
    let ends = reader
        .spans()
        .filter_map(|span| Some((span.partition, span.end?)));
    let mut cuts: Cuts = ends.collect();
    let mut open = cuts.len();
    let mut closed = Cuts::new();
    let end = drain(&mut reader, stop, |record| {
        let (partition, offset) = (record.partition, record.offset);
        let is_replayed = replays.contains(partition, offset, record.timestamp_ms);
        if !is_replayed && !closed.contains_key(&partition) {
            closed.insert(partition, offset);
            open -= 1;
        }
        Ok::<bool, KafkaError>(open > 0)
    })?;
    cuts.extend(closed);
    Ok((end != End::Stopped).then_some(cuts))
}

/// Limits cuts to the group's own dead letters. Names can coincide: group `a` with topic `b.c` and
/// group `a.b` with topic `c` write to one topic. `None` if cancelled first.
fn limit_to_group(
    cluster: &Cluster,
    topic: &str,
    group: &str,
    mut cuts: Cuts,
    stop: &CancellationToken,
    observer: &dyn Observer,
) -> Result<Option<Cuts>, KafkaError> {
    let mut reader = Reader::open(&cluster.kafka, &Reading::whole([topic]), cluster.timeout)?;
    let mut foreign = None;
    let end = drain(&mut reader, stop, |record| {
        let failure = DeadLetter::read(record.headers.iter());
        if let (Some(other), Some(cut)) = (failure.group, cuts.get_mut(&record.partition))
            && other != group
            && record.offset < *cut
        {
            *cut = record.offset;
            foreign.get_or_insert(other);
        }
        Ok::<bool, KafkaError>(true)
    })?;
    if let Some(other) = foreign {
        observer.notice(&format!(
            "{topic} also holds dead letters of the group {other}: they remain, with all records \
             behind them; name the topic instead of the group to delete them too"
        ));
    }
    Ok((end != End::Stopped).then_some(cuts))
}

/// Fails if a record before the cuts has none of the failure headers that [`DeadLetterRecord`]
/// reads.
fn reject_other_records(
    cluster: &Cluster,
    topic: &str,
    cuts: &Cuts,
    stop: &CancellationToken,
) -> Result<(), DeadLetterError> {
    let mut reader = Reader::open(&cluster.kafka, &Reading::whole([topic]), cluster.timeout)?;
    let is_deleted = |partition, offset| cuts.get(&partition).is_some_and(|cut| offset < *cut);
    let mut open: BTreeSet<i32> = reader
        .spans()
        .filter(|span| is_deleted(span.partition, span.start))
        .map(|span| span.partition)
        .collect();
    if open.is_empty() {
        return Ok(());
    }
    drain(&mut reader, stop, |record| {
        let (partition, offset) = (record.partition, record.offset);
        if !is_deleted(partition, offset) {
            open.remove(&partition);
        } else {
            let dead_letter = DeadLetterRecord::new(record);
            if dead_letter.failure.family.is_none() {
                let position = dead_letter.position();
                return Err(DeadLetterError::NoDeadLetter { position });
            }
        }
        Ok(!open.is_empty())
    })?;
    Ok(())
}

/// The cuts, limited to the existing offsets of each partition, with the number of offsets on each
/// side.
async fn purged_partitions(
    admin: &Admin,
    topic: &str,
    cuts: &Cuts,
    replays: &ReplayLog,
) -> Result<Vec<PurgedPartition>, KafkaError> {
    let described = admin.describe_topic(topic).await?;
    let cut = |partition: &evenkeel::kafka::admin::PartitionDescription| {
        let (first, end) = (partition.low, partition.high);
        let before = cuts
            .get(&partition.partition)
            .map_or(first, |cut| (*cut).clamp(first, end));
        PurgedPartition {
            topic: topic.to_owned(),
            partition: partition.partition,
            low: first,
            before,
            delete: before - first,
            replayed: replays
                .before(partition.partition, before)
                .filter(|offset| *offset >= first)
                .count(),
            keep: end - before,
            done: false,
        }
    };
    // The offsets of a partition without a leader are unknown.
    let led = described
        .partitions
        .iter()
        .filter(|partition| partition.low >= 0);
    Ok(led.map(cut).collect())
}

/// Number of replayed dead letters that remain.
fn remaining_replayed(replays: &ReplayLog, cut: &PurgedPartition) -> usize {
    let all = replays.before(cut.partition, i64::MAX);
    all.filter(|offset| *offset >= cut.before).count()
}

/// Deletes the records, and removes them from the replay log. In this order: a mark without its
/// dead letter is harmless, a dead letter without its mark would be replayed again.
async fn delete(
    cluster: &Cluster,
    admin: &Admin,
    topic: &str,
    cuts: &mut [PurgedPartition],
    replays: &ReplayLog,
) -> Result<(), DeadLetterError> {
    let before: Cuts = cuts
        .iter()
        .filter(|cut| cut.delete > 0)
        .map(|cut| (cut.partition, cut.before))
        .collect();
    admin.delete_records(topic, &before).await?;
    for cut in cuts.iter_mut() {
        cut.done = cut.delete > 0;
    }
    let removed: Vec<ReplayLogEntry> = before
        .iter()
        .flat_map(|(partition, before)| {
            let offsets = replays.before(*partition, *before);
            offsets.map(|offset| ReplayLogEntry::DeadLetter {
                partition: *partition,
                offset,
                replayed: None,
            })
        })
        .collect();
    if let (false, Some(log)) = (removed.is_empty(), replay_topic(topic)) {
        let publisher = Publisher::new(&cluster.kafka, PublisherSettings::new(EVENT_SOURCE))?;
        write_entries(&publisher, &log, &removed).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_hold_something_else_are_refused_by_name() {
        let check = |topic: &str, expected| {
            let is_declared = |topic: &str| topic == "shop.orders";
            let refused = check_purpose(topic, is_declared).is_err();
            assert_eq!(refused, expected, "{topic}");
        };
        check("dlq.payments.shop.orders", false);
        check("orders-dlt", false);
        check("retry.payments.shop.orders", true);
        check("control.payments", true);
        check("replays.dlq.payments.shop.orders", true);
        check("__consumer_offsets", true);
        check("shop.orders", true);
    }
}

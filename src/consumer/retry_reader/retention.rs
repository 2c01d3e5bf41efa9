//! Deletes settled records from the retry topics, which have no retention of their own.
//!
//! Entries of other groups are not deleted. If the names of two groups combine to the same retry
//! topic, it has entries of both. Only the beginning of a partition can be deleted, so that
//! deletion ends at the first entry of another group.
//!
//! # Retention by snapshots
//!
//! A record may be deleted when it has been *settled* for the retention time, which the log does
//! not tell. So the committed offsets are noted at intervals, and an offset that was committed a
//! retention time ago bounds the deletion. The notes are in memory: after a restart the time starts
//! again.
//!
//! `DeleteRecords` moves the first offset of a partition. It needs the permission `Delete` on the
//! topic.
//!
//! # Example
//!
//! With a retention of an hour, snapshots are taken about once a minute: 12:00 → offset 40, 12:01 →
//! 55, and so on. At 13:00 the first is an hour old. Everything before 40 has been settled for an
//! hour and is deleted; 40 to 54 follow at 13:01.

use crate::consumer::shared::Shared;
use crate::consumer::shared::retry_topics::DeletionBounds;
use crate::kafka::admin::Admin;
use crate::kafka::reader::{Reader, Span};
use crate::kafka::{KafkaConfig, KafkaError};
use crate::recovery::parked::Owner;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;

/// The longest interval between deletions.
const DELETE_EVERY: Duration = Duration::from_secs(60);

/// About how many snapshots of the committed offsets are kept: the resolution of the retention
/// time.
const SNAPSHOTS_MAX: u32 = 64;

/// Committed offsets of retry partitions.
type Committed = HashMap<(Arc<str>, i32), i64>;

/// Deletes records that have been settled for the retention time, until the handle is dropped.
///
/// The interval is the retention time, at least a second and at most a minute.
pub(in crate::consumer) fn spawn(
    shared: &Arc<Shared>,
    kafka: KafkaConfig,
    admin: Admin,
) -> AbortOnDropHandle<()> {
    let shared = Arc::clone(shared);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let retention = shared.settings.retry_topic_retention;
        let interval = retention.clamp(Duration::from_secs(1), DELETE_EVERY);
        let (mut deleted, mut snapshots) = (Committed::new(), VecDeque::new());
        loop {
            tokio::time::sleep(interval).await;
            let is_due = |(at, _): &(Instant, Committed)| at.elapsed() >= retention / SNAPSHOTS_MAX;
            if snapshots.back().is_none_or(is_due) {
                snapshots.push_back((Instant::now(), shared.retry_topics.committed()));
            }
            let mut due = Committed::new();
            while let Some((_, snapshot)) =
                snapshots.pop_front_if(|(at, _)| at.elapsed() >= retention)
            {
                due = snapshot;
            }
            if let Err(error) = delete_settled(&shared, &kafka, &admin, due, &mut deleted).await {
                // Brokers may refuse it. Settled records then only take up space.
                tracing::debug!(
                    group = shared.group,
                    %error,
                    "settled records of the retry topics are not deleted"
                );
            }
        }
    }))
}

/// Deletes the records before these committed offsets, unless they were deleted before.
///
/// All topics are tried; the last error is returned. Offsets that were deleted are remembered, so
/// that nothing is requested twice.
async fn delete_settled(
    shared: &Arc<Shared>,
    kafka: &KafkaConfig,
    admin: &Admin,
    committed: Committed,
    deleted: &mut Committed,
) -> Result<(), KafkaError> {
    let mut due: BTreeMap<Arc<str>, BTreeMap<i32, i64>> = BTreeMap::new();
    for ((topic, partition), committed) in committed {
        let place = (Arc::clone(&topic), partition);
        if deleted.get(&place).copied().unwrap_or(0) >= committed {
            continue;
        }
        let Some(before) = deletable(shared, kafka, &place, committed).await? else {
            continue;
        };
        if deleted.get(&place).copied().unwrap_or(0) < before {
            due.entry(topic).or_default().insert(partition, before);
        }
    }
    if due.is_empty() {
        return Ok(());
    }
    let mut result = Ok(());
    for (topic, before) in due {
        match admin.delete_records(&topic, &before).await {
            Ok(firsts) => {
                let places = firsts.into_iter();
                deleted.extend(
                    places.map(|(partition, first)| ((Arc::clone(&topic), partition), first)),
                );
            }
            Err(error) => result = Err(error),
        }
    }
    result
}

/// The offset before which a partition may be deleted. None if it is unknown or the partition was
/// revoked. Reads the beginning of the partition once per assignment, for entries of other groups.
async fn deletable(
    shared: &Arc<Shared>,
    kafka: &KafkaConfig,
    place: &(Arc<str>, i32),
    committed: i64,
) -> Result<Option<i64>, KafkaError> {
    let (topic, partition) = place;
    let known = shared.retry_topics.bounds().get(topic, *partition).copied();
    if let Some(unread) = known.as_ref().and_then(DeletionBounds::unread) {
        let span = Span {
            topic: Arc::clone(topic),
            partition: *partition,
            start: unread.start,
            end: Some(unread.end),
        };
        let (for_read, kafka) = (Arc::clone(shared), kafka.clone());
        let read = move || first_foreign(&for_read, &kafka, span);
        let found = tokio::task::spawn_blocking(read).await;
        let foreign = found.map_err(|error| KafkaError::Unreadable {
            what: "looking for entries of other groups".to_owned(),
            cause: error.to_string(),
        })??;
        // It may have been revoked and assigned again meanwhile, with more entries settled before.
        if let Some(bounds) = shared.retry_topics.bounds().get(topic, *partition)
            && bounds.unread() == known.as_ref().and_then(DeletionBounds::unread)
        {
            bounds.mark_read(foreign);
        }
    }
    let bounds = shared.retry_topics.bounds().get(topic, *partition).copied();
    let known = bounds.filter(|bounds| bounds.unread().is_none());
    Ok(known.map(|bounds| bounds.deletable(committed)))
}

/// The first entry of another group in these offsets.
///
/// Blocks, while it reads from the first offset to the start of this assignment.
fn first_foreign(
    shared: &Shared,
    kafka: &KafkaConfig,
    span: Span,
) -> Result<Option<i64>, KafkaError> {
    let within = shared.settings.startup_timeout;
    let source = shared
        .settings
        .topics
        .iter()
        .find(|topic| *crate::recovery::retry_topic(&shared.group, topic) == *span.topic);
    let Some(topic) = source else {
        return Ok(None);
    };
    let owner = Owner {
        group: &shared.group,
        topic,
    };
    let mut reader = Reader::of_spans(kafka, vec![span], within)?;
    while !reader.at_end() {
        if let Some(record) = reader.next(within)?
            && !owner.owns(record.headers.iter())
        {
            return Ok(Some(record.offset));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletion_ends_at_the_first_entry_of_another_group() {
        let mut bounds = DeletionBounds::new(10, 10);
        assert_eq!(bounds.unread(), None);
        assert_eq!(bounds.deletable(50), 50);
        bounds.add_foreign(Some(30));
        bounds.add_foreign(Some(40));
        assert_eq!(bounds.deletable(50), 30);
        assert_eq!(bounds.deletable(20), 20);
    }

    #[test]
    fn entries_settled_before_the_assignment_are_checked_once() {
        let mut bounds = DeletionBounds::new(10, 25);
        assert_eq!(bounds.unread(), Some(10..25));
        bounds.mark_read(Some(12));
        assert_eq!(bounds.unread(), None);
        assert_eq!(bounds.deletable(50), 12);
        let mut bounds = DeletionBounds::new(10, 25);
        bounds.mark_read(None);
        assert_eq!(bounds.deletable(50), 50);
    }
}

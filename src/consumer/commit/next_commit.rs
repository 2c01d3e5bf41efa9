//! Decides which commit of a partition is due. Knows no client.

use crate::consumer::commit::requests::OwnedPartition;
use crate::consumer::commit::telemetry::PartitionGauges;
use crate::consumer::state::commit_metadata::{self, Encoded, Tag};
use crate::consumer::state::offset_tracker::{Epoch, PartitionProgress};
use crate::kafka::native::TopicId;
use rdkafka::error::RDKafkaErrorCode as Code;
use std::time::{Duration, Instant};

/// The age at which the commit of a retry partition is repeated.
const REPEAT_AFTER: Duration = Duration::from_secs(12 * 3_600);

/// The last commit of one assignment, and its gauges.
pub(super) struct TrackedPartition {
    /// The partition, with its committed offset.
    pub(super) owned: OwnedPartition,
    /// The time of the last accepted commit, or of the assignment.
    pub(super) committed_at: Instant,
    /// The metadata of the last accepted commit.
    pub(super) metadata: Option<String>,
    /// Whether all settled offsets fitted into the last commit.
    pub(super) is_whole: bool,
    /// Why the last commit was refused.
    pub(super) refused: Option<Code>,
    /// The id of the assigned topic, once it is known.
    pub(super) topic_id: Option<TopicId>,
    pub(super) gauges: PartitionGauges,
}

/// A commit that is due: the offset, the epoch of its log, and the metadata.
///
/// The epoch of the log goes with the offset (KIP-320), so that a client that starts there has it
/// verified.
pub(super) struct DueCommit {
    pub(super) epoch: Epoch,
    pub(super) offset: i64,
    pub(super) leader_epoch: Option<i32>,
    pub(super) metadata: Encoded,
}

/// The commit that is due for a partition. None before the first record, or without progress.
///
/// Its offset is never below the committed one, unless the assignment started below it. With
/// `is_forced` it is due without progress: for a member that the group refuses, as the answer to a
/// commit shows whether the group still does.
pub(super) fn due(
    tracked: &TrackedPartition,
    position: &PartitionProgress,
    group: &str,
    now: Instant,
    metadata_max: usize,
    is_forced: bool,
) -> Option<DueCommit> {
    let watermark = position.watermark?;
    let owned = &tracked.owned;
    let is_step_back = owned
        .committed
        .is_some_and(|committed| watermark < committed);
    if is_step_back && !position.may_step_back {
        return None;
    }
    let tag = Tag {
        group,
        topic: &owned.topic,
        partition: owned.partition,
    };
    let (log, next) = (position.log, position.next?);
    let mut metadata =
        commit_metadata::encode(tag, log, watermark, next, &position.unsettled, metadata_max);
    metadata.is_whole &= position.is_whole;
    let is_new = owned.committed != Some(watermark) || tracked.metadata != metadata.text;
    // Committed offsets of topics without a subscription expire after days (KIP-211).
    let is_old = now.saturating_duration_since(tracked.committed_at) > REPEAT_AFTER;
    (is_new || is_forced || owned.parked_of.is_some() && is_old).then_some(DueCommit {
        epoch: position.epoch,
        offset: watermark,
        leader_epoch: log.leader_epoch,
        metadata,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::state::commit_metadata::Log;
    use crate::consumer::state::partition::Partition;
    use std::sync::Arc;

    fn tracked(committed: Option<i64>) -> TrackedPartition {
        let owned = OwnedPartition {
            epoch: Epoch(1),
            topic: "t".into(),
            partition: 0,
            committed,
            parked_of: None,
        };
        TrackedPartition {
            owned,
            committed_at: Instant::now(),
            metadata: None,
            is_whole: true,
            refused: None,
            topic_id: None,
            gauges: PartitionGauges::noop(),
        }
    }

    fn position(watermark: Option<i64>, next: Option<i64>) -> PartitionProgress {
        PartitionProgress {
            epoch: Epoch(1),
            watermark,
            next,
            unsettled: Vec::new(),
            log: Log::default(),
            is_whole: true,
            may_step_back: false,
            oldest_received_at: None,
        }
    }

    fn due_now(tracked: &TrackedPartition, position: &PartitionProgress) -> Option<DueCommit> {
        due(
            tracked,
            position,
            "g",
            Instant::now(),
            commit_metadata::BYTES_MAX,
            false,
        )
    }

    #[test]
    fn only_progress_is_committed_and_never_a_step_back() {
        let offset = |committed, watermark| {
            due_now(&tracked(committed), &position(watermark, watermark)).map(|due| due.offset)
        };
        assert_eq!(offset(None, None), None);
        assert_eq!(offset(None, Some(5)), Some(5));
        assert_eq!(offset(Some(5), Some(5)), None);
        assert_eq!(offset(Some(5), Some(6)), Some(6));
        assert_eq!(offset(Some(5), Some(4)), None);
    }

    #[test]
    fn a_partition_that_fell_back_is_committed_lower() {
        let fallen = PartitionProgress {
            may_step_back: true,
            ..position(Some(4), Some(4))
        };
        let due = due_now(&tracked(Some(900)), &fallen).map(|due| due.offset);
        assert_eq!(due, Some(4));
    }

    #[test]
    fn records_settled_above_a_slow_one_are_committed_as_metadata() {
        let position = PartitionProgress {
            unsettled: vec![5..6],
            ..position(Some(5), Some(9))
        };
        let due = due_now(&tracked(Some(5)), &position).expect("three offsets are settled above");
        assert_eq!(due.offset, 5);
        let again = TrackedPartition {
            metadata: due.metadata.text.clone(),
            ..tracked(Some(5))
        };
        assert!(due.metadata.text.is_some() && due_now(&again, &position).is_none());
    }

    #[test]
    fn only_retry_partitions_repeat_an_old_commit() {
        let retry_of = |parked_of| {
            let mut retry = tracked(Some(5));
            retry.owned.parked_of = parked_of;
            retry
        };
        let source = Partition::new("s".into(), 0, Epoch(2), None);
        let (retry, own) = (retry_of(Some(Arc::new(source))), retry_of(None));
        let is_due = |tracked: &TrackedPartition, age: Duration| {
            let now = tracked.committed_at + age;
            let position = position(Some(5), Some(5));
            due(
                tracked,
                &position,
                "g",
                now,
                commit_metadata::BYTES_MAX,
                false,
            )
            .is_some()
        };
        assert!(!is_due(&retry, REPEAT_AFTER));
        assert!(is_due(&retry, REPEAT_AFTER * 2));
        assert!(!is_due(&own, REPEAT_AFTER * 2));
    }
}

//! Requests to the committing thread, and the partitions that it commits for.
//!
//! The sender waits for an answer up to a deadline, or not at all. A dropped answer (the committing
//! thread has ended) counts as a failure. Epochs that are not tracked any more are ignored, so that
//! a late request has no effect.
//!
//! | request | sent by | waits for the answer |
//! |---|---|---|
//! | assigned, forget | rebalance, pause, reset | no |
//! | commit | revoke, stop; a drained pause without an answer | up to 5 s |
//! | commit and look up | resume | no: a later turn takes it |
//! | set back | log reset | up to 5 s |
//! | close | the end of the poll thread | it joins the thread |

use crate::consumer::state::assignments::Assigned;
use crate::consumer::state::commit_metadata::Log;
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::partition::Partition;
use crate::kafka::native::{Committed, committed};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long a lookup of committed offsets may take.
pub(crate) const COMMITTED_WITHIN: Duration = Duration::from_secs(5);
/// How long a revoke waits for one commit.
pub(crate) const COMMIT_WITHIN: Duration = Duration::from_secs(5);

/// A partition by name.
pub(crate) type TopicPartition = (Arc<str>, i32);

/// The group's committed offsets by partition.
pub(crate) type CommittedPositions = HashMap<(String, i32), Committed>;

/// A request to the committing thread.
pub(crate) enum CommitRequest {
    /// Commit for these partitions from now on.
    Assigned(Vec<OwnedPartition>),
    /// Commit the settled offsets of these epochs, and answer whether that succeeded.
    Commit(Vec<Epoch>, mpsc::Sender<bool>),
    /// Commit the settled offsets of these epochs, then look up the committed offsets of these
    /// partitions. After a failed commit, the answer is none.
    ///
    /// Both in one request, so that no commit of these partitions can come between them.
    CommitAndLookUp(
        Vec<Epoch>,
        Vec<TopicPartition>,
        mpsc::Sender<Option<KafkaResult<CommittedPositions>>>,
    ),
    /// Commit these positions even below the committed ones, and answer whether that succeeded.
    ///
    /// The offsets of a log that was reset.
    CommitReset(Vec<PositionReset>, mpsc::Sender<bool>),
    /// Stop committing for these epochs. Their partitions were revoked.
    Forget(Vec<Epoch>),
    /// The last request.
    Close,
}

/// A partition that is committed for.
pub(crate) struct OwnedPartition {
    pub(crate) epoch: Epoch,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// The group's committed offset, as far as this member knows. None if there is none.
    pub(crate) committed: Option<i64>,
    /// For a retry partition, the source partition.
    pub(crate) parked_of: Option<Arc<Partition>>,
}

/// Where a partition continues after a log reset.
pub(crate) struct PositionReset {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// The offset of the next record.
    pub(crate) offset: i64,
    /// The new log: its id and leader epoch go into the commit.
    pub(crate) log: Log,
}

/// An open query for the positions of partitions that are to be resumed.
pub(crate) struct PositionQuery {
    /// The partitions, sorted.
    pub(crate) places: Vec<TopicPartition>,
    /// Their epochs. A partition that was revoked and assigned again has others.
    pub(crate) epochs: Vec<Epoch>,
    /// None if the settled offsets could not be committed.
    pub(crate) answer: mpsc::Receiver<Option<KafkaResult<CommittedPositions>>>,
}

impl PositionQuery {
    /// Whether the query is for exactly these partitions and epochs. A query for others is
    /// abandoned.
    pub(crate) fn is_about(&self, places: &[TopicPartition], epochs: &[Epoch]) -> bool {
        self.places == places && self.epochs == epochs
    }
}

/// Looks up the committed offsets of these partitions. Blocks until the brokers answer.
pub(crate) fn committed_positions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[TopicPartition],
) -> KafkaResult<CommittedPositions> {
    let found = committed(consumer, &list(places), COMMITTED_WITHIN)?;
    let by_place = found
        .into_iter()
        .map(|found| ((found.topic.clone(), found.partition), found));
    Ok(by_place.collect())
}

/// The offsets that are committed for a partition: its own, and that of its retry partition.
pub(crate) fn owned_of(assigned: &Assigned) -> Vec<OwnedPartition> {
    let partition = &assigned.partition;
    let own = OwnedPartition {
        epoch: partition.epoch,
        topic: Arc::clone(&partition.topic),
        partition: partition.partition,
        committed: assigned.committed,
        parked_of: None,
    };
    let retry = partition.retry.as_ref().map(|retry| OwnedPartition {
        epoch: retry.epoch,
        topic: Arc::clone(&retry.topic),
        partition: partition.partition,
        committed: None,
        parked_of: Some(Arc::clone(partition)),
    });
    std::iter::once(own).chain(retry).collect()
}

/// These partitions as a list of the client.
pub(crate) fn list(places: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for (topic, partition) in places {
        list.add_partition(topic, *partition);
    }
    list
}

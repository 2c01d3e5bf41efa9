//! The partitions that are assigned now. Only the poll thread uses them.
//!
//! An [`Assigned`] is created by an assignment and replaced by a new one, with a new epoch,
//! whenever its partition is read from another place: after a pause, a log reset or the creation of
//! its retry topic. So everything in it belongs to one continuous reading of one log.

use crate::consumer::state::commit_metadata::SettledAbove;
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::partition::Partition;
use crate::consumer::state::retry_partition::RetryPartition;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// An assigned partition, as intake sees it.
pub(crate) struct Assigned {
    pub(crate) partition: Arc<Partition>,
    /// Offsets above the committed one that earlier assignments settled.
    pub(crate) settled_above: SettledAbove,
    /// The next expected offset. The client discards records that it fetched for an earlier
    /// assignment, so a lower offset means that the log was reset.
    pub(crate) next: Option<i64>,
    /// The committed offset at the start of this epoch. None if the group has none.
    pub(crate) committed: Option<i64>,
    /// The leader epoch of the committed offset, until a record has arrived. If the first record
    /// has a later leader epoch, the log may have been truncated and unread records may precede it.
    pub(crate) committed_under: Option<i32>,
    /// Whether the brokers must confirm that the log still has the committed offset before records
    /// are taken. The client checks this at a seek and when the leader changes, but not when it
    /// starts to read.
    pub(crate) must_verify_position: bool,
    /// Whether the partition is gated: its records wait until its parked set is complete.
    pub(crate) is_gated: bool,
    /// The first offset that was taken from the client while the partition was gated. Its record
    /// may not have been passed on.
    pub(crate) taken_from: Option<i64>,
    /// The first offset that was returned while the partition was gated. The client has to fetch
    /// from there again.
    pub(crate) fetch_again_from: Option<i64>,
    /// The offset at which a bounded run stops. It is looked up after the assignment.
    pub(crate) end: Option<i64>,
    /// The last end of the partition that the client reported.
    pub(crate) ended_at: Option<i64>,
    /// Whether an error arrived in place of a record, and no record since.
    pub(crate) has_erred: bool,
    /// Whether the next batch cannot be read. No record behind it is taken.
    pub(crate) is_unreadable: bool,
    /// The progress of a pause: set while an operator wants the partition paused, or until it is
    /// reread.
    pub(crate) held: Option<PauseState>,
    /// Where the log restarts after a reset, until reading has continued from there.
    pub(crate) fall_back: Option<LogReset>,
    /// Until when a partition that its topic no longer has is left alone.
    pub(crate) absent_until: Option<Instant>,
    /// The counter of received records of its topic.
    pub(crate) received: metrics::Counter,
}

impl Assigned {
    /// Whether records of this epoch may be passed on.
    pub(crate) fn is_of(&self, epoch: Epoch) -> bool {
        self.partition.epoch == epoch && self.held.is_none()
    }
}

/// The partitions that are assigned now.
///
/// Behind a mutex for the client's callbacks, which run on the poll thread: it is never contended,
/// and must not be held across a poll of the client.
#[derive(Default)]
pub(crate) struct Assignments {
    /// By topic and number: messages name both.
    pub(crate) topics: HashMap<Arc<str>, HashMap<i32, Assigned>>,
    /// The epoch that was given out last. Each is used once in a run.
    pub(crate) last_epoch: u64,
    /// When partitions whose reread failed are tried again.
    pub(crate) reread_at: Option<Instant>,
    /// Whether the group has completed an assignment, possibly of no partition.
    pub(crate) joined: bool,
    /// Whether the last change was a revoke or a loss, so that another assignment will follow.
    pub(crate) awaited: bool,
}

impl Assigned {
    /// Whether its records are taken. Records that arrive meanwhile are redelivered.
    pub(crate) fn is_taken(&self) -> bool {
        self.held.is_none() && !self.is_unreadable && !self.must_be_reread()
    }

    /// Whether it must be reread under a new epoch: from where its log restarts, or from the
    /// committed offset if the brokers confirm that the log still has it.
    pub(crate) fn must_be_reread(&self) -> bool {
        self.fall_back.is_some() || self.must_verify_position
    }

    /// Whether its recreated topic does not have it. The lookup is repeated from time to time.
    pub(crate) fn is_absent(&self) -> bool {
        self.absent_until
            .is_some_and(|until| until > Instant::now())
    }
}

impl Assignments {
    /// The assignment of a partition. None if it is not assigned.
    pub(crate) fn get(&mut self, topic: &str, partition: i32) -> Option<&mut Assigned> {
        self.topics.get_mut(topic)?.get_mut(&partition)
    }

    /// All assignments, in no particular order.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut Assigned> {
        self.topics.values_mut().flat_map(HashMap::values_mut)
    }

    /// A new epoch, greater than all before.
    pub(crate) fn next_epoch(&mut self) -> Epoch {
        self.last_epoch += 1;
        Epoch(self.last_epoch)
    }

    /// Adds a partition under a new epoch, gated and without any knowledge of its log. The caller
    /// sets its position next ([`Assigned::restore_progress`]).
    pub(crate) fn insert(
        &mut self,
        topic: &str,
        partition: i32,
        received: metrics::Counter,
        retry: RetryPartition,
    ) {
        let known = self.topics.keys().find(|name| ***name == *topic).cloned();
        let name = known.unwrap_or_else(|| topic.into());
        let epoch = self.next_epoch();
        let assigned = Assigned {
            is_gated: true,
            partition: Arc::new(Partition::new(
                Arc::clone(&name),
                partition,
                epoch,
                Some(retry),
            )),
            settled_above: SettledAbove::default(),
            taken_from: None,
            fetch_again_from: None,
            next: None,
            committed: None,
            committed_under: None,
            must_verify_position: false,
            end: None,
            ended_at: None,
            has_erred: false,
            is_unreadable: false,
            held: None,
            fall_back: None,
            absent_until: None,
            received,
        };
        self.topics
            .entry(name)
            .or_default()
            .insert(partition, assigned);
    }

    /// Removes a partition: revoked, or about to get a new epoch.
    pub(crate) fn remove(&mut self, topic: &str, partition: i32) -> Option<Assigned> {
        self.topics.get_mut(topic)?.remove(&partition)
    }
}

/// Where a log restarts after a reset. Reading continues there rather than at the end: records are
/// redelivered, and none is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogReset {
    /// The log was truncated. Reading continues at this record.
    To {
        offset: i64,
        leader_epoch: Option<i32>,
    },
    /// The topic was recreated. Reading continues at its first record.
    ToTheBeginning,
}

/// Why the log no longer has a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PositionLoss {
    /// The log was truncated below it.
    Truncated,
    /// The topic was deleted and created again.
    Recreated,
    /// Records after it were deleted before the group read them.
    Deleted,
}

impl PositionLoss {
    /// The label of the metric and the word in the health's note.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Recreated => "recreated",
            Self::Deleted => "deleted",
        }
    }

    /// The log line: what happened, and where reading continues.
    pub(crate) fn happened(self) -> &'static str {
        match self {
            Self::Truncated => {
                "the log was truncated below the group's position: the truncated records are lost, and the log is handled from the first record appended since"
            }
            Self::Recreated => {
                "the topic was deleted and created again: the group's position belongs to the deleted topic, and the new topic is handled from its first record"
            }
            Self::Deleted => {
                "records were deleted before the group had read them: it continues after them"
            }
        }
    }
}

/// The progress of a pause.
pub(crate) enum PauseState {
    /// Running handlers are given until this time to finish.
    Draining { drain: Drain, until: Instant },
    /// No handler of the partition runs, or the consumer stopped waiting for the running ones.
    Drained { in_time: bool },
}

/// A drain in progress: workers finish the running records of some epochs.
pub(crate) struct Drain {
    /// Each worker sends one answer when none of its records of these epochs runs.
    pub(crate) answers: mpsc::Receiver<()>,
    /// Workers that have not answered.
    pub(crate) open: usize,
}

impl Drain {
    /// Blocks for at most `at_most`, which may be zero. Returns whether all workers are done. May
    /// be called again: it continues where it stopped.
    pub(crate) fn wait(&mut self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        while self.open > 0 {
            match self
                .answers
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(()) => self.open -= 1,
                Err(RecvTimeoutError::Timeout) => return false,
                // A worker that has ended runs nothing.
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
        true
    }
}

//! Commits offsets: on a thread of its own, synchronously, from an explicit list, never backwards,
//! and only for owned partitions.
//!
//! All commits of a consumer happen here, one after the other, so that none can overtake another.
//! The poll thread sends requests with a deadline and shares no lock with this thread.
//!
//! # What is committed
//!
//! For each assignment, the first unsettled offset of the [offset
//! tracker](crate::consumer::state::offset_tracker), with the settled offsets above it in the
//! metadata. A commit is due if either has changed. The offset is never below the committed one: an
//! assignment starts at it, unless its log was reset.
//!
//! # Refusals
//!
//! | refusal | meaning | reaction |
//! |---|---|---|
//! | error of the request | no coordinator, a rebalance | repeated at the next interval |
//! | `OffsetMetadataTooLarge` | the brokers accept less metadata | half of it from now on |
//! | `InvalidCommitOffsetSize` | too many partitions in one commit | half of them from now on |
//! | `UnknownTopicOrPartition` | the topic was deleted | none: nothing can be redelivered |
//! | any other | of one partition | logged once, repeated at the next interval |
//!
//! # Why a thread
//!
//! A synchronous commit blocks until the coordinator answers, also while it is loading or moving.
//! On the poll thread that would keep the client from being polled (`max.poll.interval.ms`); on a
//! worker it would stop handlers. The thread also runs what must continue while the poll thread
//! waits in a revoke: the watchdog and the checks of the cluster.

mod cluster_checks;
mod next_commit;
mod requests;
mod telemetry;
mod watchdog;

pub(crate) use requests::{
    COMMIT_WITHIN, COMMITTED_WITHIN, CommitRequest, CommittedPositions, OwnedPartition,
    PositionQuery, PositionReset, TopicPartition, committed_positions, list, owned_of,
};

use crate::consumer::commit::next_commit::{DueCommit, TrackedPartition, due};
use crate::consumer::commit::telemetry::{CommitCounters, PartitionGauges};
use crate::consumer::commit::watchdog::Watchdog;
use crate::consumer::shared::Shared;
use crate::consumer::state::commit_metadata::{self, Tag};
use crate::consumer::state::offset_tracker::{Epoch, PartitionProgress};
use crate::consumer::state::retry_partition::RetryPartition;
use crate::kafka::native::{ToCommit, cached_watermarks, commit};
use crate::telemetry::commit_span;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

/// A limit below this leaves no room for useful metadata.
const METADATA_BYTES_MIN: usize = 64;

/// Commits for a consumer, on the committing thread.
///
/// Owns what was committed, by epoch. The offset tracker knows what may be committed; this type
/// never changes it.
pub(crate) struct Committer<C: ConsumerContext + 'static> {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<C>>,
    requests: mpsc::Receiver<CommitRequest>,
    /// The partitions to commit for: assigned by [`CommitRequest::Assigned`] and not forgotten.
    partitions: HashMap<Epoch, TrackedPartition>,
    /// The most bytes of metadata that the brokers accept.
    metadata_max: usize,
    /// The most partitions that the brokers accept in one commit.
    partitions_max: usize,
    /// When the ids of the topics were compared last.
    topics_compared_at: Instant,
    watchdog: Watchdog,
    counters: CommitCounters,
}

impl<C: ConsumerContext + 'static> Committer<C> {
    /// Creates a committer without partitions. The thread runs [`Committer::run`].
    pub(crate) fn new(
        shared: Arc<Shared>,
        consumer: Arc<BaseConsumer<C>>,
        requests: mpsc::Receiver<CommitRequest>,
    ) -> Self {
        let counters = CommitCounters::new(&shared.group);
        let watchdog = Watchdog::new(Arc::clone(&shared));
        Self {
            shared,
            consumer,
            requests,
            partitions: HashMap::new(),
            metadata_max: commit_metadata::BYTES_MAX,
            partitions_max: usize::MAX,
            topics_compared_at: Instant::now(),
            watchdog,
            counters,
        }
    }

    /// Commits at the interval and on request until it is closed.
    ///
    /// Requests are served in their order, so that a commit that is requested after an assignment
    /// includes it. A request waits behind at most one commit and its checks.
    pub(crate) fn run(mut self) {
        let interval = self.shared.settings.commit_interval;
        let mut next_tick = Instant::now() + interval;
        loop {
            match self
                .requests
                .recv_timeout(next_tick.saturating_duration_since(Instant::now()))
            {
                Ok(CommitRequest::Assigned(owned)) => {
                    owned.into_iter().for_each(|owned| self.track(owned))
                }
                Ok(CommitRequest::Commit(epochs, answer)) => {
                    let committed = self.commit(|epoch| epochs.contains(&epoch));
                    // The caller may have reached its deadline.
                    let _ = answer.send(committed);
                }
                Ok(CommitRequest::CommitAndLookUp(epochs, places, answer)) => {
                    let committed = self.commit(|epoch| epochs.contains(&epoch));
                    let positions = committed.then(|| committed_positions(&self.consumer, &places));
                    // The partitions may have been revoked meanwhile.
                    let _ = answer.send(positions);
                }
                Ok(CommitRequest::CommitReset(positions, answer)) => {
                    let _ = answer.send(self.commit_reset(&positions));
                }
                Ok(CommitRequest::Forget(epochs)) => self.forget(&epochs),
                Err(RecvTimeoutError::Timeout) => {
                    next_tick = Instant::now() + interval;
                    self.commit(|_| true);
                    self.check_cluster();
                    self.compare_topics();
                    self.watchdog.check(self.partitions.len());
                }
                Ok(CommitRequest::Close) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Starts committing for a partition, with its gauges.
    fn track(&mut self, owned: OwnedPartition) {
        let tracked = TrackedPartition {
            metadata: None,
            is_whole: true,
            refused: None,
            topic_id: None,
            committed_at: Instant::now(),
            gauges: PartitionGauges::new(&self.shared, &owned),
            owned,
        };
        self.partitions.insert(tracked.owned.epoch, tracked);
    }

    /// Stops committing for these epochs, and sets their gauges to 0: series do not expire.
    fn forget(&mut self, epochs: &[Epoch]) {
        for epoch in epochs {
            if let Some(tracked) = self.partitions.remove(epoch) {
                tracked.gauges.clear();
                let OwnedPartition {
                    topic,
                    partition,
                    parked_of,
                    ..
                } = &tracked.owned;
                if parked_of.is_some() {
                    self.shared
                        .retry_topics
                        .set_committed(topic, *partition, None);
                    self.shared
                        .retry_topics
                        .set_waiting(topic, *partition, None);
                }
            }
        }
    }

    /// Commits the due offsets of the epochs that `wanted` selects. Returns false if a commit
    /// failed.
    ///
    /// All positions are taken in one pass, also those that are not committed now, for the gauges.
    fn commit(&mut self, wanted: impl Fn(Epoch) -> bool) -> bool {
        let mut positions = self.shared.tracker().positions();
        positions.extend(self.parked_positions());
        let mut due_now: Vec<&PartitionProgress> = Vec::new();
        for position in &positions {
            let Some(tracked) = self.partitions.get_mut(&position.epoch) else {
                continue;
            };
            tracked.topic_id = position.log.topic_id.or(tracked.topic_id);
            if wanted(position.epoch) {
                due_now.push(position);
            }
            if let Some(tracked) = self.partitions.get(&position.epoch) {
                self.report(tracked, position);
            }
        }
        let mut is_committed = true;
        let mut rest = &due_now[..];
        while !rest.is_empty() {
            let (some, others) = rest.split_at(rest.len().min(self.partitions_max));
            is_committed &= self.commit_some(some);
            rest = others;
        }
        let is_cut = self.partitions.values().any(|tracked| !tracked.is_whole);
        self.shared.set_cut(is_cut);
        is_committed
    }

    /// Commits the due offsets of these partitions. Repeats with less metadata or fewer partitions
    /// if the brokers accept less. Returns false on failure.
    ///
    /// The accepted part of a partly refused commit stays accepted.
    fn commit_some(&mut self, positions: &[&PartitionProgress]) -> bool {
        let (group, now) = (&self.shared.group, Instant::now());
        // The group's answer to a commit shows whether it still refuses this member.
        let is_forced = self.shared.readiness.is_refused();
        let due_of = |position: &&PartitionProgress| {
            let tracked = self.partitions.get(&position.epoch)?;
            due(tracked, position, group, now, self.metadata_max, is_forced)
        };
        let due_now: Vec<DueCommit> = positions.iter().filter_map(due_of).collect();
        if due_now.is_empty() {
            return true;
        }
        let refusals = match self.send(&due_now) {
            Ok(refusals) => refusals,
            Err(error) => {
                self.counters.failed.increment(1);
                telemetry::commit_failed(&self.shared.group, &error, due_now.len());
                return false;
            }
        };
        if is_forced && refusals.iter().any(Option::is_none) {
            self.shared.readiness.group_answers();
        }
        let (mut is_committed, mut has_refusals, mut too_large) = (true, false, Vec::new());
        for (due, refused) in due_now.into_iter().zip(refusals) {
            let has_metadata = due.metadata.text.is_some();
            match refused {
                None => self.committed(due),
                Some(code) if has_metadata && is_too_large(code) => {
                    too_large.push((due.epoch, code));
                }
                Some(code) => {
                    has_refusals = true;
                    // The topic is gone: its records cannot be redelivered.
                    is_committed &= code == Code::UnknownTopicOrPartition;
                    self.log_refusal(due.epoch, code);
                }
            }
        }
        let counter = match has_refusals {
            true => &self.counters.failed,
            false => &self.counters.ok,
        };
        counter.increment(1);
        is_committed & self.commit_smaller(positions, &too_large)
    }

    /// Repeats the commit of the partitions in `too_large` in a shorter form. Returns false on
    /// failure.
    ///
    /// The limits are learned from refusals and kept for the run.
    fn commit_smaller(
        &mut self,
        positions: &[&PartitionProgress],
        too_large: &[(Epoch, Code)],
    ) -> bool {
        let Some((_, code)) = too_large.last() else {
            return true;
        };
        let is_again = |position: &&&PartitionProgress| {
            let mut epochs = too_large.iter();
            epochs.any(|(epoch, _)| *epoch == position.epoch)
        };
        let again: Vec<&PartitionProgress> = positions.iter().filter(is_again).copied().collect();
        if *code == Code::InvalidCommitOffsetSize && again.len() > 1 {
            // Together they exceed one record of the brokers' offsets topic.
            self.partitions_max = again.len().div_ceil(2);
            let (first, second) = again.split_at(self.partitions_max);
            return self.commit_some(first) & self.commit_some(second);
        }
        self.metadata_max /= 2;
        if self.metadata_max < METADATA_BYTES_MIN {
            self.metadata_max = 0;
        }
        telemetry::metadata_limited(&self.shared.group, *code, self.metadata_max);
        self.commit_some(&again)
    }

    /// Updates the partition after the brokers accepted a commit.
    ///
    /// For a retry partition the offset is published too, for
    /// [retention](crate::consumer::retry_reader).
    fn committed(&mut self, due: DueCommit) {
        let Some(tracked) = self.partitions.get_mut(&due.epoch) else {
            return;
        };
        let owned = &mut tracked.owned;
        if !due.metadata.is_whole {
            telemetry::metadata_cut(&self.shared.group, owned, due.offset, tracked.is_whole);
        }
        owned.committed = Some(due.offset);
        tracked.is_whole = due.metadata.is_whole;
        tracked.metadata = due.metadata.text;
        tracked.committed_at = Instant::now();
        tracked.refused = None;
        if owned.parked_of.is_some() {
            let retry_topics = &self.shared.retry_topics;
            retry_topics.set_committed(&owned.topic, owned.partition, Some(due.offset));
        }
    }

    /// Logs a refused commit, once per reason. It is repeated at every interval.
    fn log_refusal(&mut self, epoch: Epoch, code: Code) {
        let Some(tracked) = self.partitions.get_mut(&epoch) else {
            return;
        };
        if tracked.refused.replace(code) != Some(code) {
            telemetry::commit_refused(&self.shared.group, &tracked.owned, code);
        }
    }

    /// Commits these positions even below the committed ones. Returns false if one was refused.
    ///
    /// Used after a log reset, when the lower offset is the right one. The metadata names the new
    /// log, and no settled offset.
    fn commit_reset(&self, positions: &[PositionReset]) -> bool {
        let group = &self.shared.group;
        let text = |of: &PositionReset| {
            let tag = Tag {
                group,
                topic: &of.topic,
                partition: of.partition,
            };
            let (offset, bytes_max) = (of.offset, self.metadata_max);
            commit_metadata::encode(tag, of.log, offset, offset, &[], bytes_max).text
        };
        let texts: Vec<Option<String>> = positions.iter().map(text).collect();
        let to_commit = |(of, metadata)| {
            let PositionReset {
                topic,
                partition,
                offset,
                log,
            }: &PositionReset = of;
            let metadata: &Option<String> = metadata;
            ToCommit {
                topic,
                partition: *partition,
                offset: *offset,
                leader_epoch: log.leader_epoch,
                metadata: metadata.as_deref(),
            }
        };
        let wanted: Vec<ToCommit<'_>> = positions.iter().zip(&texts).map(to_commit).collect();
        match commit(&self.consumer, &wanted) {
            Ok(refusals) => refusals.iter().all(Option::is_none),
            Err(error) => {
                telemetry::reset_not_committed(group, &error);
                false
            }
        }
    }

    /// The progress in the retry partitions of the tracked partitions.
    fn parked_positions(&self) -> impl Iterator<Item = PartitionProgress> {
        let partitions = self
            .partitions
            .values()
            .filter_map(|tracked| tracked.owned.parked_of.as_ref());
        let retries = partitions.filter_map(|partition| partition.retry.as_ref());
        retries.filter_map(RetryPartition::position)
    }

    /// Sends a commit. Returns for each partition why it was refused, if it was.
    ///
    /// One request for all partitions. The outer error means that none was accepted, or that it is
    /// unknown.
    fn send(&self, due: &[DueCommit]) -> KafkaResult<Vec<Option<Code>>> {
        let place = |due: &DueCommit| {
            let tracked = self.partitions.get(&due.epoch);
            let owned = tracked.map(|tracked| &tracked.owned);
            owned.map_or(("", 0), |owned| (&*owned.topic, owned.partition))
        };
        let places: Vec<(&str, i32)> = due.iter().map(place).collect();
        let wanted: Vec<ToCommit<'_>> = due
            .iter()
            .zip(places)
            .map(|(due, (topic, partition))| ToCommit {
                topic,
                partition,
                offset: due.offset,
                leader_epoch: due.leader_epoch,
                metadata: due.metadata.text.as_deref(),
            })
            .collect();
        let span = commit_span(&self.shared.group, wanted.len());
        let committed = span.in_scope(|| commit(&self.consumer, &wanted));
        telemetry::commit_ended(&span, &committed);
        committed
    }

    /// Updates the gauges of a partition: lag by the client's cached end offset, age of the oldest
    /// record, parked keys and records.
    fn report(&self, tracked: &TrackedPartition, position: &PartitionProgress) {
        let owned = &tracked.owned;
        let retry = owned
            .parked_of
            .as_ref()
            .and_then(|partition| partition.retry.as_ref());
        if let Some(retry) = retry {
            let (keys, records) = retry.waiting();
            tracked.gauges.set_parked(keys, records);
            let retry_topics = &self.shared.retry_topics;
            retry_topics.set_waiting(&retry.topic, owned.partition, Some((keys, records)));
        }
        let settled_to = position.watermark.or(owned.committed);
        if let Some((low, high)) = cached_watermarks(&self.consumer, &owned.topic, owned.partition)
        {
            let settled_to = settled_to.unwrap_or(low);
            tracked.gauges.set_lag(high - settled_to);
        }
        tracked.gauges.set_oldest(position.oldest_received_at);
    }
}

/// Whether the brokers refuse a commit for its size.
fn is_too_large(code: Code) -> bool {
    matches!(
        code,
        Code::OffsetMetadataTooLarge | Code::InvalidCommitOffsetSize
    )
}

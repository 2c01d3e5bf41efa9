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
//! worker it would stop handlers. The thread has nothing else to wait for, so that it also runs
//! what must go on while the poll thread waits in a revoke: the watchdog and the checks of the
//! cluster.

mod requests;
mod watchdog;

pub(crate) use requests::{
    COMMIT_WITHIN, COMMITTED_WITHIN, CommitRequest, CommittedPositions, OwnedPartition,
    PositionQuery, PositionReset, TopicPartition, committed_positions, list, owned_of,
};

use crate::consumer::commit::watchdog::Watchdog;
use crate::consumer::shared::Shared;
use crate::consumer::state::commit_metadata::{self, Encoded, Tag};
use crate::consumer::state::offset_tracker::{Epoch, PartitionProgress};
use crate::consumer::state::retry_partition::RetryPartition;
use crate::kafka::native::{ToCommit, TopicId, cached_watermarks, commit, topic_ids};
use crate::telemetry::Metric;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long a check of the cluster waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The age at which the commit of a retry partition is repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(12 * 3_600);

/// How often the ids of the topics are compared with those at the assignment: a recreated topic has
/// another id.
const TOPICS_EVERY: Duration = Duration::from_secs(5);

/// A limit below this leaves no room for useful metadata.
const METADATA_BYTES_MIN: usize = 64;

/// What is committed for one assignment, and its gauges.
struct Track {
    /// The partition, with its committed offset.
    owned: OwnedPartition,
    /// The time of the last accepted commit, or of the assignment.
    committed_at: Instant,
    /// The metadata of the last accepted commit.
    metadata: Option<String>,
    /// Whether all settled offsets fitted into the last commit.
    is_whole: bool,
    /// Why the last commit was refused.
    refused: Option<Code>,
    /// The id of the assigned topic, once it is known.
    topic_id: Option<TopicId>,
    lag: metrics::Gauge,
    oldest_seconds: metrics::Gauge,
    /// Waiting keys and waiting records of a retry partition.
    parked: [metrics::Gauge; 2],
}

/// A commit that is due: the offset, the epoch of its log, and the metadata.
///
/// The epoch of the log goes with the offset (KIP-320), so that a client that starts there has it
/// verified.
struct DueCommit {
    epoch: Epoch,
    offset: i64,
    leader_epoch: Option<i32>,
    metadata: Encoded,
}

/// The commit that is due for a partition. Its offset is never below the committed one, unless the
/// assignment started below it. `is_asked` makes it due without progress.
///
/// None also before the first record: without progress there is nothing to commit. `is_asked` is
/// for a member that the group refuses: the answer to a commit tells whether it still does.
fn due(
    track: &Track,
    position: &PartitionProgress,
    group: &str,
    now: Instant,
    metadata_max: usize,
    is_asked: bool,
) -> Option<DueCommit> {
    let watermark = position.watermark?;
    let owned = &track.owned;
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
    let is_new = owned.committed != Some(watermark) || track.metadata != metadata.text;
    // Committed offsets of topics without a subscription expire after days (KIP-211).
    let is_old = now.saturating_duration_since(track.committed_at) > AGAIN_AFTER;
    (is_new || is_asked || owned.parked_of.is_some() && is_old).then_some(DueCommit {
        epoch: position.epoch,
        offset: watermark,
        leader_epoch: log.leader_epoch,
        metadata,
    })
}

/// Commits for a consumer, on the committing thread.
///
/// Owns what was committed, by epoch. The offset tracker knows what may be committed; this type
/// never changes it.
pub(crate) struct Committer<C: ConsumerContext + 'static> {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<C>>,
    requests: mpsc::Receiver<CommitRequest>,
    /// The partitions to commit for: those of [`CommitRequest::Assigned`] without the forgotten
    /// ones.
    tracks: HashMap<Epoch, Track>,
    /// The most bytes of metadata that the brokers accept.
    metadata_max: usize,
    /// The most partitions that the brokers accept in one commit.
    partitions_max: usize,
    /// When the ids of the topics were compared last.
    topics_compared_at: Instant,
    watchdog: Watchdog,
    ok: metrics::Counter,
    failed: metrics::Counter,
}

impl<C: ConsumerContext + 'static> Committer<C> {
    /// Without partitions. The thread runs [`Committer::run`].
    pub(crate) fn new(
        shared: Arc<Shared>,
        consumer: Arc<BaseConsumer<C>>,
        requests: mpsc::Receiver<CommitRequest>,
    ) -> Self {
        let counter = |result: &'static str| {
            metrics::counter!(
                Metric::Commits.name(),
                "group" => shared.group.clone(),
                "result" => result
            )
        };
        let (ok, failed) = (counter("ok"), counter("error"));
        let watchdog = Watchdog::new(Arc::clone(&shared));
        Self {
            shared,
            consumer,
            requests,
            tracks: HashMap::new(),
            metadata_max: commit_metadata::BYTES_MAX,
            partitions_max: usize::MAX,
            topics_compared_at: Instant::now(),
            watchdog,
            ok,
            failed,
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
                    owned.into_iter().for_each(|owned| self.own(owned))
                }
                Ok(CommitRequest::Commit(epochs, answer)) => {
                    let committed = self.commit(|epoch| epochs.contains(&epoch));
                    // The caller may have reached its deadline.
                    let _ = answer.send(committed);
                }
                Ok(CommitRequest::Stand(epochs, places, answer)) => {
                    let committed = self.commit(|epoch| epochs.contains(&epoch));
                    let positions = committed.then(|| committed_positions(&self.consumer, &places));
                    // The partitions may have been revoked meanwhile.
                    let _ = answer.send(positions);
                }
                Ok(CommitRequest::SetBack(positions, answer)) => {
                    let _ = answer.send(self.set_back(&positions));
                }
                Ok(CommitRequest::Forget(epochs)) => self.forget(&epochs),
                Err(RecvTimeoutError::Timeout) => {
                    next_tick = Instant::now() + interval;
                    self.commit(|_| true);
                    self.check_cluster();
                    self.compare_topics();
                    self.watchdog.look(self.tracks.len());
                }
                Ok(CommitRequest::Close) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Checks the brokers after a complaint: librdkafka reports that they are down, but not that
    /// they are up again.
    ///
    /// Runs only while something was complained about.
    fn check_cluster(&self) {
        let readiness = &self.shared.readiness;
        if !readiness.has_complained() && !readiness.is_topic_lacking() {
            return;
        }
        let mut all_exist = true;
        for topic in &self.shared.settings.topics {
            match self.topic_error(topic) {
                None => {}
                // A missing topic is an answer as well.
                Some(Code::UnknownTopicOrPartition) => all_exist = false,
                Some(_) => return,
            }
        }
        readiness.cluster_answers();
        if all_exist {
            readiness.topics_exist();
        }
    }

    /// The error that the brokers report for a topic, if any.
    ///
    /// Blocks for at most a second.
    fn topic_error(&self, topic: &str) -> Option<Code> {
        let metadata = match self.consumer.fetch_metadata(Some(topic), ANSWER_WITHIN) {
            Ok(metadata) => metadata,
            Err(error) => return Some(error.rdkafka_error_code().unwrap_or(Code::Unknown)),
        };
        let error = metadata.topics().iter().find_map(|topic| topic.error());
        error.map(Code::from)
    }

    /// Starts to commit for a partition, with its gauges.
    fn own(&mut self, owned: OwnedPartition) {
        let (group, topic, partition) = (
            self.shared.group.as_str(),
            &*owned.topic,
            owned.partition.to_string(),
        );
        let gauge_of = |metric, group_label| {
            let labels = [
                (group_label, group),
                ("topic", topic),
                ("partition", &*partition),
            ];
            self.shared.health.gauge(metric, &labels)
        };
        let lag = gauge_of(Metric::Lag, "consumergroup");
        let gauge = |metric| gauge_of(metric, "group");
        let oldest_seconds = gauge(Metric::OldestUnsettledSeconds);
        let parked = match owned.parked_of {
            Some(_) => [gauge(Metric::ParkedKeys), gauge(Metric::ParkedRecords)],
            None => [metrics::Gauge::noop(), metrics::Gauge::noop()],
        };
        let track = Track {
            metadata: None,
            is_whole: true,
            refused: None,
            topic_id: None,
            committed_at: Instant::now(),
            lag,
            oldest_seconds,
            parked,
            owned,
        };
        self.tracks.insert(track.owned.epoch, track);
    }

    /// Stops to commit for these epochs, and sets their gauges to 0: series do not expire.
    fn forget(&mut self, epochs: &[Epoch]) {
        for epoch in epochs {
            if let Some(track) = self.tracks.remove(epoch) {
                track.lag.set(0.0);
                track.oldest_seconds.set(0.0);
                track.parked.iter().for_each(|gauge| gauge.set(0.0));
                let OwnedPartition {
                    topic,
                    partition,
                    parked_of,
                    ..
                } = &track.owned;
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
            let Some(track) = self.tracks.get_mut(&position.epoch) else {
                continue;
            };
            track.topic_id = position.log.topic_id.or(track.topic_id);
            if wanted(position.epoch) {
                due_now.push(position);
            }
            if let Some(track) = self.tracks.get(&position.epoch) {
                self.report(track, position);
            }
        }
        let mut is_committed = true;
        let mut rest = &due_now[..];
        while !rest.is_empty() {
            let (some, others) = rest.split_at(rest.len().min(self.partitions_max));
            is_committed &= self.commit_some(some);
            rest = others;
        }
        let is_cut = self.tracks.values().any(|track| !track.is_whole);
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
        let is_asked = self.shared.readiness.is_refused();
        let due_of = |position: &&PartitionProgress| {
            let track = self.tracks.get(&position.epoch)?;
            due(track, position, group, now, self.metadata_max, is_asked)
        };
        let due_now: Vec<DueCommit> = positions.iter().filter_map(due_of).collect();
        if due_now.is_empty() {
            return true;
        }
        let refusals = match self.send(&due_now) {
            Ok(refusals) => refusals,
            Err(error) => {
                self.failed.increment(1);
                tracing::warn!(
                    group = self.shared.group,
                    %error,
                    partitions = due_now.len(),
                    "offsets not committed; the next commit includes them, or their records are redelivered"
                );
                return false;
            }
        };
        if is_asked && refusals.iter().any(Option::is_none) {
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
                    self.refused(due.epoch, code);
                }
            }
        }
        let counter = if has_refusals { &self.failed } else { &self.ok };
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
        tracing::warn!(
            group = self.shared.group,
            error = %code,
            bytes_max = self.metadata_max,
            "the brokers accept less commit metadata; records settled behind a slow one that do not fit are handled again after a restart"
        );
        self.commit_some(&again)
    }

    /// Updates the track after the brokers accepted a commit.
    ///
    /// For a retry partition the offset is published too, for
    /// [retention](crate::consumer::retry_reader).
    fn committed(&mut self, due: DueCommit) {
        let Some(track) = self.tracks.get_mut(&due.epoch) else {
            return;
        };
        let owned = &mut track.owned;
        if track.is_whole && !due.metadata.is_whole {
            tracing::warn!(
                group = self.shared.group,
                topic = %owned.topic,
                partition = owned.partition,
                offset = due.offset,
                "commit metadata has no room for all records settled behind slow ones; the rest is handled again after a restart or a rebalance, possibly after later records of its key"
            );
        }
        if !due.metadata.is_whole {
            metrics::counter!(
                Metric::CommitsCut.name(),
                "group" => self.shared.group.clone(),
                "topic" => owned.topic.to_string()
            )
            .increment(1);
        }
        owned.committed = Some(due.offset);
        track.is_whole = due.metadata.is_whole;
        track.metadata = due.metadata.text;
        track.committed_at = Instant::now();
        track.refused = None;
        if owned.parked_of.is_some() {
            let retry_topics = &self.shared.retry_topics;
            retry_topics.set_committed(&owned.topic, owned.partition, Some(due.offset));
        }
    }

    /// Logs a refused commit, once per reason. It is repeated at every interval.
    fn refused(&mut self, epoch: Epoch, code: Code) {
        let Some(track) = self.tracks.get_mut(&epoch) else {
            return;
        };
        if track.refused.replace(code) != Some(code) {
            let owned = &track.owned;
            tracing::warn!(
                group = self.shared.group,
                topic = %owned.topic,
                partition = owned.partition,
                error = %code,
                "the partition's offset is not committed; the commit is retried, or its records are redelivered"
            );
        }
    }

    /// Commits these positions even below the committed ones. Returns false if one was refused.
    ///
    /// Used after a log reset, when the lower offset is the right one. The metadata names the new
    /// log, and no settled offset.
    fn set_back(&self, positions: &[PositionReset]) -> bool {
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
                tracing::warn!(
                    group,
                    %error,
                    "the positions of partitions after a log reset are not committed; retrying"
                );
                false
            }
        }
    }

    /// Looks up the ids of the topics. A recreated topic has none of the records of the committed
    /// offsets, so that nothing more is committed for it.
    ///
    /// After the poll thread learns of the epochs ([`Shared::recreated`]) it starts them anew. A
    /// retry topic that was recreated ends the run instead: its parked records are lost, and the
    /// offsets of those records in the source are committed.
    fn compare_topics(&mut self) {
        if self.topics_compared_at.elapsed() < TOPICS_EVERY
            || self.shared.readiness.has_complained()
        {
            return;
        }
        let known = self
            .tracks
            .values()
            .filter(|track| track.topic_id.is_some());
        let topics: BTreeSet<&str> = known.map(|track| &*track.owned.topic).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        let ids = topic_ids(self.consumer.client(), &topics, ANSWER_WITHIN);
        self.topics_compared_at = Instant::now();
        let is_another = |track: &Track| {
            let id = ids.get(&*track.owned.topic);
            track.topic_id.zip(id).is_some_and(|(was, is)| was != *is)
        };
        let gone: Vec<Track> = self
            .tracks
            .extract_if(|_, track| is_another(track))
            .map(|(_, track)| track)
            .collect();
        if let Some(retry) = gone.iter().find(|track| track.owned.parked_of.is_some()) {
            let topic = &retry.owned.topic;
            let (keys, records) = self.shared.retry_topics.waiting_in(topic);
            self.shared.abort(format!(
                "the retry topic {topic} was deleted and created again while {records} records of {keys} keys were parked in the \
                 partitions of this member: they are lost; evenkeel audit names them; handle them again from the source"
            ));
        }
        let gone = gone.iter().map(|track| track.owned.epoch);
        self.shared.recreated(gone);
    }

    /// The progress in the retry partitions of the tracked partitions.
    fn parked_positions(&self) -> impl Iterator<Item = PartitionProgress> {
        let partitions = self
            .tracks
            .values()
            .filter_map(|track| track.owned.parked_of.as_ref());
        let retries = partitions.filter_map(|partition| partition.retry.as_ref());
        retries.filter_map(RetryPartition::position)
    }

    /// Sends a commit. Returns for each partition why it was refused, if it was.
    ///
    /// One request for all partitions. The outer error means that none was accepted, or that it is
    /// unknown.
    fn send(&self, due: &[DueCommit]) -> KafkaResult<Vec<Option<Code>>> {
        let place = |due: &DueCommit| {
            let track = self.tracks.get(&due.epoch);
            let owned = track.map(|track| &track.owned);
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
        commit(&self.consumer, &wanted)
    }

    /// Updates the gauges of a partition: lag by the client's cached end offset, age of the oldest
    /// record, parked keys and records.
    fn report(&self, track: &Track, position: &PartitionProgress) {
        let owned = &track.owned;
        let retry = owned
            .parked_of
            .as_ref()
            .and_then(|partition| partition.retry.as_ref());
        if let Some(retry) = retry {
            let (keys, records) = retry.waiting();
            track.parked[0].set(keys as f64);
            track.parked[1].set(records as f64);
            let retry_topics = &self.shared.retry_topics;
            retry_topics.set_waiting(&retry.topic, owned.partition, Some((keys, records)));
        }
        let settled_to = position.watermark.or(owned.committed);
        if let Some((low, high)) = cached_watermarks(&self.consumer, &owned.topic, owned.partition)
        {
            track
                .lag
                .set((high - settled_to.unwrap_or(low)).max(0) as f64);
        }
        track.oldest_seconds.set(
            position
                .oldest_received_at
                .map_or(0.0, |at| at.elapsed().as_secs_f64()),
        );
    }
}

/// Whether the brokers refuse a commit for its size.
fn is_too_large(code: Code) -> bool {
    matches!(
        code,
        Code::OffsetMetadataTooLarge | Code::InvalidCommitOffsetSize
    )
}

#[cfg(test)]
mod tests;

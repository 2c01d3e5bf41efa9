//! Commits: a thread of its own, an explicit list, sync, never backwards, and only for partitions that are owned.
//!
//! All commits of a consumer happen here, one after the other, so that none can overtake another. The poll thread asks
//! with a deadline and shares no lock with this thread.

use super::engine::Engine;
use super::ledger::{Epoch, Position};
use super::metadata::{self, Encoded, Log, Tag};
use super::parking::RetryPartition;
use super::partition::Partition;
use super::pause::{Place, Stands, look_up_stands};
use super::watch::Watch;
use crate::kafka::queue::{ToCommit, TopicId, cached_watermarks, commit, topic_ids};
use crate::telemetry::Metric;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long the brokers have to show that they are back.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How old a retry partition's commit may become before it is made again.
const AGAIN_AFTER: Duration = Duration::from_secs(12 * 3_600);

/// How often the topics are compared with those that were assigned: one that was deleted and created again has another id.
const TOPICS_EVERY: Duration = Duration::from_secs(5);

/// Metadata for fewer bytes than this says nothing worth having.
const METADATA_BYTES_MIN: usize = 64;

/// What the committer is told.
pub(crate) enum Order {
    /// These partitions are ours from now on.
    Assigned(Vec<Owned>),
    /// Commit what is settled of these epochs now, and say whether it worked.
    Commit(Vec<Epoch>, mpsc::Sender<bool>),
    /// Commit what is settled of these epochs, and look up where the group stands on these partitions then; nothing is looked up when the
    /// commit failed.
    Stand(
        Vec<Epoch>,
        Vec<Place>,
        mpsc::Sender<Option<KafkaResult<Stands>>>,
    ),
    /// Commit these positions, whatever was committed before, and say whether it worked.
    SetBack(Vec<SetBack>, mpsc::Sender<bool>),
    /// Forget these epochs: the partitions are another member's from now on.
    Forget(Vec<Epoch>),
    /// End.
    Close,
}

/// A partition that may be committed for.
pub(crate) struct Owned {
    pub(crate) epoch: Epoch,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// The group's committed offset as far as this member knows.
    pub(crate) committed: Option<i64>,
    /// The partition whose retry partition this is.
    pub(crate) parked_of: Option<Arc<Partition>>,
}

/// Where a partition is to be read from, after its log was truncated or made anew.
pub(crate) struct SetBack {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) log: Log,
}

struct Track {
    owned: Owned,
    committed_at: Instant,
    metadata: Option<String>,
    /// Whether all that is settled fitted into the last commit.
    is_whole: bool,
    /// Why the last commit was refused.
    refused: Option<Code>,
    /// The topic that was assigned, once it is known.
    topic_id: Option<TopicId>,
    lag: metrics::Gauge,
    oldest_seconds: metrics::Gauge,
    parked: [metrics::Gauge; 2],
}

/// What is to be committed: the offset, the log it is of, and what is settled above it.
struct Due {
    epoch: Epoch,
    offset: i64,
    leader_epoch: Option<i32>,
    metadata: Encoded,
}

/// What is due for a partition: never less than what is committed already, unless the partition itself fell back.
fn due(
    track: &Track,
    position: &Position,
    group: &str,
    now: Instant,
    metadata_max: usize,
    is_asked: bool,
) -> Option<Due> {
    let watermark = position.watermark?;
    let owned = &track.owned;
    let is_step_back = owned
        .committed
        .is_some_and(|committed| watermark < committed);
    if is_step_back && !position.fell_back {
        return None;
    }
    let tag = Tag {
        group,
        topic: &owned.topic,
        partition: owned.partition,
    };
    let (log, next) = (position.log, position.next?);
    let mut metadata =
        metadata::encode(tag, log, watermark, next, &position.unsettled, metadata_max);
    metadata.is_whole &= position.is_whole;
    let is_new = owned.committed != Some(watermark) || track.metadata != metadata.text;
    // Offsets of a topic that the group does not subscribe to expire (KIP-211) when they are not committed for days.
    let is_old = now.saturating_duration_since(track.committed_at) > AGAIN_AFTER;
    (is_new || is_asked || owned.parked_of.is_some() && is_old).then_some(Due {
        epoch: position.epoch,
        offset: watermark,
        leader_epoch: log.leader_epoch,
        metadata,
    })
}

/// The committer's state.
pub(crate) struct Committer<C: ConsumerContext + 'static> {
    engine: Arc<Engine>,
    consumer: Arc<BaseConsumer<C>>,
    orders: mpsc::Receiver<Order>,
    tracks: HashMap<Epoch, Track>,
    /// Bytes of metadata that the brokers take.
    metadata_max: usize,
    /// Partitions of which they take a commit together.
    partitions_max: usize,
    topics_compared_at: Instant,
    watch: Watch,
    ok: metrics::Counter,
    failed: metrics::Counter,
}

impl<C: ConsumerContext + 'static> Committer<C> {
    pub(crate) fn new(
        engine: Arc<Engine>,
        consumer: Arc<BaseConsumer<C>>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        let counter = |result: &'static str| metrics::counter!(Metric::Commits.name(), "group" => engine.group.clone(), "result" => result);
        let (ok, failed) = (counter("ok"), counter("error"));
        let watch = Watch::new(Arc::clone(&engine));
        Self {
            engine,
            consumer,
            orders,
            tracks: HashMap::new(),
            metadata_max: metadata::BYTES_MAX,
            partitions_max: usize::MAX,
            topics_compared_at: Instant::now(),
            watch,
            ok,
            failed,
        }
    }

    /// Commits at the interval and on request until told to end.
    pub(crate) fn run(mut self) {
        let interval = self.engine.settings.commit_interval;
        let mut next_tick = Instant::now() + interval;
        loop {
            match self
                .orders
                .recv_timeout(next_tick.saturating_duration_since(Instant::now()))
            {
                Ok(Order::Assigned(owned)) => owned.into_iter().for_each(|owned| self.own(owned)),
                Ok(Order::Commit(epochs, answer)) => {
                    let committed = self.commit(|epoch| epochs.contains(&epoch));
                    // Whoever asked may have reached its deadline.
                    let _ = answer.send(committed);
                }
                Ok(Order::Stand(epochs, places, answer)) => {
                    let committed = self.commit(|epoch| epochs.contains(&epoch));
                    let stands = committed.then(|| look_up_stands(&self.consumer, &places));
                    // The partitions may have gone meanwhile.
                    let _ = answer.send(stands);
                }
                Ok(Order::SetBack(positions, answer)) => {
                    let _ = answer.send(self.set_back(&positions));
                }
                Ok(Order::Forget(epochs)) => self.forget(&epochs),
                Err(RecvTimeoutError::Timeout) => {
                    next_tick = Instant::now() + interval;
                    self.commit(|_| true);
                    self.look_for_the_cluster();
                    self.compare_topics();
                    self.watch
                        .look(self.tracks.values().map(|track| &track.owned));
                }
                Ok(Order::Close) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// After a complaint asks the brokers for a sign of life: librdkafka tells when they go, and not when they are back.
    fn look_for_the_cluster(&self) {
        let readiness = &self.engine.readiness;
        if !readiness.has_complained() && !readiness.is_topic_lacking() {
            return;
        }
        let mut are_all_there = true;
        for topic in &self.engine.settings.topics {
            match self.topic_error(topic) {
                None => {}
                // That a topic is lacking is an answer as well.
                Some(Code::UnknownTopicOrPartition) => are_all_there = false,
                Some(_) => return,
            }
        }
        readiness.cluster_answers();
        if are_all_there {
            readiness.topics_are_there();
        }
    }

    /// What the brokers say is wrong with a topic.
    fn topic_error(&self, topic: &str) -> Option<Code> {
        let metadata = match self.consumer.fetch_metadata(Some(topic), ANSWER_WITHIN) {
            Ok(metadata) => metadata,
            Err(error) => return Some(error.rdkafka_error_code().unwrap_or(Code::Unknown)),
        };
        let error = metadata.topics().iter().find_map(|topic| topic.error());
        error.map(Code::from)
    }

    fn own(&mut self, owned: Owned) {
        let (group, topic, partition) = (
            self.engine.group.as_str(),
            &*owned.topic,
            owned.partition.to_string(),
        );
        let gauge_of = |metric, group_label| {
            let labels = [
                (group_label, group),
                ("topic", topic),
                ("partition", &*partition),
            ];
            self.engine.health.gauge(metric, &labels)
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

    fn forget(&mut self, epochs: &[Epoch]) {
        for epoch in epochs {
            if let Some(track) = self.tracks.remove(epoch) {
                track.lag.set(0.0);
                track.oldest_seconds.set(0.0);
                track.parked.iter().for_each(|gauge| gauge.set(0.0));
                let Owned {
                    topic,
                    partition,
                    parked_of,
                    ..
                } = &track.owned;
                if parked_of.is_some() {
                    self.engine.parking.set_committed(topic, *partition, None);
                    self.engine.parking.set_waiting(topic, *partition, None);
                }
            }
        }
    }

    /// Commits what is due of the epochs that `wanted` picks; false when it failed.
    fn commit(&mut self, wanted: impl Fn(Epoch) -> bool) -> bool {
        let mut positions = self.engine.ledger().positions();
        positions.extend(self.parked_positions());
        let mut due_now: Vec<&Position> = Vec::new();
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
        let mut are_committed = true;
        let mut rest = &due_now[..];
        while !rest.is_empty() {
            let (some, others) = rest.split_at(rest.len().min(self.partitions_max));
            are_committed &= self.commit_some(some);
            rest = others;
        }
        let is_cut = self.tracks.values().any(|track| !track.is_whole);
        self.engine.set_cut(is_cut);
        are_committed
    }

    /// Commits what is due of these, again with less where the brokers take less; false when that failed.
    fn commit_some(&mut self, positions: &[&Position]) -> bool {
        let (group, now) = (&self.engine.group, Instant::now());
        // The group's answer to a commit says whether it refuses this member still.
        let is_asked = self.engine.readiness.is_refused();
        let due_of = |position: &&Position| {
            let track = self.tracks.get(&position.epoch)?;
            due(track, position, group, now, self.metadata_max, is_asked)
        };
        let due_now: Vec<Due> = positions.iter().filter_map(due_of).collect();
        if due_now.is_empty() {
            return true;
        }
        let refusals = match self.send(&due_now) {
            Ok(refusals) => refusals,
            Err(error) => {
                self.failed.increment(1);
                tracing::warn!(group = self.engine.group, %error, partitions = due_now.len(), "offsets not committed; they are committed with the next ones, or their records come again");
                return false;
            }
        };
        if is_asked && refusals.iter().any(Option::is_none) {
            self.engine.readiness.group_answers();
        }
        let (mut are_committed, mut are_refused, mut too_large) = (true, false, Vec::new());
        for (due, refused) in due_now.into_iter().zip(refusals) {
            let has_metadata = due.metadata.text.is_some();
            match refused {
                None => self.committed(due),
                Some(code) if has_metadata && is_too_large(code) => {
                    too_large.push((due.epoch, code));
                }
                Some(code) => {
                    are_refused = true;
                    // There is nothing any more that its records could come from.
                    are_committed &= code == Code::UnknownTopicOrPartition;
                    self.refused(due.epoch, code);
                }
            }
        }
        let counter = if are_refused { &self.failed } else { &self.ok };
        counter.increment(1);
        are_committed & self.commit_smaller(positions, &too_large)
    }

    /// Commits these of `positions` again in a form that takes less room; false when that failed.
    fn commit_smaller(&mut self, positions: &[&Position], too_large: &[(Epoch, Code)]) -> bool {
        let Some((_, code)) = too_large.last() else {
            return true;
        };
        let is_again = |position: &&&Position| {
            let mut epochs = too_large.iter();
            epochs.any(|(epoch, _)| *epoch == position.epoch)
        };
        let again: Vec<&Position> = positions.iter().filter(is_again).copied().collect();
        if *code == Code::InvalidCommitOffsetSize && again.len() > 1 {
            // Together they are more than one record of the brokers' own topic takes.
            self.partitions_max = again.len().div_ceil(2);
            let (first, second) = again.split_at(self.partitions_max);
            return self.commit_some(first) & self.commit_some(second);
        }
        self.metadata_max /= 2;
        if self.metadata_max < METADATA_BYTES_MIN {
            self.metadata_max = 0;
        }
        tracing::warn!(group = self.engine.group, error = %code, bytes_max = self.metadata_max, "the brokers take less metadata with a commit; what is settled behind a slow record and does not fit is handled again after a restart");
        self.commit_some(&again)
    }

    /// The brokers have it.
    fn committed(&mut self, due: Due) {
        let Some(track) = self.tracks.get_mut(&due.epoch) else {
            return;
        };
        let owned = &mut track.owned;
        if track.is_whole && !due.metadata.is_whole {
            tracing::warn!(group = self.engine.group, topic = %owned.topic, partition = owned.partition, offset = due.offset, "more is settled behind slow records than a commit has room to tell; the rest is handled again after a restart or a rebalance, possibly after later records of its key");
        }
        if !due.metadata.is_whole {
            metrics::counter!(Metric::CommitsCut.name(), "group" => self.engine.group.clone(), "topic" => owned.topic.to_string()).increment(1);
        }
        owned.committed = Some(due.offset);
        track.is_whole = due.metadata.is_whole;
        track.metadata = due.metadata.text;
        track.committed_at = Instant::now();
        track.refused = None;
        if owned.parked_of.is_some() {
            let parking = &self.engine.parking;
            parking.set_committed(&owned.topic, owned.partition, Some(due.offset));
        }
    }

    /// The brokers do not take it. Said once for each reason: it is tried again at each interval.
    fn refused(&mut self, epoch: Epoch, code: Code) {
        let Some(track) = self.tracks.get_mut(&epoch) else {
            return;
        };
        if track.refused.replace(code) != Some(code) {
            let owned = &track.owned;
            tracing::warn!(group = self.engine.group, topic = %owned.topic, partition = owned.partition, error = %code, "the partition's offset is not committed; it is tried again, or its records come again");
        }
    }

    /// Commits these positions as they are; false when one of them was refused.
    fn set_back(&self, positions: &[SetBack]) -> bool {
        let group = &self.engine.group;
        let text = |of: &SetBack| {
            let tag = Tag {
                group,
                topic: &of.topic,
                partition: of.partition,
            };
            let (offset, bytes_max) = (of.offset, self.metadata_max);
            metadata::encode(tag, of.log, offset, offset, &[], bytes_max).text
        };
        let texts: Vec<Option<String>> = positions.iter().map(text).collect();
        let to_commit = |(of, metadata)| {
            let SetBack {
                topic,
                partition,
                offset,
                log,
            }: &SetBack = of;
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
                tracing::warn!(group, %error, "where partitions begin anew is not committed; it is tried again");
                false
            }
        }
    }

    /// Asks for the ids of the topics. One that is another than was assigned has none of the records that offsets were
    /// committed for, and nothing more is committed for it.
    fn compare_topics(&mut self) {
        if self.topics_compared_at.elapsed() < TOPICS_EVERY
            || self.engine.readiness.has_complained()
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
            let (keys, records) = self.engine.parking.waiting_in(topic);
            self.engine.fail(format!(
                "the retry topic {topic} was deleted and created again while {records} records of {keys} keys were parked in the \
                 partitions of this member: they are lost; evenkeel audit names them; handle them again from the source"
            ));
        }
        let gone = gone.iter().map(|track| track.owned.epoch);
        self.engine.recreated(gone);
    }

    fn parked_positions(&self) -> impl Iterator<Item = Position> {
        let partitions = self
            .tracks
            .values()
            .filter_map(|track| track.owned.parked_of.as_ref());
        let retries = partitions.filter_map(|partition| partition.retry.as_ref());
        retries.filter_map(RetryPartition::position)
    }

    /// Commits these; says of each why it was refused.
    fn send(&self, due: &[Due]) -> KafkaResult<Vec<Option<Code>>> {
        let place = |due: &Due| {
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

    fn report(&self, track: &Track, position: &Position) {
        let owned = &track.owned;
        let retry = owned
            .parked_of
            .as_ref()
            .and_then(|partition| partition.retry.as_ref());
        if let Some(retry) = retry {
            let (keys, records) = retry.waiting();
            track.parked[0].set(keys as f64);
            track.parked[1].set(records as f64);
            let lot = &self.engine.parking;
            lot.set_waiting(&retry.topic, owned.partition, Some((keys, records)));
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

/// Whether the brokers refuse a commit for the room that it takes.
fn is_too_large(code: Code) -> bool {
    matches!(
        code,
        Code::OffsetMetadataTooLarge | Code::InvalidCommitOffsetSize
    )
}

#[cfg(test)]
mod tests;

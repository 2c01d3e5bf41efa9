//! Commits: a thread of its own, an explicit list, sync, never backwards, and only for partitions that are owned.
//!
//! All commits of a consumer happen here, one after the other, so that none can overtake another. The poll thread asks
//! with a deadline and shares no lock with this thread.

use super::engine::Engine;
use super::ledger::{Epoch, Position};
use super::metadata::{self, Tag};
use super::parking::RetryPartition;
use super::partition::Partition;
use super::pause::{Place, Stands, look_up_stands};
use super::watch::Watch;
use crate::kafka::queue::cached_watermarks;
use crate::telemetry::Metric;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long the brokers have to show that they are back.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How old a retry partition's commit may become before it is made again.
const AGAIN_AFTER: Duration = Duration::from_secs(12 * 3_600);

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

struct Track {
    owned: Owned,
    committed_at: Instant,
    metadata: Option<String>,
    lag: metrics::Gauge,
    oldest_seconds: metrics::Gauge,
    parked: [metrics::Gauge; 2],
}

/// What is to be committed: the offset, and what is settled above it.
type Due = (Epoch, i64, Option<String>);

/// What is due for a partition: never less than what is committed already, unless the partition itself fell back.
fn due(
    track: &Track,
    position: &Position,
    group: &str,
    now: Instant,
) -> Option<(i64, Option<String>)> {
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
    let metadata = metadata::encode(tag, watermark, position.next?, &position.unsettled);
    let is_new = owned.committed != Some(watermark) || track.metadata != metadata;
    // Offsets of a topic that the group does not subscribe to expire (KIP-211) when they are not committed for days.
    let is_old = now.saturating_duration_since(track.committed_at) > AGAIN_AFTER;
    (is_new || owned.parked_of.is_some() && is_old).then_some((watermark, metadata))
}

/// The committer's state.
pub(crate) struct Committer<C: ConsumerContext + 'static> {
    engine: Arc<Engine>,
    consumer: Arc<BaseConsumer<C>>,
    orders: mpsc::Receiver<Order>,
    tracks: HashMap<Epoch, Track>,
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
                Ok(Order::Forget(epochs)) => self.forget(&epochs),
                Err(RecvTimeoutError::Timeout) => {
                    next_tick = Instant::now() + interval;
                    self.commit(|_| true);
                    self.look_for_the_cluster();
                    self.watch
                        .look(self.tracks.values().map(|track| &track.owned));
                }
                Ok(Order::Close) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// After a complaint asks the brokers for a sign of life: librdkafka tells when they go, and not when they are back.
    fn look_for_the_cluster(&self) {
        let topic = self.engine.settings.topics.first().map(String::as_str);
        let is_back = self.engine.readiness.has_complained()
            && self
                .consumer
                .fetch_metadata(topic, ANSWER_WITHIN)
                .is_ok_and(|metadata| {
                    metadata
                        .topics()
                        .iter()
                        .all(|topic| topic.error().is_none())
                });
        if is_back {
            self.engine.readiness.cluster_answers();
        }
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
                }
            }
        }
    }

    /// Commits what is due of the epochs that `wanted` picks; false when it failed.
    fn commit(&mut self, wanted: impl Fn(Epoch) -> bool) -> bool {
        let mut positions = self.engine.ledger().positions();
        positions.extend(self.parked_positions());
        let (group, now) = (&self.engine.group, Instant::now());
        let mut due_now = Vec::new();
        for position in &positions {
            let Some(track) = self.tracks.get(&position.epoch) else {
                continue;
            };
            self.report(track, position);
            if wanted(position.epoch) {
                due_now.extend(
                    due(track, position, group, now)
                        .map(|(offset, metadata)| (position.epoch, offset, metadata)),
                );
            }
        }
        // Apart, so that a retry topic that somebody deleted does not spoil what is said of the others.
        let is_parked = |(epoch, ..): &Due| {
            let track = self.tracks.get(epoch);
            track.is_some_and(|track| track.owned.parked_of.is_some())
        };
        let (parked, own): (Vec<Due>, Vec<Due>) = due_now.into_iter().partition(is_parked);
        let are_parked_committed = self.commit_due(parked);
        self.commit_due(own) && are_parked_committed
    }

    /// Commits these; false when that failed.
    fn commit_due(&mut self, due_now: Vec<Due>) -> bool {
        if due_now.is_empty() {
            return true;
        }
        if let Err(error) = self.send(&due_now) {
            self.failed.increment(1);
            tracing::warn!(group = self.engine.group, %error, partitions = due_now.len(), "offsets not committed; they are committed with the next ones, or their records come again");
            return false;
        }
        self.ok.increment(1);
        for (epoch, offset, metadata) in due_now {
            let Some(track) = self.tracks.get_mut(&epoch) else {
                continue;
            };
            track.owned.committed = Some(offset);
            track.metadata = metadata;
            track.committed_at = Instant::now();
            let owned = &track.owned;
            if owned.parked_of.is_some() {
                let parking = &self.engine.parking;
                parking.set_committed(&owned.topic, owned.partition, Some(offset));
            }
        }
        true
    }

    fn parked_positions(&self) -> impl Iterator<Item = Position> {
        let partitions = self
            .tracks
            .values()
            .filter_map(|track| track.owned.parked_of.as_ref());
        let retries = partitions.filter_map(|partition| partition.retry.as_ref());
        retries.filter_map(RetryPartition::position)
    }

    fn send(&self, due: &[Due]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(due.len());
        for (epoch, offset, metadata) in due {
            let Some(track) = self.tracks.get(epoch) else {
                continue;
            };
            let mut element = list.add_partition(&track.owned.topic, track.owned.partition);
            element.set_offset(Offset::Offset(*offset))?;
            if let Some(metadata) = metadata {
                element.set_metadata(metadata.as_str());
            }
        }
        self.consumer.commit(&list, CommitMode::Sync)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn track(committed: Option<i64>) -> Track {
        let owned = Owned {
            epoch: Epoch(1),
            topic: "t".into(),
            partition: 0,
            committed,
            parked_of: None,
        };
        Track {
            owned,
            committed_at: Instant::now(),
            metadata: None,
            lag: metrics::Gauge::noop(),
            oldest_seconds: metrics::Gauge::noop(),
            parked: [metrics::Gauge::noop(), metrics::Gauge::noop()],
        }
    }

    fn position(watermark: Option<i64>, next: Option<i64>) -> Position {
        Position {
            epoch: Epoch(1),
            watermark,
            next,
            unsettled: Vec::new(),
            fell_back: false,
            oldest_received_at: None,
        }
    }

    fn due_now(track: &Track, position: &Position) -> Option<(i64, Option<String>)> {
        due(track, position, "g", Instant::now())
    }

    #[test]
    fn only_progress_is_committed_and_never_a_step_back() {
        let offset = |committed, watermark| {
            due_now(&track(committed), &position(watermark, watermark)).map(|(offset, _)| offset)
        };
        assert_eq!(offset(None, None), None);
        assert_eq!(offset(None, Some(5)), Some(5));
        assert_eq!(offset(Some(5), Some(5)), None);
        assert_eq!(offset(Some(5), Some(6)), Some(6));
        assert_eq!(offset(Some(5), Some(4)), None);
    }

    #[test]
    fn a_partition_that_fell_back_is_committed_below_what_it_lost() {
        let fallen = Position {
            fell_back: true,
            ..position(Some(4), Some(4))
        };
        let due = due_now(&track(Some(900)), &fallen).map(|(offset, _)| offset);
        assert_eq!(due, Some(4));
    }

    #[test]
    fn records_settled_above_a_slow_one_are_committed_as_metadata() {
        let position = Position {
            unsettled: vec![5..6],
            ..position(Some(5), Some(9))
        };
        let (offset, metadata) =
            due_now(&track(Some(5)), &position).expect("three offsets are settled above");
        assert_eq!(offset, 5);
        let again = Track {
            metadata: metadata.clone(),
            ..track(Some(5))
        };
        assert!(metadata.is_some() && due_now(&again, &position).is_none());
    }

    #[test]
    fn only_a_retry_partition_is_committed_again_when_its_commit_is_old() {
        let retry_of = |parked_of| {
            let mut track = track(Some(5));
            track.owned.parked_of = parked_of;
            track
        };
        let source = Partition::new("s".into(), 0, Epoch(2), None);
        let (retry, own) = (retry_of(Some(Arc::new(source))), retry_of(None));
        let is_due = |track: &Track, age: Duration| {
            let now = track.committed_at + age;
            due(track, &position(Some(5), Some(5)), "g", now).is_some()
        };
        assert!(!is_due(&retry, AGAIN_AFTER));
        assert!(is_due(&retry, AGAIN_AFTER * 2));
        assert!(!is_due(&own, AGAIN_AFTER * 2));
    }
}

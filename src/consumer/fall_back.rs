//! Logs that are not what they were: truncated, or of a topic that was deleted and created again.
//!
//! Runs on the poll thread. Offsets of such a log stand for other records than before, so nothing known of them counts. The
//! partition's epoch ends; what had started is drained; the group's position is set back to where the log begins anew, and
//! committed; and the partition goes on from there under a fresh epoch. Its records are handled again rather than never.

use super::commit::{Order, SetBack};
use super::engine::Engine;
use super::ledger::Epoch;
use super::metadata::{self, Log, SettledAbove, Tag};
use super::partition::Partition;
use super::pause::{Held, Place};
use super::rebalance::{Assigned, COMMIT_WITHIN, Member};
use crate::kafka::queue::{Committed, TopicId, topic_ids};
use crate::telemetry::Metric;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How long the brokers may take to tell topic ids. Without them a topic that was created again is taken for the one before.
const TOPIC_IDS_WITHIN: Duration = Duration::from_secs(5);
/// How long the brokers may take to tell where a log begins.
const BEGINNING_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait before partitions that could not be set back are tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Where a log begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FallBack {
    /// It was truncated: at this record.
    To {
        offset: i64,
        leader_epoch: Option<i32>,
    },
    /// The topic is another one: at its first record.
    ToTheBeginning,
}

/// What became of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The log ended before it.
    Truncated,
    /// The topic was deleted and created again.
    Recreated,
    /// Records behind it were deleted before they were read.
    Deleted,
}

impl Lost {
    fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Recreated => "recreated",
            Self::Deleted => "deleted",
        }
    }

    fn happened(self) -> &'static str {
        match self {
            Self::Truncated => {
                "the log was truncated below the group's position: what it lost cannot be handled any more, and what stands there now is handled from its first record on"
            }
            Self::Recreated => {
                "the topic was deleted and created again: the group's position was the earlier one's, and the new topic is handled from its first record on"
            }
            Self::Deleted => {
                "records were deleted before the group had read them: it goes on behind them"
            }
        }
    }
}

impl Engine {
    /// A position was lost and set anew: logged, counted, and noted in the health.
    pub(crate) fn position_lost(
        &self,
        (topic, partition): (&str, i32),
        lost: Lost,
        from: Option<i64>,
        to: Option<i64>,
    ) {
        let (group, reason) = (&self.group, lost.reason());
        tracing::error!(
            group,
            topic,
            partition,
            reason,
            from,
            to,
            "{}",
            lost.happened()
        );
        metrics::counter!(Metric::PositionsLost.name(), "group" => group.clone(), "topic" => topic.to_owned(), "reason" => reason).increment(1);
        self.readiness.position_lost(topic, partition, reason);
    }
}

impl Assigned {
    /// Takes over where the group stands: committed offset and what is settled above it, if they are of this topic.
    pub(super) fn stand(&mut self, engine: &Engine, found: &Committed, id: Option<TopicId>) {
        let Partition {
            topic,
            partition,
            epoch,
            ..
        } = &*self.partition;
        let mut log = Log {
            topic_id: id,
            leader_epoch: None,
        };
        self.committed = found.offset;
        if let Some(offset) = found.offset {
            let tag = Tag {
                group: &engine.group,
                topic,
                partition: *partition,
            };
            let told = metadata::decode(tag, offset, &found.metadata);
            if told.topic_id.zip(id).is_some_and(|(was, is)| was != is) {
                self.fall_back = Some(FallBack::ToTheBeginning);
                engine.position_lost((topic, *partition), Lost::Recreated, Some(offset), None);
            } else {
                log.leader_epoch = found.leader_epoch.max(told.settled_above.leader_epoch());
                self.committed_under = log.leader_epoch;
                self.settled_above = told.settled_above;
            }
        }
        let mut ledger = engine.ledger();
        ledger.assign(*epoch, self.settled_above.runs());
        ledger.reads(*epoch, log);
    }

    /// A record came of a leader that took over after these were settled: what stands at their offsets are other records.
    pub(super) fn outlive_settled(&mut self, engine: &Engine, offset: i64) {
        let partition = &self.partition;
        let place = (&*partition.topic, partition.partition);
        let end = self.settled_above.runs().last().map(|run| run.end);
        engine.position_lost(place, Lost::Truncated, end, Some(offset));
        self.settled_above = SettledAbove::default();
        engine.ledger().forget_above(partition.epoch);
    }
}

/// Whether an error says that a partition is not there, which the client knows at once.
fn is_of_partition(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(Code::UnknownPartition | Code::UnknownTopicOrPartition | Code::UnknownTopic)
    )
}

impl Member {
    /// The ids of these partitions' topics, as the brokers tell them now.
    pub(super) fn topic_ids(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
    ) -> HashMap<String, TopicId> {
        let elements = list.elements();
        let topics: BTreeSet<&str> = elements.iter().map(|element| element.topic()).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        let ids = topic_ids(consumer.client(), &topics, TOPIC_IDS_WITHIN);
        let told = ids.iter().map(|(topic, id)| (topic, *id));
        self.engine.control.set_topic_ids(told);
        ids
    }

    /// Sets partitions back whose logs begin anew, step by step; whether any is not there yet.
    pub(crate) fn mind_fallen(&self, consumer: &BaseConsumer<Self>) -> bool {
        let recreated = self.engine.take_recreated();
        let (mut fresh, mut still) = (Vec::new(), Vec::new());
        let mut epochs: Vec<Epoch> = Vec::new();
        let mut are_any = false;
        for assigned in self.assignments().all() {
            let partition = &assigned.partition;
            if recreated.contains(&partition.epoch) {
                assigned.fall_back = Some(FallBack::ToTheBeginning);
                let place = (&*partition.topic, partition.partition);
                let from = assigned.next.or(assigned.committed);
                self.engine
                    .position_lost(place, Lost::Recreated, from, None);
            }
            if !assigned.is_to_be_set_back() {
                continue;
            }
            are_any = true;
            let place: Place = (Arc::clone(&partition.topic), partition.partition);
            match assigned.held {
                Some(Held::Still { .. }) => still.push(place),
                Some(Held::Draining { .. }) => {}
                None => {
                    let epoch = assigned.fall_back.map(|_| partition.epoch);
                    epochs.extend(epoch);
                    fresh.push(place);
                }
            }
        }
        if !fresh.is_empty() {
            // What is settled of the records before is nothing that may be committed for those that stand there now.
            let _ = self.orders.send(Order::Forget(epochs));
            self.hold(consumer, &fresh);
        }
        if are_any {
            self.mind_held();
        }
        let is_paused = |place: &Place| self.engine.control.is_paused(&place.0, place.1);
        still.retain(|place| !is_paused(place));
        if !still.is_empty() && self.is_time_to_set_back() {
            self.release(consumer, &still);
        }
        are_any
    }

    fn is_time_to_set_back(&self) -> bool {
        let mut assignments = self.assignments();
        let now = Instant::now();
        let is_time = assignments.set_back_at.is_none_or(|at| at <= now);
        if is_time {
            assignments.set_back_at = Some(now + AGAIN_AFTER);
        }
        is_time
    }

    /// Commits where those of these partitions are to go on whose logs begin anew. Answers with those that may go on now: the others
    /// have to be tried again, each for itself, as a topic that was created again may have fewer partitions.
    pub(super) fn set_back(
        &self,
        consumer: &BaseConsumer<Self>,
        mut places: Vec<Place>,
    ) -> Vec<Place> {
        let mut fallen = TopicPartitionList::new();
        let mut falls = Vec::new();
        for (topic, partition) in &places {
            let fall_back = self
                .assignments()
                .get(topic, *partition)
                .and_then(|assigned| assigned.fall_back);
            if let Some(fall_back) = fall_back {
                fallen.add_partition(topic, *partition);
                falls.push((Arc::clone(topic), *partition, fall_back));
            }
        }
        if falls.is_empty() {
            return places;
        }
        let ids = self.topic_ids(consumer, &fallen);
        let mut positions = Vec::with_capacity(falls.len());
        let mut answers = true;
        for (topic, partition, fall_back) in falls {
            let place = (Arc::clone(&topic), partition);
            let (offset, leader_epoch) = match fall_back {
                FallBack::To {
                    offset,
                    leader_epoch,
                } => (offset, leader_epoch),
                FallBack::ToTheBeginning => {
                    // The first that does not answer ends the round: this thread serves all partitions.
                    let beginning = answers
                        .then(|| consumer.fetch_watermarks(&topic, partition, BEGINNING_WITHIN));
                    match beginning {
                        Some(Ok((beginning, _))) => (beginning, None),
                        failed => {
                            if let Some(Err(error)) = failed {
                                answers = is_of_partition(&error);
                                self.cannot_set_back(consumer, &topic, partition, &error);
                            }
                            places.retain(|other| *other != place);
                            continue;
                        }
                    }
                }
            };
            let topic_id = ids.get(&*topic).copied();
            positions.push(SetBack {
                topic,
                partition,
                offset,
                log: Log {
                    topic_id,
                    leader_epoch,
                },
            });
        }
        if positions.is_empty() {
            return places;
        }
        let (answer, answered) = mpsc::channel();
        let asked = self.orders.send(Order::SetBack(positions, answer));
        match asked.is_ok() && answered.recv_timeout(COMMIT_WITHIN).unwrap_or(false) {
            true => places,
            false => Vec::new(),
        }
    }

    /// Shows that it is not known where a log begins anew. Where its partition is gone, that is news for the group.
    fn cannot_set_back(
        &self,
        consumer: &BaseConsumer<Self>,
        topic: &str,
        partition: i32,
        error: &KafkaError,
    ) {
        let is_news = self
            .engine
            .readiness
            .cannot_read_now(topic, partition, &error.to_string());
        if is_news {
            tracing::warn!(group = self.engine.group, topic, partition, %error, "it is not known where the partition begins anew; it is asked again");
            // A topic with fewer partitions is shared out anew as soon as the client knows it.
            if is_of_partition(error)
                && let Err(error) = consumer.fetch_metadata(Some(topic), BEGINNING_WITHIN)
            {
                tracing::debug!(group = self.engine.group, topic, %error, "the topic cannot be looked at");
            }
        }
    }
}

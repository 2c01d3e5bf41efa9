//! Partitions that stand before a batch that the client cannot read.
//!
//! Runs on the poll thread. Such a partition is no longer fetched and nothing behind the batch is taken, so that no commit passes
//! it; it is tried again at an interval. A thread of its own finds out how far the batch reaches. An operator's command to skip
//! one of its records skips the whole batch.

use super::control::Control;
use super::engine::Engine;
use super::ledger::Epoch;
use super::pause::SEEK_WITHIN;
use super::rebalance::{Assigned, Member};
use super::silent::{Found, Silence};
use crate::control::Outcome;
use crate::kafka::unreadable::extent;
use crate::kafka::{KafkaConfig, KafkaError, UnreadableBatch};
use crate::recovery::Position;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// How often it is tried again: another replica, or a client of another release, may have it whole.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How long finding out where a batch ends may take.
const EXTENT_WITHIN: Duration = Duration::from_secs(20);

/// The partitions of this member that stand before a batch.
pub(crate) struct Unreadable {
    engine: Arc<Engine>,
    kafka: KafkaConfig,
    silence: Silence,
    standing: Vec<Standing>,
}

/// A partition that stands.
struct Standing {
    epoch: Epoch,
    batch: UnreadableBatch,
    extent: Extent,
    again_at: Instant,
    /// Whether it is being read again.
    is_tried: bool,
}

/// What is known of how far a batch reaches.
enum Extent {
    Asked(Receiver<Result<Range<i64>, KafkaError>>),
    Known(Range<i64>),
    Unknown,
}

impl Unreadable {
    pub(crate) fn new(engine: Arc<Engine>, kafka: &KafkaConfig) -> Self {
        Self {
            engine,
            kafka: kafka.clone(),
            silence: Silence::new(kafka),
            standing: Vec::new(),
        }
    }

    /// A batch cannot be read. Intake has marked its partition already.
    pub(crate) fn found(&mut self, consumer: &BaseConsumer<Member>, mut batch: UnreadableBatch) {
        let mut assignments = consumer.context().assignments();
        let Some(assigned) = assignments.get(&batch.topic, batch.partition) else {
            return;
        };
        let epoch = assigned.partition.epoch;
        // The batch may begin below what is settled already; and a client that lost its place in a damaged response tells of
        // any offset.
        let stand = stand(assigned);
        batch.offset = batch.offset.max(stand);
        drop(assignments);
        // One that was read meanwhile is no more in the way.
        self.standing
            .retain(|known| known.epoch != epoch || !known.is_tried || stand <= known.batch.offset);
        stop_fetching(consumer, &batch, &self.engine.group);
        if let Some(known) = self.standing.iter_mut().find(|known| known.epoch == epoch) {
            if known.batch.offset == batch.offset {
                known.stands_again();
            }
            return;
        }
        tracing::error!(
            group = self.engine.group,
            topic = batch.topic,
            partition = batch.partition,
            offset = batch.offset,
            cause = batch.cause,
            "a batch cannot be read: its partition stands still, and is tried again at an interval"
        );
        let standing = Standing {
            epoch,
            extent: self.ask_extent(&batch),
            batch,
            again_at: Instant::now() + AGAIN_AFTER,
            is_tried: false,
        };
        self.show(&standing);
        self.standing.push(standing);
    }

    /// The client has nothing more for us at this moment.
    pub(crate) fn drained(&mut self, now: Instant) {
        self.silence.drained(now);
    }

    /// Stops the partitions of which nothing comes because a batch is damaged inside.
    fn mind_silence(&mut self, consumer: &BaseConsumer<Member>) {
        let standing = &self.standing;
        let is_known = |epoch| standing.iter().any(|known| known.epoch == epoch);
        for Found {
            epoch,
            batch,
            range,
        } in self.silence.mind(consumer, is_known)
        {
            if let Some(assigned) = consumer
                .context()
                .assignments()
                .get(&batch.topic, batch.partition)
            {
                assigned.is_unreadable = true;
            }
            stop_fetching(consumer, &batch, &self.engine.group);
            tracing::error!(
                group = self.engine.group,
                topic = batch.topic,
                partition = batch.partition,
                offset = batch.offset,
                cause = batch.cause,
                "a batch cannot be read: its partition stands still, and is tried again at an interval"
            );
            let standing = Standing {
                epoch,
                batch,
                extent: Extent::Known(range),
                again_at: Instant::now() + AGAIN_AFTER,
                is_tried: false,
            };
            self.show(&standing);
            self.standing.push(standing);
        }
    }

    /// Asks, on a thread of its own, how far the batch reaches.
    fn ask_extent(&self, batch: &UnreadableBatch) -> Extent {
        let (answer, answered) = channel();
        let (kafka, batch) = (self.kafka.clone(), batch.clone());
        let ask = move || {
            // The run may have ended meanwhile.
            let _ = answer.send(extent(&kafka, &batch, EXTENT_WITHIN));
        };
        let thread = std::thread::Builder::new().name("evenkeel-extent".to_owned());
        match thread.spawn(ask) {
            Ok(_) => Extent::Asked(answered),
            Err(error) => {
                tracing::warn!(group = self.engine.group, %error, "no thread to find out how far a batch reaches");
                Extent::Unknown
            }
        }
    }

    /// Tells the operator what stands, and how it goes on.
    fn show(&self, standing: &Standing) {
        let UnreadableBatch {
            topic,
            partition,
            offset,
            cause,
        } = &standing.batch;
        let group = &self.engine.group;
        let reach = match &standing.extent {
            Extent::Known(range) => format!(", which reaches to offset {}", range.end - 1),
            Extent::Asked(_) | Extent::Unknown => String::new(),
        };
        let why = format!(
            "offset {offset}: {cause}; evenkeel groups skip {group} --record {topic}/{partition}@{offset} skips the batch{reach}"
        );
        self.engine.readiness.cannot_read(topic, *partition, &why);
    }

    /// Looks what has become of them. Called all the time.
    pub(crate) fn mind(&mut self, consumer: &BaseConsumer<Member>) {
        self.mind_silence(consumer);
        if self.standing.is_empty() {
            return;
        }
        for mut standing in std::mem::take(&mut self.standing) {
            if self.mind_one(consumer, &mut standing) {
                self.standing.push(standing);
            }
        }
    }

    /// Whether it stands still.
    fn mind_one(&mut self, consumer: &BaseConsumer<Member>, standing: &mut Standing) -> bool {
        {
            let mut assignments = consumer.context().assignments();
            let assigned = assignments.get(&standing.batch.topic, standing.batch.partition);
            let assigned = assigned.filter(|assigned| assigned.partition.epoch == standing.epoch);
            match assigned {
                // It went, or begins anew; what was told of it is taken back where that happens or when it is read.
                None => return false,
                Some(assigned) if assigned.held.is_some() => return true,
                Some(assigned)
                    if standing.is_tried
                        && !assigned.is_unreadable
                        && assigned
                            .next
                            .is_some_and(|next| next > standing.batch.offset) =>
                {
                    tracing::info!(
                        group = self.engine.group,
                        topic = standing.batch.topic,
                        partition = standing.batch.partition,
                        offset = standing.batch.offset,
                        "the batch can be read again"
                    );
                    return false;
                }
                Some(_) => {}
            }
        }
        self.learn_extent(standing);
        if let Extent::Known(range) = &standing.extent
            && is_skipped(&self.engine.control, &standing.batch, range)
        {
            let range = range.clone();
            return !self.skip(consumer, standing, range);
        }
        if Instant::now() >= standing.again_at {
            standing.again_at = Instant::now() + AGAIN_AFTER;
            if matches!(standing.extent, Extent::Unknown) {
                standing.extent = self.ask_extent(&standing.batch);
            }
            standing.is_tried = self.read_from(consumer, &standing.batch, standing.batch.offset);
        }
        true
    }

    fn learn_extent(&self, standing: &mut Standing) {
        let Extent::Asked(answer) = &standing.extent else {
            return;
        };
        standing.extent = match answer.try_recv() {
            Err(TryRecvError::Empty) => return,
            Ok(Ok(range)) => Extent::Known(range),
            Ok(Err(error)) => {
                tracing::warn!(group = self.engine.group, %error, "it is not known yet how far an unreadable batch reaches");
                Extent::Unknown
            }
            Err(TryRecvError::Disconnected) => Extent::Unknown,
        };
        self.show(standing);
    }

    /// Passes over a batch on an operator's word; false when the client does not follow, and it is tried again.
    fn skip(
        &self,
        consumer: &BaseConsumer<Member>,
        standing: &Standing,
        range: Range<i64>,
    ) -> bool {
        let UnreadableBatch {
            topic, partition, ..
        } = &standing.batch;
        if !self.read_from(consumer, &standing.batch, range.end) {
            return false;
        }
        {
            let mut assignments = consumer.context().assignments();
            let Some(assigned) = assignments.get(topic, *partition) else {
                return true;
            };
            assigned.next = Some(range.end);
            let assigned = Arc::clone(&assigned.partition);
            self.engine.ledger().advance(assigned.epoch, range.end);
            self.engine.readiness.can_read(&assigned);
        }
        tracing::error!(
            group = self.engine.group,
            topic,
            partition,
            first = range.start,
            last = range.end - 1,
            cause = standing.batch.cause,
            "a batch that cannot be read was skipped by an operator; its records are handled by nobody"
        );
        let detail = format!(
            "the unreadable batch of offsets {} to {} was skipped whole, without dead letters: its records are known to nobody",
            range.start,
            range.end - 1
        );
        let control = &self.engine.control;
        for record in skipped(control, &standing.batch, &range) {
            control.unskip(&record);
            control.skip_ended(&record, Outcome::Skipped, &detail);
        }
        true
    }

    /// Has the client read on from an offset.
    fn read_from(
        &self,
        consumer: &BaseConsumer<Member>,
        batch: &UnreadableBatch,
        offset: i64,
    ) -> bool {
        let sought = try_read_from(consumer, batch, offset);
        if let Err(error) = sought {
            tracing::warn!(group = self.engine.group, topic = batch.topic, partition = batch.partition, offset, %error, "a partition that cannot be read is not read on yet; it is tried again");
            return false;
        }
        true
    }

    /// A batch that keeps a bounded run from its end, and whether there is nothing left to be found out about any.
    pub(crate) fn in_the_way(&self) -> Option<(&UnreadableBatch, bool)> {
        let is_asked = |standing: &Standing| matches!(standing.extent, Extent::Asked(_));
        let are_known = !self.standing.iter().any(is_asked);
        let first = self.standing.first()?;
        Some((&first.batch, are_known))
    }

    /// Whether a partition of this epoch stands.
    pub(crate) fn stands(&self, epoch: Epoch) -> bool {
        self.standing.iter().any(|standing| standing.epoch == epoch)
    }
}

impl Standing {
    fn stands_again(&mut self) {
        self.is_tried = false;
        self.again_at = Instant::now() + AGAIN_AFTER;
    }
}

/// Has the client fetch no more of the partition. It may have read on behind a damaged batch, to where nothing is.
fn stop_fetching(consumer: &BaseConsumer<Member>, batch: &UnreadableBatch, group: &str) {
    let (topic, partition) = (batch.topic.as_str(), batch.partition);
    let stopped = consumer.pause(&place(batch)).and_then(|()| {
        // Without a wait: the answer is nobody's business until it is read again.
        consumer.seek(
            topic,
            partition,
            Offset::Offset(batch.offset),
            Duration::ZERO,
        )
    });
    if let Err(error) = stopped {
        tracing::debug!(group, %error, "the client goes on fetching a partition that cannot be read");
    }
}

fn try_read_from(
    consumer: &BaseConsumer<Member>,
    batch: &UnreadableBatch,
    offset: i64,
) -> KafkaResult<()> {
    let mut seek = TopicPartitionList::new();
    seek.add_partition_offset(&batch.topic, batch.partition, Offset::Offset(offset))?;
    let sought = consumer.seek_partitions(seek, SEEK_WITHIN)?;
    let elements = sought.elements();
    elements.iter().try_for_each(|element| element.error())?;
    // What the client had fetched is outdated by now: what comes is what is asked for.
    let mut assignments = consumer.context().assignments();
    if let Some(assigned) = assignments.get(&batch.topic, batch.partition) {
        assigned.is_unreadable = false;
    }
    drop(assignments);
    consumer.resume(&place(batch))
}

/// Where reading of a partition stands: below it everything was received.
fn stand(assigned: &Assigned) -> i64 {
    let stands = assigned.next.into_iter().chain(assigned.committed).max();
    stands.unwrap_or(0)
}

fn place(batch: &UnreadableBatch) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(&batch.topic, batch.partition);
    list
}

/// The records of the batch that an operator wants skipped.
fn skipped(control: &Control, batch: &UnreadableBatch, range: &Range<i64>) -> Vec<Position> {
    let state = control.state();
    let skips = state.skips().map(|skip| &skip.record);
    let of_batch = skips.filter(|record| {
        (record.topic.as_str(), record.partition) == (&*batch.topic, batch.partition)
            && range.contains(&record.offset)
    });
    of_batch.cloned().collect()
}

fn is_skipped(control: &Control, batch: &UnreadableBatch, range: &Range<i64>) -> bool {
    !skipped(control, batch, range).is_empty()
}

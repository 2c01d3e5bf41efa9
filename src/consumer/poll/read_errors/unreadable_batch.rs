//! Partitions blocked by a batch that the client cannot read.
//!
//! A batch is the unit of compression and of the checksum: one damaged byte makes all its records
//! unreadable, and the client cannot pass it by itself. The partition stops before it. Another
//! client reads its header for its last offset, its *extent*, so that an operator knows how many
//! records a skip loses. A skip is a command for any record in it; no dead letter can be written,
//! as no record can be read.

use crate::consumer::poll::pause::SEEK_TIMEOUT;
use crate::consumer::poll::read_errors::silent_partitions::{DamagedBatch, SilentPartitions};
use crate::consumer::poll::read_errors::telemetry;
use crate::consumer::poll::rebalance::RebalanceContext;
use crate::consumer::shared::Shared;
use crate::consumer::shared::control::Control;
use crate::consumer::state::assignments::Assigned;
use crate::consumer::state::offset_tracker::Epoch;
use crate::control::CommandOutcome;
use crate::kafka::{KafkaConfig, KafkaError, RecordPosition, UnreadableBatch};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// How often the batch is read again: another replica, or another client release, may be able to
/// read it.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// How long the lookup of a batch's extent may take.
const EXTENT_TIMEOUT: Duration = Duration::from_secs(20);

/// The blocked partitions of this member. Used by the poll thread.
///
/// ```text
/// found ─▶ blocked ─▶ read again every 30 s ─▶ readable: unblocked
///             │
///             └─ extent known and a skip requested ─▶ sought behind it: unblocked
/// ```
pub(crate) struct UnreadableBatches {
    shared: Arc<Shared>,
    kafka: KafkaConfig,
    /// Finds batches that the client does not report.
    silent_partitions: SilentPartitions,
    /// One for each partition at most.
    blocked: Vec<Blocked>,
}

/// A blocked partition.
struct Blocked {
    epoch: Epoch,
    batch: UnreadableBatch,
    extent: Extent,
    /// When it is read again.
    retry_at: Instant,
    /// Whether the batch is being read again.
    is_retried: bool,
}

/// The offsets of a batch, as far as they are known.
enum Extent {
    /// The lookup is in progress.
    Pending(Receiver<Result<Range<i64>, KafkaError>>),
    /// From the first blocked offset to the one behind the batch.
    Known(Range<i64>),
    Unknown,
}

impl UnreadableBatches {
    /// No partition is blocked.
    pub(crate) fn new(shared: Arc<Shared>, kafka: &KafkaConfig) -> Self {
        Self {
            shared,
            kafka: kafka.clone(),
            silent_partitions: SilentPartitions::new(kafka),
            blocked: Vec::new(),
        }
    }

    /// Registers a batch that cannot be read. Intake has marked its partition already.
    ///
    /// The client may report one batch several times, or another offset in it; the partition's next
    /// offset is the lower bound.
    pub(crate) fn register(
        &mut self,
        consumer: &BaseConsumer<RebalanceContext>,
        mut batch: UnreadableBatch,
    ) {
        let mut assignments = consumer.context().assignments();
        let Some(assigned) = assignments.get(&batch.topic, batch.partition) else {
            return;
        };
        let epoch = assigned.partition.epoch;
        // The batch may begin below offsets that are settled already. A client that lost its
        // position in a damaged response may report any offset.
        let next = next_offset(assigned);
        batch.offset = batch.offset.max(next);
        drop(assignments);
        // A batch that was read meanwhile no longer blocks.
        self.blocked.retain(|known| {
            known.epoch != epoch || !known.is_retried || next <= known.batch.offset
        });
        stop_fetching(consumer, &batch, &self.shared.group);
        if let Some(known) = self.blocked.iter_mut().find(|known| known.epoch == epoch) {
            if known.batch.offset == batch.offset {
                known.schedule_retry();
            }
            return;
        }
        let extent = self.look_up_extent(&batch);
        self.block(epoch, batch, extent);
    }

    /// Blocks a partition before a batch that cannot be read.
    fn block(&mut self, epoch: Epoch, batch: UnreadableBatch, extent: Extent) {
        telemetry::batch_blocks(&self.shared.group, &batch);
        let blocked = Blocked {
            epoch,
            batch,
            extent,
            retry_at: Instant::now() + RETRY_INTERVAL,
            is_retried: false,
        };
        self.report(&blocked);
        self.blocked.push(blocked);
    }

    /// Notes that the client had no further message.
    pub(crate) fn note_drained(&mut self, now: Instant) {
        self.silent_partitions.note_drained(now);
    }

    /// Blocks the partitions from which no record arrives because a batch is damaged inside.
    fn block_silent(&mut self, consumer: &BaseConsumer<RebalanceContext>) {
        let blocked = &self.blocked;
        let is_known = |epoch| blocked.iter().any(|known| known.epoch == epoch);
        for DamagedBatch {
            epoch,
            batch,
            range,
        } in self.silent_partitions.check(consumer, is_known)
        {
            if let Some(assigned) = consumer
                .context()
                .assignments()
                .get(&batch.topic, batch.partition)
            {
                assigned.is_unreadable = true;
            }
            stop_fetching(consumer, &batch, &self.shared.group);
            self.block(epoch, batch, Extent::Known(range));
        }
    }

    /// Starts a thread that looks up the extent of the batch.
    ///
    /// The thread ends by itself after at most 20 s. If it cannot be started, the batch can only be
    /// skipped after a later lookup.
    fn look_up_extent(&self, batch: &UnreadableBatch) -> Extent {
        let (answer, answered) = channel();
        let (kafka, batch) = (self.kafka.clone(), batch.clone());
        let look_up = move || {
            // The run may have ended meanwhile.
            let _ = answer.send(batch.extent(&kafka, EXTENT_TIMEOUT));
        };
        let thread = std::thread::Builder::new().name("evenkeel-extent".to_owned());
        match thread.spawn(look_up) {
            Ok(_) => Extent::Pending(answered),
            Err(error) => {
                telemetry::extent_lookup_not_started(&self.shared.group, &error);
                Extent::Unknown
            }
        }
    }

    /// Reports the blocked partition to the health, with the command that skips the batch.
    ///
    /// The reason ends with the command that skips the batch and the last offset that this would
    /// lose.
    fn report(&self, blocked: &Blocked) {
        let UnreadableBatch {
            topic,
            partition,
            offset,
            cause,
        } = &blocked.batch;
        let group = &self.shared.group;
        let reach = match &blocked.extent {
            Extent::Known(range) => format!(", which reaches to offset {}", range.end - 1),
            Extent::Pending(_) | Extent::Unknown => String::new(),
        };
        let why = format!(
            "offset {offset}: {cause}; evenkeel groups skip {group} --record {topic}/{partition}@{offset} --why TEXT skips the batch{reach}"
        );
        self.shared.readiness.cannot_read(topic, *partition, &why);
    }

    /// Checks the blocked partitions. The poll thread calls it on every turn.
    pub(crate) fn advance(&mut self, consumer: &BaseConsumer<RebalanceContext>) {
        self.block_silent(consumer);
        if self.blocked.is_empty() {
            return;
        }
        for mut blocked in std::mem::take(&mut self.blocked) {
            if self.advance_one(consumer, &mut blocked) {
                self.blocked.push(blocked);
            }
        }
    }

    /// Returns whether the partition is still blocked.
    ///
    /// A paused partition stays blocked and is not read.
    fn advance_one(
        &mut self,
        consumer: &BaseConsumer<RebalanceContext>,
        blocked: &mut Blocked,
    ) -> bool {
        {
            let mut assignments = consumer.context().assignments();
            let assigned = assignments.get(&blocked.batch.topic, blocked.batch.partition);
            let assigned = assigned.filter(|assigned| assigned.partition.epoch == blocked.epoch);
            match assigned {
                // It was revoked or has a new epoch. The report is cleared there, or when the
                // partition is read.
                None => return false,
                Some(assigned) if assigned.held.is_some() => return true,
                Some(assigned)
                    if blocked.is_retried
                        && !assigned.is_unreadable
                        && assigned
                            .next
                            .is_some_and(|next| next > blocked.batch.offset) =>
                {
                    telemetry::batch_readable(&self.shared.group, &blocked.batch);
                    return false;
                }
                Some(_) => {}
            }
        }
        self.receive_extent(blocked);
        if let Extent::Known(range) = &blocked.extent
            && has_skip_request(&self.shared.control, &blocked.batch, range)
        {
            let range = range.clone();
            return !self.skip(consumer, blocked, range);
        }
        if Instant::now() >= blocked.retry_at {
            blocked.retry_at = Instant::now() + RETRY_INTERVAL;
            if matches!(blocked.extent, Extent::Unknown) {
                blocked.extent = self.look_up_extent(&blocked.batch);
            }
            blocked.is_retried =
                self.seek_and_resume(consumer, &blocked.batch, blocked.batch.offset);
        }
        true
    }

    /// Takes the answer of the lookup, if there is one, and shows it.
    fn receive_extent(&self, blocked: &mut Blocked) {
        let Extent::Pending(answer) = &blocked.extent else {
            return;
        };
        blocked.extent = match answer.try_recv() {
            Err(TryRecvError::Empty) => return,
            Ok(Ok(range)) => Extent::Known(range),
            Ok(Err(error)) => {
                telemetry::extent_unknown(&self.shared.group, &error);
                Extent::Unknown
            }
            Err(TryRecvError::Disconnected) => Extent::Unknown,
        };
        self.report(blocked);
    }

    /// Skips a batch as an operator requested. Returns false if the seek failed; the caller tries
    /// again.
    ///
    /// The whole batch is skipped, since no part of it can be read. The offset tracker passes it,
    /// and the commands for records in it are acknowledged.
    fn skip(
        &self,
        consumer: &BaseConsumer<RebalanceContext>,
        blocked: &Blocked,
        range: Range<i64>,
    ) -> bool {
        let UnreadableBatch {
            topic, partition, ..
        } = &blocked.batch;
        if !self.seek_and_resume(consumer, &blocked.batch, range.end) {
            return false;
        }
        {
            let mut assignments = consumer.context().assignments();
            let Some(assigned) = assignments.get(topic, *partition) else {
                return true;
            };
            assigned.next = Some(range.end);
            let assigned = Arc::clone(&assigned.partition);
            self.shared.tracker().advance(assigned.epoch, range.end);
            self.shared.readiness.can_read(&assigned);
        }
        telemetry::batch_skipped(&self.shared.group, &blocked.batch, &range);
        let detail = format!(
            "the unreadable batch of offsets {} to {} was skipped as a whole, without dead letters: its records cannot be read",
            range.start,
            range.end - 1
        );
        let control = &self.shared.control;
        for record in skip_requests_in(control, &blocked.batch, &range) {
            control.unskip(&record);
            control.skip_ended(&record, CommandOutcome::Skipped, &detail);
        }
        true
    }

    /// Seeks the client to `offset` and fetches again.
    fn seek_and_resume(
        &self,
        consumer: &BaseConsumer<RebalanceContext>,
        batch: &UnreadableBatch,
        offset: i64,
    ) -> bool {
        let sought = try_seek_and_resume(consumer, batch, offset);
        if let Err(error) = sought {
            telemetry::seek_failed(&self.shared.group, batch, offset, &error);
            return false;
        }
        true
    }

    /// A batch that blocks the end of a bounded run, and whether the extents of all such batches
    /// are known.
    ///
    /// A bounded run reports the batch with its extent, for which it waits.
    pub(crate) fn blocking_batch(&self) -> Option<(&UnreadableBatch, bool)> {
        let is_pending = |blocked: &Blocked| matches!(blocked.extent, Extent::Pending(_));
        let all_known = !self.blocked.iter().any(is_pending);
        let first = self.blocked.first()?;
        Some((&first.batch, all_known))
    }

    /// Whether the partition of this epoch is blocked.
    pub(crate) fn is_blocked(&self, epoch: Epoch) -> bool {
        self.blocked.iter().any(|blocked| blocked.epoch == epoch)
    }
}

impl Blocked {
    /// The batch could not be read once more.
    fn schedule_retry(&mut self) {
        self.is_retried = false;
        self.retry_at = Instant::now() + RETRY_INTERVAL;
    }
}

/// Stops fetching the partition. The client may have read past the damaged batch.
fn stop_fetching(consumer: &BaseConsumer<RebalanceContext>, batch: &UnreadableBatch, group: &str) {
    let (topic, partition) = (batch.topic.as_str(), batch.partition);
    let stopped = consumer.pause(&partition_list(batch)).and_then(|()| {
        // Does not block: the answer matters only when the partition is read again.
        consumer.seek(
            topic,
            partition,
            Offset::Offset(batch.offset),
            Duration::ZERO,
        )
    });
    if let Err(error) = stopped {
        tracing::debug!(
            group,
            %error,
            "the client continues to fetch a partition that cannot be read"
        );
    }
}

/// Seeks and resumes the partition. The result of the seek is waited for.
fn try_seek_and_resume(
    consumer: &BaseConsumer<RebalanceContext>,
    batch: &UnreadableBatch,
    offset: i64,
) -> KafkaResult<()> {
    let mut seek = TopicPartitionList::new();
    seek.add_partition_offset(&batch.topic, batch.partition, Offset::Offset(offset))?;
    let sought = consumer.seek_partitions(seek, SEEK_TIMEOUT)?;
    let elements = sought.elements();
    elements.iter().try_for_each(|element| element.error())?;
    // The client discards what it fetched before, so that the next message is at the requested
    // offset.
    let mut assignments = consumer.context().assignments();
    if let Some(assigned) = assignments.get(&batch.topic, batch.partition) {
        assigned.is_unreadable = false;
    }
    drop(assignments);
    consumer.resume(&partition_list(batch))
}

/// The next offset of the partition. All records below it were received.
fn next_offset(assigned: &Assigned) -> i64 {
    let next = assigned.next.into_iter().chain(assigned.committed).max();
    next.unwrap_or(0)
}

/// The batch's partition as a list of the client.
fn partition_list(batch: &UnreadableBatch) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(&batch.topic, batch.partition);
    list
}

/// The records of the batch that an operator wants skipped.
fn skip_requests_in(
    control: &Control,
    batch: &UnreadableBatch,
    range: &Range<i64>,
) -> Vec<RecordPosition> {
    let state = control.state();
    let skips = state.skips().map(|skip| &skip.record);
    let of_batch = skips.filter(|record| {
        (record.topic.as_str(), record.partition) == (&*batch.topic, batch.partition)
            && range.contains(&record.offset)
    });
    of_batch.cloned().collect()
}

/// Whether an operator wants a record of the batch skipped.
fn has_skip_request(control: &Control, batch: &UnreadableBatch, range: &Range<i64>) -> bool {
    !skip_requests_in(control, batch, range).is_empty()
}

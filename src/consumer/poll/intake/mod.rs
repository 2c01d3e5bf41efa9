//! Takes records from the forwarded queue and passes each worker its share in one buffer.
//!
//! # Steps
//!
//! 1. Messages are taken from the client, up to the room. Consecutive messages of one partition
//!    form a *run*, so that topic and assignment are looked up once per run.
//! 2. Each message is checked against what is known of its log (see `log_reset`), skipped if an
//!    earlier assignment settled it, and appended to the share of its worker: one buffer per
//!    worker, in which the client's messages are copied and then freed.
//! 3. All shares are admitted to the offset tracker, under one lock.
//! 4. The shares are sent. Only now a worker can see a record, and every record that it sees is
//!    tracked.

pub(crate) mod gated_partitions;
pub(crate) mod stalled;
pub(crate) mod transaction_markers;

use crate::consumer::poll::intake::gated_partitions::GatedPartitions;
use crate::consumer::poll::rebalance::RebalanceContext;
use crate::consumer::settings::RecordHeaders;
use crate::consumer::shared::Shared;
use crate::consumer::shared::mailbox::{Burst, BurstEntry, Message as WorkerMessage};
use crate::consumer::state::admission::{BURST_RECORDS_MAX, InFlightLimit};
use crate::consumer::state::assignments::{Assigned, Assignments, LogReset, PositionLoss};
use crate::consumer::state::commit_metadata::SettledAbove;
use crate::consumer::state::offset_tracker::{Epoch, TrackedBatch};
use crate::consumer::state::partition::Partition;
use crate::consumer::state::worker_partitioner::WorkerPartitioner;
use crate::event::RecordBatchBuilder;
use crate::kafka::native::{ForwardedQueue, Message, MessageHeaders, Messages};
use crate::kafka::unreadable::is_unreadable;
use crate::telemetry::poll_span;
use rdkafka::error::RDKafkaErrorCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Passes messages from the client to the workers. Used by the poll thread.
pub(crate) struct Intake {
    shared: Arc<Shared>,
    /// How many records may be taken.
    limit: InFlightLimit,
    messages: Messages,
    /// The shares of the workers. Empty between two calls, with the capacity of the last burst.
    shares: Vec<WorkerShare>,
    partitioner: WorkerPartitioner,
    /// A counter that spreads records without an ordering key over the workers.
    round_robin: u64,
    /// The next offsets after records that earlier assignments had settled.
    advances: Vec<(Epoch, i64)>,
    has_drained: bool,
    /// The leader epochs of the latest records of partitions.
    leader_epochs: Vec<(Epoch, Option<i32>)>,
}

/// The share of one worker in a burst.
#[derive(Default)]
struct WorkerShare {
    /// The bytes of its records.
    records: RecordBatchBuilder,
    /// Their offsets. None while the share is empty.
    tracker: Option<TrackedBatch>,
    entries: Vec<BurstEntry>,
    partitions: Vec<Arc<Partition>>,
    /// The run of messages that the last of `partitions` belongs to.
    run: Option<usize>,
}

impl Intake {
    /// With the limits of the settings, and a share per worker.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let limit = InFlightLimit::new(
            shared.settings.in_flight_records_max(),
            shared.settings.in_flight_bytes_max,
        );
        let shares = shared
            .workers
            .iter()
            .map(|_| WorkerShare::default())
            .collect();
        Self {
            limit,
            shares,
            messages: Messages::with_capacity(BURST_RECORDS_MAX),
            partitioner: shared.partitioner.clone(),
            round_robin: 0,
            advances: Vec::new(),
            has_drained: false,
            leader_epochs: Vec::new(),
            shared,
        }
    }

    /// How many records may be taken now.
    pub(crate) fn room(&self) -> usize {
        self.limit
            .room(self.shared.in_flight(), self.shared.budget.load(Relaxed))
    }

    /// Whether the last call of [`Intake::take`] took all messages that the client had.
    pub(crate) fn has_drained(&self) -> bool {
        self.has_drained
    }

    /// How many records may be in flight.
    pub(crate) fn records_max(&self) -> usize {
        self.limit.records_max()
    }

    /// Takes up to `room` records, waits up to `timeout` for the first, and passes them to the
    /// workers. Errors that arrive in place of records are passed to `on_error`. Returns the number
    /// of received records.
    ///
    /// An error ends a run of messages; those behind it are another run, as they may follow a gap.
    pub(crate) fn take(
        &mut self,
        queue: &ForwardedQueue<RebalanceContext>,
        gates: &mut GatedPartitions,
        member: &RebalanceContext,
        room: usize,
        timeout: Duration,
        mut on_error: impl FnMut(RDKafkaErrorCode, &Message<'_>),
    ) -> usize {
        let mut messages = std::mem::replace(&mut self.messages, Messages::with_capacity(0));
        // Messages that were fetched before a gate opened come first.
        if gates.has_ungated() {
            gates.pass_on(&mut messages, room, &mut member.assignments());
        }
        if messages.len() == 0 {
            queue.take(&mut messages, room, timeout);
            self.has_drained = messages.len() < room.min(BURST_RECORDS_MAX);
        }
        let taken = messages.len();
        let polling = (taken > 0).then(|| poll_span(&self.shared.group, taken).entered());
        let received = self.distribute(queue, &messages, &mut member.assignments(), &mut on_error);
        messages.clear();
        self.messages = messages;
        self.send_shares();
        drop(polling);
        self.shared
            .counters
            .received
            .fetch_add(received as u64, Relaxed);
        received
    }

    /// Distributes messages to the shares. Returns how many are to be handled. Messages of
    /// partitions that are not taken now are dropped: they are redelivered.
    fn distribute(
        &mut self,
        queue: &ForwardedQueue<RebalanceContext>,
        messages: &Messages,
        assignments: &mut Assignments,
        on_error: &mut impl FnMut(RDKafkaErrorCode, &Message<'_>),
    ) -> usize {
        let (mut at, mut run, mut received) = (0, 0, 0);
        while at < messages.len() {
            let first = messages.get(at);
            if let Some(error) = first.error() {
                if let Some(topic) = first.topic()
                    && let Some(assigned) = assignments.get(topic, first.partition())
                {
                    assigned.has_erred = true;
                    // At once: messages that the client read after it may be among these.
                    assigned.is_unreadable |= is_unreadable(error);
                }
                on_error(error, &first);
                at += 1;
                continue;
            }
            let is_of_run = |message: Message<'_>| {
                message.topic_handle() == first.topic_handle()
                    && message.partition() == first.partition()
                    && message.error().is_none()
            };
            let end = (at + 1..messages.len())
                .find(|index| !is_of_run(messages.get(*index)))
                .unwrap_or(messages.len());
            // Records of a revoked partition belong to its next owner. Records that are not taken
            // now are redelivered.
            if let Some(assigned) = first
                .topic()
                .and_then(|topic| assignments.get(topic, first.partition()))
                .filter(|assigned| assigned.is_taken())
            {
                self.shared.readiness.can_read(&assigned.partition);
                report_deleted(&self.shared, queue, assigned, first.offset());
                received +=
                    self.distribute_run(run, (at..end).map(|index| messages.get(index)), assigned);
            }
            (at, run) = (end, run + 1);
        }
        received
    }

    /// Distributes consecutive messages of one partition to the workers.
    ///
    /// Four kinds of messages are not passed on: those of an earlier position (the log was
    /// truncated), the first one of a later leader epoch than the committed offset's (the brokers
    /// must confirm the position), those that an earlier assignment settled, and everything after
    /// one that ends the run.
    ///
    /// A skipped offset is noted, so that the tracker passes it although no batch has it.
    fn distribute_run<'m>(
        &mut self,
        run: usize,
        messages: impl Iterator<Item = Message<'m>>,
        assigned: &mut Assigned,
    ) -> usize {
        let seed = self.partitioner.seed(&assigned.partition.topic);
        let (mut distributed, mut skipped, mut last) = (0, false, None);
        for message in messages {
            let offset = message.offset();
            match (assigned.next, assigned.committed) {
                (Some(next), _) if offset < next => {
                    handle_truncation(&self.shared, assigned, &message);
                    break;
                }
                (None, Some(committed)) if offset < committed => {
                    handle_below_committed(&self.shared, assigned, offset)
                }
                (None, _) if assigned.committed_under.is_some() => {
                    if message.leader_epoch() > assigned.committed_under {
                        assigned.must_verify_position = true;
                        break;
                    }
                    assigned.committed_under = None;
                }
                _ => {}
            }
            assigned.next = Some(offset + 1);
            last = Some(message);
            if !assigned.settled_above.is_empty() {
                if assigned
                    .settled_above
                    .is_invalidated_by(message.leader_epoch())
                {
                    assigned.discard_settled(&self.shared, offset);
                } else if assigned.settled_above.contains(offset) {
                    skipped = true;
                    continue;
                }
                assigned.settled_above.forget_before(offset);
            }
            self.round_robin += 1;
            let hash =
                self.partitioner
                    .hash(seed, message.partition(), message.key(), self.round_robin);
            self.shares[self.partitioner.worker(hash)].push(
                run,
                &assigned.partition,
                hash,
                &message,
                self.shared.settings.headers,
            );
            distributed += 1;
        }
        if skipped {
            self.advances
                .extend(assigned.next.map(|next| (assigned.partition.epoch, next)));
        }
        // The last epoch is the highest: no leader appends after records of a later one.
        let leader_epoch = last.and_then(|message| message.leader_epoch());
        self.leader_epochs
            .push((assigned.partition.epoch, leader_epoch));
        assigned.has_erred &= last.is_none();
        assigned.received.increment(distributed as u64);
        distributed
    }

    /// Adds the shares to the offset tracker, then sends them to the workers.
    ///
    /// The order matters: first the tracker, then the count of records in flight, then the workers.
    /// A worker that is fast cannot settle a record that is not tracked.
    fn send_shares(&mut self) {
        let mut bursts = Vec::with_capacity(self.shares.len());
        let (mut records, mut bytes) = (0, 0);
        {
            let mut tracker = self.shared.tracker();
            for (worker, share) in self.shares.iter_mut().enumerate() {
                let Some(tracked) = share.tracker.take() else {
                    continue;
                };
                records += share.records.len();
                bytes += share.records.buffered();
                let next = share.emptied();
                let share = std::mem::replace(share, next);
                let batch = share.records.build(Some(Arc::clone(&self.shared.budget)));
                bursts.push((
                    worker,
                    Burst {
                        records: batch,
                        tracker: tracker.admit(tracked),
                        entries: share.entries,
                        partitions: share.partitions,
                    },
                ));
            }
            // Only after the batches: before, the tracker did not know of unsettled records below.
            for (epoch, next) in self.advances.drain(..) {
                tracker.advance(epoch, next);
            }
            for (epoch, leader_epoch) in self.leader_epochs.drain(..) {
                tracker.observe_leader_epoch(epoch, leader_epoch);
            }
        }
        self.limit.update_mean(records, bytes);
        self.shared.admitted(records);
        for (worker, burst) in bursts {
            self.shared.workers[worker].send(WorkerMessage::Burst(burst));
        }
    }
}

/// Handles a record below earlier ones: the log was truncated while it was read, and its offsets
/// belong to other records from there on.
fn handle_truncation(shared: &Shared, assigned: &mut Assigned, message: &Message<'_>) {
    let (partition, to) = (&assigned.partition, Some(message.offset()));
    let place = (&*partition.topic, partition.partition);
    shared.position_lost(place, PositionLoss::Truncated, assigned.next, to);
    assigned.fall_back = Some(LogReset::To {
        offset: message.offset(),
        leader_epoch: message.leader_epoch(),
    });
}

/// Handles a record below the committed offset: the partition was recreated or truncated. Its
/// offsets belong to other records now, so that all knowledge of them is discarded and the position
/// follows.
///
/// Only the first record of an epoch can be there: the client starts at the committed offset,
/// unless its own reset moved it.
fn handle_below_committed(shared: &Shared, assigned: &mut Assigned, offset: i64) {
    let partition = &assigned.partition;
    let place = (&*partition.topic, partition.partition);
    shared.position_lost(
        place,
        PositionLoss::Truncated,
        assigned.committed,
        Some(offset),
    );
    assigned.settled_above = SettledAbove::default();
    shared.tracker().fall_back(partition.epoch);
}

/// Reports records that were deleted unread before the first record of a run. Gaps from compaction
/// and transactions are normal, so that only the first offset of the log decides.
///
/// Retention that deletes unread records is a misconfiguration or a consumer that is far behind.
/// The records are gone either way; the alarm is all that can be done.
fn report_deleted(
    shared: &Shared,
    queue: &ForwardedQueue<RebalanceContext>,
    assigned: &Assigned,
    offset: i64,
) {
    let Some(expected) = assigned
        .next
        .or(assigned.committed)
        .filter(|expected| offset > *expected)
    else {
        return;
    };
    let partition = &assigned.partition;
    let first = queue.first_offset(&partition.topic, partition.partition);
    if first.is_some_and(|first| first > expected) {
        let place = (&*partition.topic, partition.partition);
        shared.position_lost(place, PositionLoss::Deleted, Some(expected), first);
    }
}

impl WorkerShare {
    /// Appends a message. The first of a run adds its source, epoch and partition.
    fn push(
        &mut self,
        run: usize,
        partition: &Arc<Partition>,
        hash: u64,
        message: &Message<'_>,
        headers: RecordHeaders,
    ) {
        let tracker = self
            .tracker
            .get_or_insert_with(|| TrackedBatch::new(self.entries.capacity(), Instant::now()));
        if self.run != Some(run) {
            self.run = Some(run);
            self.records
                .source(Arc::clone(&partition.topic), partition.partition);
            tracker.epoch(partition.epoch);
            self.partitions.push(Arc::clone(partition));
        }
        // Source, epoch and partition of a run have the same number in all three lists.
        let number = (self.partitions.len() - 1) as u32;
        let headers = match headers {
            RecordHeaders::Read => message.take_headers(),
            RecordHeaders::Skip => MessageHeaders::NONE,
        };
        self.records.push(
            number,
            message.offset(),
            message.timestamp_ms(),
            message.key(),
            message.value(),
            headers.iter(),
        );
        tracker.push(number, message.offset());
        self.entries.push(BurstEntry {
            partition: number,
            hash,
        });
    }

    /// An empty share with the capacity of this one.
    fn emptied(&self) -> Self {
        Self {
            records: RecordBatchBuilder::with_capacity(self.records.buffered(), self.records.len()),
            entries: Vec::with_capacity(self.entries.len()),
            ..Self::default()
        }
    }
}

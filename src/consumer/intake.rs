//! Takes records from the forwarded queue, and hands each worker its share in one buffer.
//!
//! Runs on the poll thread. Between taking messages and handing them over no event is served, so that every message
//! belongs to the assignment it is booked for.

use super::engine::Engine;
use super::fall_back::{FallBack, Lost};
use super::flow::{BURST_RECORDS_MAX, Flow};
use super::gates::Gates;
use super::ledger::{Epoch, LedgerBatch};
use super::metadata::SettledAbove;
use super::partition::Partition;
use super::rebalance::{Assigned, Assignments, Member};
use super::routing::Routing;
use super::settings::RecordHeaders;
use super::worker::{Burst, BurstEntry, Message as WorkerMessage};
use crate::event::RecordBatchBuilder;
use crate::kafka::queue::{ForwardedQueue, Message, MessageHeaders, Messages};
use crate::kafka::unreadable::is_unreadable;
use rdkafka::error::RDKafkaErrorCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// The poll thread's way from messages to workers.
pub(crate) struct Intake {
    engine: Arc<Engine>,
    flow: Flow,
    messages: Messages,
    shares: Vec<Share>,
    routing: Routing,
    /// Spreads records that are ordered with no other.
    turn: u64,
    /// Where partitions stand after records that an earlier life of the group had settled already.
    advances: Vec<(Epoch, i64)>,
    has_drained: bool,
    /// Under which leader epochs the latest records of partitions were appended.
    led: Vec<(Epoch, Option<i32>)>,
}

/// What one worker gets of a burst.
#[derive(Default)]
struct Share {
    records: RecordBatchBuilder,
    ledger: Option<LedgerBatch>,
    entries: Vec<BurstEntry>,
    partitions: Vec<Arc<Partition>>,
    /// The run of messages that the last of `partitions` was added for.
    run: Option<usize>,
}

impl Intake {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        let flow = Flow::new(
            engine.settings.in_flight_records_max(),
            engine.settings.in_flight_bytes_max,
        );
        let shares = engine.workers.iter().map(|_| Share::default()).collect();
        Self {
            flow,
            shares,
            messages: Messages::with_capacity(BURST_RECORDS_MAX),
            routing: engine.routing.clone(),
            turn: 0,
            advances: Vec::new(),
            has_drained: false,
            led: Vec::new(),
            engine,
        }
    }

    /// How many records may be taken now.
    pub(crate) fn room(&self) -> usize {
        self.flow
            .room(self.engine.in_flight(), self.engine.budget.load(Relaxed))
    }

    /// Whether the client had no more than was taken last.
    pub(crate) fn has_drained(&self) -> bool {
        self.has_drained
    }

    /// How many records may be in flight.
    pub(crate) fn records_max(&self) -> usize {
        self.flow.records_max()
    }

    /// Takes up to `room` records, waiting up to `timeout` for the first, and hands them to the workers. Errors that
    /// stand in records' places go to `on_error`. Returns how many records were received.
    pub(crate) fn take(
        &mut self,
        queue: &ForwardedQueue<Member>,
        gates: &mut Gates,
        member: &Member,
        room: usize,
        timeout: Duration,
        mut on_error: impl FnMut(RDKafkaErrorCode, &Message<'_>),
    ) -> usize {
        let mut messages = std::mem::replace(&mut self.messages, Messages::with_capacity(0));
        // First what was fetched before a gate opened.
        if gates.has_open() {
            gates.hand_on(&mut messages, room, &mut member.assignments());
        }
        if messages.len() == 0 {
            queue.take(&mut messages, room, timeout);
            self.has_drained = messages.len() < room.min(BURST_RECORDS_MAX);
        }
        let received = self.share_out(queue, &messages, &mut member.assignments(), &mut on_error);
        messages.clear();
        self.messages = messages;
        self.hand_over();
        self.engine
            .counters
            .received
            .fetch_add(received as u64, Relaxed);
        received
    }

    fn share_out(
        &mut self,
        queue: &ForwardedQueue<Member>,
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
                    // At once: what the client read behind it may be among these messages.
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
            // A partition that is not assigned any more: its records are its next owner's. One whose records are not taken now:
            // they come again.
            if let Some(assigned) = first
                .topic()
                .and_then(|topic| assignments.get(topic, first.partition()))
                .filter(|assigned| assigned.is_taken())
            {
                self.engine.readiness.can_read(&assigned.partition);
                look_for_deleted(&self.engine, queue, assigned, first.offset());
                received +=
                    self.share_run(run, (at..end).map(|index| messages.get(index)), assigned);
            }
            (at, run) = (end, run + 1);
        }
        received
    }

    /// Shares out neighbouring messages of one partition.
    fn share_run<'m>(
        &mut self,
        run: usize,
        messages: impl Iterator<Item = Message<'m>>,
        assigned: &mut Assigned,
    ) -> usize {
        let seed = self.routing.seed(&assigned.partition.topic);
        let (mut handed, mut skipped, mut last) = (0, false, None);
        for message in messages {
            let offset = message.offset();
            match (assigned.next, assigned.committed) {
                (Some(next), _) if offset < next => {
                    truncated(&self.engine, assigned, &message);
                    break;
                }
                (None, Some(committed)) if offset < committed => {
                    fell_back(&self.engine, assigned, offset)
                }
                (None, _) if assigned.committed_under.is_some() => {
                    if message.leader_epoch() > assigned.committed_under {
                        assigned.is_doubtful = true;
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
                    .is_outlived_by(message.leader_epoch())
                {
                    assigned.outlive_settled(&self.engine, offset);
                } else if assigned.settled_above.contains(offset) {
                    skipped = true;
                    continue;
                }
                assigned.settled_above.forget_before(offset);
            }
            self.turn += 1;
            let hash = self
                .routing
                .hash(seed, message.partition(), message.key(), self.turn);
            self.shares[self.routing.worker(hash)].push(
                run,
                &assigned.partition,
                hash,
                &message,
                self.engine.settings.headers,
            );
            handed += 1;
        }
        if skipped {
            self.advances
                .extend(assigned.next.map(|next| (assigned.partition.epoch, next)));
        }
        // The highest of them: no leader appends behind records of a later one.
        let leader_epoch = last.and_then(|message| message.leader_epoch());
        self.led.push((assigned.partition.epoch, leader_epoch));
        assigned.has_erred &= last.is_none();
        assigned.received.increment(handed as u64);
        handed
    }

    /// Enters the shares in the books, then sends them.
    fn hand_over(&mut self) {
        let mut bursts = Vec::with_capacity(self.shares.len());
        let (mut records, mut bytes) = (0, 0);
        {
            let mut ledger = self.engine.ledger();
            for (worker, share) in self.shares.iter_mut().enumerate() {
                let Some(books) = share.ledger.take() else {
                    continue;
                };
                records += share.records.len();
                bytes += share.records.buffered();
                let next = share.emptied();
                let share = std::mem::replace(share, next);
                let batch = share.records.build(Some(Arc::clone(&self.engine.budget)));
                bursts.push((
                    worker,
                    Burst {
                        records: batch,
                        ledger: ledger.admit(books),
                        entries: share.entries,
                        partitions: share.partitions,
                    },
                ));
            }
            // Only now: before its burst was entered, nothing showed that records below are unsettled.
            for (epoch, next) in self.advances.drain(..) {
                ledger.advance(epoch, next);
            }
            for (epoch, leader_epoch) in self.led.drain(..) {
                ledger.led_by(epoch, leader_epoch);
            }
        }
        self.flow.took(records, bytes);
        self.engine.admitted(records);
        for (worker, burst) in bursts {
            self.engine.workers[worker].send(WorkerMessage::Burst(burst));
        }
    }
}

/// A record came below those before it: the log was truncated while it was read. Its offsets mean other records from there on.
fn truncated(engine: &Engine, assigned: &mut Assigned, message: &Message<'_>) {
    let (partition, to) = (&assigned.partition, Some(message.offset()));
    let place = (&*partition.topic, partition.partition);
    engine.position_lost(place, Lost::Truncated, assigned.next, to);
    assigned.fall_back = Some(FallBack::To {
        offset: message.offset(),
        leader_epoch: message.leader_epoch(),
    });
}

/// The cluster no longer has what the group committed: the partition was made anew, or lost its end. Its offsets mean
/// other records now, so nothing known of them counts, and the group's position follows.
fn fell_back(engine: &Engine, assigned: &mut Assigned, offset: i64) {
    let partition = &assigned.partition;
    let place = (&*partition.topic, partition.partition);
    engine.position_lost(place, Lost::Truncated, assigned.committed, Some(offset));
    assigned.settled_above = SettledAbove::default();
    engine.ledger().fall_back(partition.epoch);
}

/// Says so where a run of records begins behind others that were deleted unread. A partition may have gaps all the time, of
/// compaction or of transactions, so it is the log's beginning that tells.
fn look_for_deleted(
    engine: &Engine,
    queue: &ForwardedQueue<Member>,
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
        engine.position_lost(place, Lost::Deleted, Some(expected), first);
    }
}

impl Share {
    fn push(
        &mut self,
        run: usize,
        partition: &Arc<Partition>,
        hash: u64,
        message: &Message<'_>,
        headers: RecordHeaders,
    ) {
        let ledger = self
            .ledger
            .get_or_insert_with(|| LedgerBatch::new(self.entries.capacity(), Instant::now()));
        if self.run != Some(run) {
            self.run = Some(run);
            self.records
                .source(Arc::clone(&partition.topic), partition.partition);
            ledger.epoch(partition.epoch);
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
        ledger.push(number, message.offset());
        self.entries.push(BurstEntry {
            partition: number,
            hash,
        });
    }

    /// An empty share with room for as much as this one holds.
    fn emptied(&self) -> Self {
        Self {
            records: RecordBatchBuilder::with_capacity(self.records.buffered(), self.records.len()),
            entries: Vec::with_capacity(self.entries.len()),
            ..Self::default()
        }
    }
}

//! The thread that hands parked records that are due to the workers.
//!
//! Apart from the thread that reads the retry partitions, so that a broker that does not answer for a record that is due
//! delays neither that nor the records of other partitions.

use super::super::engine::Engine;
use super::super::ledger::Epoch;
use super::super::partition::Partition;
use super::super::worker::{Message, ParkedRecord};
use super::clock::steady_ms;
use super::fetch::{Fetcher, Line, Picked};
use super::{RetryPartition, Waker, Wakers};
use crate::recovery::parking::Ticket;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How long a record waits that could not be fetched.
const FETCH_AGAIN_AFTER_MS: i64 = 1_000;
/// How long to wait for the brokers to say where a partition begins and ends.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long the thread waits when nothing is due. Orders and workers wake it.
const QUIET: Duration = Duration::from_secs(1);

/// What the thread is told.
pub(super) enum Order {
    /// Something may be due.
    Look,
    /// This partition's retry partition is read.
    Begun(Arc<Partition>),
    /// These went.
    Gone(Vec<Epoch>),
    /// Where a partition begins and ends of which records did not come; none when the brokers did not answer.
    Bounds(Line, Option<(i64, i64)>),
    /// End.
    Close,
}

/// Hands out what is due.
pub(crate) struct Dispatcher {
    engine: Arc<Engine>,
    orders: mpsc::Receiver<Order>,
    /// For answers to what this thread has asked.
    answers: mpsc::Sender<Order>,
    partitions: Vec<Arc<Partition>>,
    /// Where the next turn begins: none is always served first.
    first: usize,
    /// Partitions whose bounds are asked for.
    asked: HashSet<Epoch>,
    /// Records that did not come although the log was read past them.
    passed: HashSet<(Epoch, i64)>,
    fetcher: Fetcher,
}

impl Dispatcher {
    /// What comes on `orders` may come from `answers`, too.
    pub(super) fn new(
        engine: Arc<Engine>,
        config: ClientConfig,
        answers: mpsc::Sender<Order>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        Self {
            engine,
            orders,
            answers,
            partitions: Vec::new(),
            first: 0,
            asked: HashSet::new(),
            passed: HashSet::new(),
            fetcher: Fetcher::new(config),
        }
    }

    /// Hands out until told to end.
    pub(crate) fn run(mut self) {
        self.serve();
        let wakers: Wakers = std::mem::take(&mut *self.engine.parking.wakers());
        // A client that goes with them takes its time, which nobody else is to wait for.
        drop(wakers);
    }

    fn serve(&mut self) {
        loop {
            while let Ok(order) = self.orders.try_recv() {
                if !self.obey(order) {
                    return;
                }
            }
            self.begin_due();
            let timeout = self.wait();
            if self.fetcher.fetching() == 0 {
                let goes_on = match self.orders.recv_timeout(timeout) {
                    Ok(order) => self.obey(order),
                    Err(mpsc::RecvTimeoutError::Timeout) => true,
                    Err(mpsc::RecvTimeoutError::Disconnected) => false,
                };
                if !goes_on {
                    return;
                }
            } else {
                let picked = self.fetcher.take(&self.engine, timeout);
                self.hand_out(picked);
            }
            let held_bytes = self.engine.budget.load(Relaxed);
            let is_full = self
                .engine
                .parking
                .is_full(&self.engine.settings, held_bytes);
            for line in self.fetcher.end(is_full) {
                self.ended(line);
            }
        }
    }

    /// Does what it is told; false to end.
    fn obey(&mut self, order: Order) -> bool {
        match order {
            Order::Look => self.engine.parking.has_looked(),
            Order::Begun(partition) => self.partitions.push(partition),
            Order::Gone(epochs) => {
                self.partitions
                    .retain(|partition| !epochs.contains(&partition.epoch));
                self.passed.retain(|(epoch, _)| !epochs.contains(epoch));
                self.fetcher.forget(&epochs);
            }
            Order::Bounds(line, bounds) => {
                self.asked.remove(&line.partition.epoch);
                self.settle_missing(&line, bounds);
            }
            Order::Close => return false,
        }
        true
    }

    /// Begins to fetch what is due: of each partition its share of the room that there is.
    fn begin_due(&mut self) {
        let now_ms = steady_ms();
        let mut room = self.room();
        let count = self.partitions.len();
        if room == 0 || count == 0 {
            return;
        }
        self.first = (self.first + 1) % count;
        let (after, before) = (
            &self.partitions[self.first..],
            &self.partitions[..self.first],
        );
        let mut wanted = Vec::new();
        let due: Vec<&Arc<Partition>> = after
            .iter()
            .chain(before)
            .filter(|partition| self.is_due(partition, now_ms))
            .collect();
        for (at, partition) in due.iter().enumerate() {
            let Some(retry) = &partition.retry else {
                continue;
            };
            let share = room.div_ceil(due.len() - at);
            let tickets = retry.change(|state| state.take_due(now_ms, share));
            room -= tickets.len();
            if !tickets.is_empty() {
                wanted.push((Arc::clone(partition), tickets));
            }
        }
        if wanted.is_empty() {
            return;
        }
        let (begun, far) = self.fetcher.begin(wanted);
        hand_back(&far, now_ms);
        match begun.and_then(|()| self.fetcher.client()) {
            Ok((queue, _)) => self.engine.parking.wakers().fetching = Some(queue),
            Err(error) => {
                tracing::warn!(group = self.engine.group, %error, "parked records that are due cannot be fetched; they are fetched again");
                for line in self.fetcher.end(true) {
                    give_up(&line, now_ms.saturating_add(FETCH_AGAIN_AFTER_MS));
                }
            }
        }
    }

    /// How many more records may be fetched now.
    fn room(&self) -> usize {
        let held_bytes = self.engine.budget.load(Relaxed);
        let room = self.engine.parking.room(&self.engine.settings, held_bytes);
        room.saturating_sub(self.fetcher.fetching())
    }

    fn is_due(&self, partition: &Partition, now_ms: i64) -> bool {
        let is_free = !self.asked.contains(&partition.epoch) && !self.fetcher.is_busy(partition);
        let due_ms = partition
            .retry
            .as_ref()
            .filter(|_| is_free)
            .and_then(due_ms);
        due_ms.is_some_and(|due_ms| due_ms <= now_ms)
    }

    fn wait(&self) -> Duration {
        let until = self.fetcher.until();
        let quiet = until.map_or(QUIET, |until| {
            until.saturating_duration_since(Instant::now()).min(QUIET)
        });
        let is_free = |partition: &&Arc<Partition>| {
            !self.asked.contains(&partition.epoch) && !self.fetcher.is_busy(partition)
        };
        if self.room() == 0 {
            return quiet;
        }
        let free = self.partitions.iter().filter(is_free);
        let due = free.filter_map(|partition| partition.retry.as_ref().and_then(due_ms));
        let Some(due_ms) = due.min() else {
            return quiet;
        };
        let left_ms = due_ms.saturating_sub(steady_ms()).max(0);
        Duration::from_millis(left_ms.unsigned_abs()).min(quiet)
    }

    fn hand_out(&self, picked: Vec<Picked>) {
        self.engine.admitted(picked.len());
        let parking = &self.engine.parking;
        parking.loaded.fetch_add(picked.len(), Relaxed);
        for picked in picked {
            let Picked {
                partition,
                ticket,
                record,
                is_repetition,
            } = picked;
            let routing = &self.engine.routing;
            let seed = routing.seed(&partition.topic);
            let offset = ticket.offset as u64;
            let hash = routing.hash(seed, partition.partition, record.key(), offset);
            let parked = ParkedRecord {
                record,
                partition,
                ticket,
                is_repetition,
                hash,
            };
            self.engine.workers[routing.worker(hash)].send(Message::Parked(parked));
        }
    }

    /// A partition's records came, or did not. Of those that did not come in time it is asked whether they are there.
    fn ended(&mut self, line: Line) {
        let is_late = line.is_late() && !line.left().is_empty();
        if !is_late {
            return give_up(&line, 0);
        }
        match self.fetcher.client() {
            Ok((queue, consumer)) => self.ask_for_bounds(line, consumer, queue),
            Err(_) => give_up(&line, steady_ms().saturating_add(FETCH_AGAIN_AFTER_MS)),
        }
    }

    fn ask_for_bounds(&mut self, line: Line, consumer: Arc<BaseConsumer>, queue: Waker) {
        let (epoch, number) = (line.partition.epoch, line.partition.partition);
        let topic = line
            .partition
            .retry
            .as_ref()
            .map(|retry| Arc::clone(&retry.topic));
        let answers = self.answers.clone();
        let ask = move || {
            let topic = topic.unwrap_or_default();
            let bounds = consumer.fetch_watermarks(&topic, number, ANSWER_WITHIN);
            // Nobody waits any more when the run is over.
            let _ = answers.send(Order::Bounds(line, bounds.ok()));
            queue.wake();
        };
        self.asked.insert(epoch);
        let spawned = std::thread::Builder::new()
            .name("evenkeel-lookup".to_owned())
            .spawn(ask);
        if let Err(error) = spawned {
            self.engine
                .fail(format!("no thread to look up parked records: {error}"));
        }
    }

    /// Records that are not on the log any more: somebody deleted them. What waits behind them goes on. What may be there is
    /// fetched again.
    fn settle_missing(&mut self, line: &Line, bounds: Option<(i64, i64)>) {
        let epoch = line.partition.epoch;
        let is_gone = !self
            .partitions
            .iter()
            .any(|partition| partition.epoch == epoch);
        let Some(retry) = line.partition.retry.as_ref().filter(|_| !is_gone) else {
            return;
        };
        let again_at = steady_ms().saturating_add(FETCH_AGAIN_AFTER_MS);
        let mut left = line.left().iter();
        for ticket in left.by_ref() {
            let is_outside =
                bounds.is_some_and(|(low, high)| ticket.offset < low || ticket.offset >= high);
            // Taken from the middle, as compaction does. A client that let go of what it had fetched looks alike, once.
            let is_passed = bounds.is_some()
                && line.has_passed(*ticket)
                && !self.passed.insert((epoch, ticket.offset));
            if !is_outside && !is_passed {
                retry.change(|state| state.hand_back(*ticket, again_at));
                break;
            }
            self.passed.remove(&(epoch, ticket.offset));
            tracing::error!(group = self.engine.group, topic = %retry.topic, partition = line.partition.partition, offset = ticket.offset, "a parked record is not in the retry topic any more: it was deleted there, and is lost");
            retry.change(|state| {
                state.lose(*ticket);
                // It was not the first of its key: it is found missing again in its turn.
                state.hand_back(*ticket, 0);
            });
            self.engine.show_loss(&line.partition);
        }
        for ticket in left {
            retry.change(|state| state.hand_back(*ticket, again_at));
        }
    }
}

/// When the next record of an open partition is due.
fn due_ms(retry: &RetryPartition) -> Option<i64> {
    let is_used = !retry.is_empty() && retry.is_open();
    is_used.then(|| retry.state().due_ms())?
}

/// What did not come of this line comes again, not before `until_ms`.
fn give_up(line: &Line, until_ms: i64) {
    if let Some(retry) = &line.partition.retry {
        for ticket in line.left() {
            retry.change(|state| state.hand_back(*ticket, until_ms));
        }
    }
}

fn hand_back(tickets: &[(Arc<Partition>, Ticket)], until_ms: i64) {
    for (partition, ticket) in tickets {
        if let Some(retry) = &partition.retry {
            retry.change(|state| state.hand_back(*ticket, until_ms));
        }
    }
}

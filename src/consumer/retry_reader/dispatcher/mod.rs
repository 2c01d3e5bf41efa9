//! The dispatcher: the thread that passes due parked records to the workers.
//!
//! It is separate from the retry reader, so that a broker that does not answer for a due record
//! delays neither the reading nor the records of other partitions.
//!
//! # Fairness
//!
//! Each turn starts at the next partition and gives each due partition an equal share of the room,
//! so that one partition with many parked records cannot keep the others waiting. The room is half
//! of the in-flight limit at most
//! ([`RetryTopics::room`](crate::consumer::shared::retry_topics::RetryTopics::room)).
//!
//! # Records that do not arrive
//!
//! A record that is missing after 5 s is looked up. It is lost if its offset lies outside of the
//! log, or if the log was read past it twice, as after a deletion from the middle. In doubt it is
//! fetched again: a lost record raises an alarm that an operator must accept.
//!
//! # Example
//!
//! Two partitions have 900 and 10 due records, and there is room for 100. The first gets half of
//! it,
//! 50. The second needs 10 of the other 50. In the next turn the second partition comes first, and
//! the remaining room goes to the 850 records of the first.

mod fetch;

use crate::consumer::retry_reader::dispatcher::fetch::{FetchedRecord, Fetcher, PartitionFetch};
use crate::consumer::retry_reader::telemetry::{self, LoggedPartition};
use crate::consumer::shared::Shared;
use crate::consumer::shared::clock::steady_ms;
use crate::consumer::shared::mailbox::{Message, ParkedRecord};
use crate::consumer::shared::retry_topics::{DispatchRequest, Waker, Wakers};
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::partition::Partition;
use crate::consumer::state::retry_partition::RetryPartition;
use crate::kafka::log::LoggingContext;
use crate::recovery::parking::Ticket;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How long to wait before a record that could not be fetched is fetched again.
const FETCH_AGAIN_AFTER_MS: i64 = 1_000;
/// How long to wait for the first and end offsets of a partition.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The longest wait while no record is due. Requests and workers wake the thread.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Hands out due records, on a thread of its own.
///
/// It blocks only in its own queues. Lookups have threads of their own.
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<DispatchRequest>,
    /// The sender for answers to this thread's own lookups.
    answers: mpsc::Sender<DispatchRequest>,
    partitions: Vec<Arc<Partition>>,
    /// Where the next turn starts: no partition is always served first.
    first_in_turn: usize,
    /// Partitions whose first and end offsets are being looked up.
    lookups: HashMap<Epoch, PartitionFetch>,
    /// Records that did not arrive although the log was read past them.
    read_past: HashSet<(Epoch, i64)>,
    fetcher: Fetcher,
}

impl Dispatcher {
    /// `answers` must be a sender of the channel of `requests`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        config: ClientConfig,
        answers: mpsc::Sender<DispatchRequest>,
        requests: mpsc::Receiver<DispatchRequest>,
    ) -> Self {
        Self {
            shared,
            requests,
            answers,
            partitions: Vec::new(),
            first_in_turn: 0,
            lookups: HashMap::new(),
            read_past: HashSet::new(),
            fetcher: Fetcher::new(config),
        }
    }

    /// Hands out records until it is closed.
    pub(crate) fn run(mut self) {
        self.serve();
        let wakers: Wakers = std::mem::take(&mut *self.shared.retry_topics.wakers());
        // Dropping a client takes long. The lock must not be held meanwhile.
        drop(wakers);
    }

    /// The loop: requests, due records, arrived records, ended fetches.
    fn serve(&mut self) {
        loop {
            while let Ok(request) = self.requests.try_recv() {
                if !self.apply(request) {
                    return;
                }
            }
            self.start_fetches();
            let timeout = self.wait_time();
            if self.fetcher.fetching() == 0 {
                let continues = match self.requests.recv_timeout(timeout) {
                    Ok(request) => self.apply(request),
                    Err(mpsc::RecvTimeoutError::Timeout) => true,
                    Err(mpsc::RecvTimeoutError::Disconnected) => false,
                };
                if !continues {
                    return;
                }
            } else {
                let fetched = self.fetcher.receive(&self.shared, timeout);
                self.hand_out(fetched);
            }
            let held_bytes = self.shared.budget.load(Relaxed);
            let is_full = self
                .shared
                .retry_topics
                .is_full(&self.shared.settings, held_bytes);
            for fetch in self.fetcher.take_ended(is_full) {
                self.finish_fetch(fetch);
            }
        }
    }

    /// Applies a request. Returns false to end.
    ///
    /// A request for an epoch that is not known has no effect.
    fn apply(&mut self, request: DispatchRequest) -> bool {
        match request {
            DispatchRequest::CheckDue => self.shared.retry_topics.clear_notified(),
            DispatchRequest::Begun(partition) => self.partitions.push(partition),
            DispatchRequest::Gone(epochs) => {
                self.partitions
                    .retain(|partition| !epochs.contains(&partition.epoch));
                self.read_past.retain(|(epoch, _)| !epochs.contains(epoch));
                self.fetcher.forget(&epochs);
            }
            DispatchRequest::Bounds(epoch, bounds) => {
                if let Some(fetch) = self.lookups.remove(&epoch) {
                    self.resolve_missing(&fetch, bounds);
                }
            }
            DispatchRequest::Close => return false,
        }
        true
    }

    /// Starts to fetch due records. Each partition gets its share of the room.
    ///
    /// Records that are far behind the others of their partition are handed back and come in a
    /// later turn. If the client cannot be created, all wait for a second.
    fn start_fetches(&mut self) {
        let now_ms = steady_ms();
        let mut room = self.room();
        let count = self.partitions.len();
        if room == 0 || count == 0 {
            return;
        }
        self.first_in_turn = (self.first_in_turn + 1) % count;
        let (after, before) = (
            &self.partitions[self.first_in_turn..],
            &self.partitions[..self.first_in_turn],
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
        let (begun, far) = self.fetcher.start(wanted);
        hand_back(&far, now_ms);
        match begun.and_then(|()| self.fetcher.client()) {
            Ok((queue, _)) => self.shared.retry_topics.wakers().fetching = Some(queue),
            Err(error) => {
                telemetry::fetch_failed(&self.shared.group, &error);
                for fetch in self.fetcher.take_ended(true) {
                    hand_back_missing(&fetch, now_ms.saturating_add(FETCH_AGAIN_AFTER_MS));
                }
            }
        }
    }

    /// How many more records may be fetched now.
    fn room(&self) -> usize {
        let held_bytes = self.shared.budget.load(Relaxed);
        let room = self
            .shared
            .retry_topics
            .room(&self.shared.settings, held_bytes);
        room.saturating_sub(self.fetcher.fetching())
    }

    /// Whether a partition has a due record and no fetch or lookup in progress.
    fn is_due(&self, partition: &Partition, now_ms: i64) -> bool {
        let is_free =
            !self.lookups.contains_key(&partition.epoch) && !self.fetcher.is_busy(partition);
        let due_ms = partition
            .retry
            .as_ref()
            .filter(|_| is_free)
            .and_then(due_ms);
        due_ms.is_some_and(|due_ms| due_ms <= now_ms)
    }

    /// How long to wait for a request or a record: until the next record is due or a fetch is late.
    /// Never zero while there is no room for due records: the loop would spin.
    fn wait_time(&self) -> Duration {
        let deadline = self.fetcher.deadline();
        let longest = deadline.map_or(WAIT_MAX, |deadline| {
            deadline
                .saturating_duration_since(Instant::now())
                .min(WAIT_MAX)
        });
        let is_free = |partition: &&Arc<Partition>| {
            !self.lookups.contains_key(&partition.epoch) && !self.fetcher.is_busy(partition)
        };
        if self.room() == 0 {
            return longest;
        }
        let free = self.partitions.iter().filter(is_free);
        let due = free.filter_map(|partition| partition.retry.as_ref().and_then(due_ms));
        let Some(due_ms) = due.min() else {
            return longest;
        };
        let left_ms = due_ms.saturating_sub(steady_ms()).max(0);
        Duration::from_millis(left_ms.unsigned_abs()).min(longest)
    }

    /// Sends fetched records to the workers of their keys. They count as in flight.
    fn hand_out(&self, fetched: Vec<FetchedRecord>) {
        self.shared.admitted(fetched.len());
        let retry_topics = &self.shared.retry_topics;
        retry_topics
            .held_by_workers
            .fetch_add(fetched.len(), Relaxed);
        for fetched in fetched {
            let FetchedRecord {
                partition,
                ticket,
                record,
                is_repetition,
            } = fetched;
            let partitioner = &self.shared.partitioner;
            let seed = partitioner.seed(&partition.topic);
            let offset = ticket.offset as u64;
            let hash = partitioner.hash(seed, partition.partition, record.key(), offset);
            let parked = ParkedRecord {
                record,
                partition,
                ticket,
                is_repetition,
                hash,
            };
            self.shared.workers[partitioner.worker(hash)].send(Message::Parked(parked));
        }
    }

    /// Ends the fetch of a partition. If records did not arrive in time, it looks up whether they
    /// still exist.
    ///
    /// A fetch that is complete or full returns what did not arrive, to be fetched at once.
    fn finish_fetch(&mut self, fetch: PartitionFetch) {
        let is_late = fetch.is_late() && !fetch.missing().is_empty();
        if !is_late {
            return hand_back_missing(&fetch, 0);
        }
        match self.fetcher.client() {
            Ok((queue, consumer)) => self.look_up_bounds(fetch, consumer, queue),
            Err(_) => hand_back_missing(&fetch, steady_ms().saturating_add(FETCH_AGAIN_AFTER_MS)),
        }
    }

    /// Looks up the first and the end offset of a partition, on a thread of its own: the request
    /// blocks, and other partitions must not wait. The answer comes as a request.
    fn look_up_bounds(
        &mut self,
        fetch: PartitionFetch,
        consumer: Arc<BaseConsumer<LoggingContext>>,
        queue: Waker,
    ) {
        let (epoch, number) = (fetch.partition.epoch, fetch.partition.partition);
        let topic = fetch
            .partition
            .retry
            .as_ref()
            .map(|retry| Arc::clone(&retry.topic));
        let answers = self.answers.clone();
        let look_up = move || {
            let topic = topic.unwrap_or_default();
            let bounds = consumer.fetch_watermarks(&topic, number, ANSWER_WITHIN);
            // The receiver is dropped at the end of the run.
            let _ = answers.send(DispatchRequest::Bounds(epoch, bounds.ok()));
            queue.wake();
        };
        self.lookups.insert(epoch, fetch);
        let spawned = std::thread::Builder::new()
            .name("evenkeel-lookup".to_owned())
            .spawn(look_up);
        if let Err(error) = spawned {
            self.shared
                .abort(format!("no thread to look up parked records: {error}"));
        }
    }

    /// Marks records as lost that are no longer in the log, so that those behind them continue. The
    /// others are fetched again.
    ///
    /// Records behind the first one that may still exist are fetched again: they may just be late.
    /// Nothing waits for a lost record any more, and the health reports it.
    fn resolve_missing(&mut self, fetch: &PartitionFetch, bounds: Option<(i64, i64)>) {
        let epoch = fetch.partition.epoch;
        let is_gone = !self
            .partitions
            .iter()
            .any(|partition| partition.epoch == epoch);
        let Some(retry) = fetch.partition.retry.as_ref().filter(|_| !is_gone) else {
            return;
        };
        let logged = LoggedPartition {
            group: &self.shared.group,
            topic: &retry.topic,
            partition: fetch.partition.partition,
        };
        let again_at = steady_ms().saturating_add(FETCH_AGAIN_AFTER_MS);
        let mut missing = fetch.missing().iter();
        for ticket in missing.by_ref() {
            let is_outside =
                bounds.is_some_and(|(low, high)| ticket.offset < low || ticket.offset >= high);
            // Deleted from the middle, as by compaction. A client that discards fetched messages
            // looks the same, but only once.
            let is_passed = bounds.is_some()
                && fetch.has_passed(*ticket)
                && !self.read_past.insert((epoch, ticket.offset));
            if !is_outside && !is_passed {
                retry.change(|state| state.hand_back(*ticket, again_at));
                break;
            }
            self.read_past.remove(&(epoch, ticket.offset));
            telemetry::record_lost(logged, ticket.offset);
            retry.change(|state| {
                state.mark_lost(*ticket);
                // If it was not the first of its key, it is found missing again in its turn.
                state.hand_back(*ticket, 0);
            });
            self.shared.report_loss(&fetch.partition);
        }
        for ticket in missing {
            retry.change(|state| state.hand_back(*ticket, again_at));
        }
    }
}

/// When the next record of an open partition is due.
fn due_ms(retry: &RetryPartition) -> Option<i64> {
    let is_used = !retry.is_empty() && retry.is_open();
    is_used.then(|| retry.state().due_ms())?
}

/// Returns the records of this fetch that did not arrive, to be fetched again from `until_ms` on.
fn hand_back_missing(fetch: &PartitionFetch, until_ms: i64) {
    if let Some(retry) = &fetch.partition.retry {
        for ticket in fetch.missing() {
            retry.change(|state| state.hand_back(*ticket, until_ms));
        }
    }
}

/// Returns these records, to be fetched from `until_ms` on.
fn hand_back(tickets: &[(Arc<Partition>, Ticket)], until_ms: i64) {
    for (partition, ticket) in tickets {
        if let Some(retry) = &partition.retry {
            retry.change(|state| state.hand_back(*ticket, until_ms));
        }
    }
}

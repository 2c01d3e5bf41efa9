//! The thread that reads the retry partitions of assigned partitions. Another thread hands out due
//! records (`dispatcher`).
//!
//! Owns a second client, which joins no group and is assigned its partitions directly: the owner of
//! a partition reads its retry partition, whatever the assignor. It does not commit; the group's
//! member does.
//!
//! The parked set of a partition must be complete before its first record is handled, and stay
//! complete: every entry is added in the order of the log, or the partition is read again from the
//! first missing one. Two doubts stop the run of messages and cause a seek: a later leader epoch
//! than the committed one (the log may have been truncated), and a gap.
//!
//! | message | effect |
//! |---|---|
//! | parked record | its key waits; the record is due at its time, after those before it |
//! | note of another failure | the record is due later |
//! | note of a hold | its key waits for a replay |
//! | entry of another group | ignored; bounds the deletion |
//! | unknown entry | ignored: a later release wrote it |
//! | end of the log | completes the parked set, at the end that was looked up |
//! | error | the partition is read again; the health names it |

mod bootstrap;
mod entries;
pub(super) mod gap_check;
mod lookup;
mod lookup_client;
pub(super) mod read_errors;
mod unread;

use crate::consumer::retry_reader::dispatcher::Dispatcher;
use crate::consumer::retry_reader::reader::gap_check::Gaps;
use crate::consumer::retry_reader::reader::lookup::{LookupAnswer, Lookups};
use crate::consumer::retry_reader::reader::lookup_client::LookupClient;
use crate::consumer::retry_reader::reader::read_errors::ReadErrors;
use crate::consumer::retry_reader::reader::unread::UnreadPartitions;
use crate::consumer::retry_reader::telemetry::{self, LoggedPartition};
use crate::consumer::shared::Shared;
use crate::consumer::shared::clock::Now;
use crate::consumer::shared::retry_topics::DispatchRequest;
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::partition::Partition;
use crate::consumer::state::retry_partition::RetryPartition;
use crate::kafka::log::{LoggingContext, next_event};
use crate::kafka::native::{
    ForwardedQueue, Login, Message, Messages, Watched, logged_in, unforward,
};
use crate::kafka::{KafkaConfig, KafkaError};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Entries read at a time.
const BURST_RECORDS: usize = 1024;
/// How long a seek may take.
const SEEK_WITHIN: Duration = Duration::from_secs(5);
/// How often partitions with read errors are read again. The client does not report that a
/// partition can be read again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// The health component of retry partitions that cannot be read.
const COMPONENT: &str = "retry_partitions";
/// The longest wait for entries. Requests wake the thread.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A request to the reader.
pub(crate) enum ReaderRequest {
    /// These partitions were assigned.
    Assigned(Vec<Arc<Partition>>),
    /// These epochs were revoked.
    Revoked(Vec<Epoch>),
    /// The last request.
    Close,
}

/// Reads retry partitions, on a thread of its own.
///
/// Its drop closes the dispatcher.
pub(crate) struct RetryReader {
    pub(crate) shared: Arc<Shared>,
    requests: mpsc::Receiver<ReaderRequest>,
    /// By the name of the retry topic and the partition's number.
    pub(crate) assigned: HashMap<Arc<str>, HashMap<i32, Arc<Partition>>>,
    /// Partitions that are not read yet.
    pub(crate) unread: UnreadPartitions,
    /// Looks partitions up, on threads of its own.
    pub(crate) lookups: Lookups,
    pub(crate) answers: mpsc::Receiver<LookupAnswer>,
    /// Why partitions are not read.
    pub(crate) read_errors: ReadErrors,
    /// When partitions with errors are read again.
    retry_at: Instant,
    /// Gaps that were fetched again once.
    gaps: Gaps,
    messages: Messages,
    // Declared before the client: they must be dropped first.
    _watched: Watched,
    _login: Login,
    /// All partitions are forwarded to it. Requests wake the thread through it.
    pub(crate) queue: Arc<ForwardedQueue<LoggingContext>>,
    pub(crate) consumer: Arc<BaseConsumer<LoggingContext>>,
}

impl RetryReader {
    /// Creates a reader without partitions, and the dispatcher of the records that it reads.
    pub(crate) fn new(
        shared: Arc<Shared>,
        kafka: &KafkaConfig,
        runtime: Handle,
        requests: mpsc::Receiver<ReaderRequest>,
    ) -> Result<(Self, Dispatcher), KafkaError> {
        let mut config = client(kafka, &shared.group)?;
        let made = logged_in(&config, LoggingContext);
        let (consumer, login) = made.map_err(|source| KafkaError::Client {
            what: "the reader of the retry topics cannot be created".to_owned(),
            source,
        })?;
        let consumer = Arc::new(consumer);
        let queue = Arc::new(ForwardedQueue::new(Arc::clone(&consumer)));
        let (dispatcher, dispatched) = mpsc::channel();
        {
            let mut wakers = shared.retry_topics.wakers();
            wakers.reader = Some(Arc::clone(&queue));
            wakers.dispatcher = Some(dispatcher.clone());
        }
        let lookup_client = LookupClient::new(kafka, &config);
        let lookup_client = lookup_client.map_err(|source| KafkaError::Client {
            what: "the client of lookups of retry topics cannot be created".to_owned(),
            source,
        })?;
        config.set("auto.offset.reset", "earliest");
        let dispatcher = Dispatcher::new(Arc::clone(&shared), config, dispatcher, dispatched);
        let (lookups, answers) = Lookups::new(
            Arc::clone(&shared),
            kafka.clone(),
            runtime,
            lookup_client,
            Arc::clone(&queue),
        );
        let reader = Self {
            shared,
            requests,
            assigned: HashMap::new(),
            unread: UnreadPartitions::default(),
            lookups,
            answers,
            read_errors: ReadErrors::default(),
            retry_at: Instant::now(),
            gaps: Gaps::default(),
            messages: Messages::with_capacity(BURST_RECORDS),
            _watched: Watched::new(consumer.client(), &kafka.brokers, None),
            _login: login,
            queue,
            consumer,
        };
        Ok((reader, dispatcher))
    }

    /// Reads until it is closed.
    ///
    /// Requests come first: a revoked partition is not read any more, and an assigned one is looked
    /// up at once. Then answers, entries, retries, and the client's events.
    pub(crate) fn run(mut self) {
        loop {
            loop {
                match self.requests.try_recv() {
                    Ok(ReaderRequest::Assigned(partitions)) => self.unread.add(partitions),
                    Ok(ReaderRequest::Revoked(epochs)) => self.forget(&epochs),
                    Ok(ReaderRequest::Close) | Err(mpsc::TryRecvError::Disconnected) => return,
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            self.process_lookups();
            // Before the wait for entries: a partition may have been opened.
            self.report_read_errors();
            self.read_entries();
            self.retry_read_errors();
            self.serve_events();
            self.report_read_errors();
        }
    }

    /// Reports read errors in the health, if they changed.
    fn report_read_errors(&mut self) {
        if let Some(state) = self.read_errors.take_change() {
            self.shared.health.set_ready(COMPONENT, state);
        }
    }

    /// Logs errors of this client. The group's member reports on the cluster.
    fn serve_events(&self) {
        while let Some(event) = next_event(&self.consumer) {
            if let Err(error) = event {
                tracing::debug!(
                    group = self.shared.group,
                    %error,
                    "the client that reads the retry topics reports an error"
                );
            }
        }
    }

    /// Stops reading the partitions of revoked epochs, and removes everything known about them.
    fn forget(&mut self, epochs: &[Epoch]) {
        for partition in self.unread.forget(epochs) {
            if let Some(retry) = &partition.retry {
                self.read_errors.remove(&retry.topic, partition.partition);
            }
        }
        let gone = DispatchRequest::Gone(epochs.to_vec());
        self.shared.retry_topics.send_to_dispatcher(gone);
        self.gaps.forget(epochs);
        self.shared.control.forget_drops(epochs);
        self.shared.forget_losses(epochs);
        let mut gone = TopicPartitionList::new();
        for (topic, partitions) in &mut self.assigned {
            partitions.retain(|number, partition| {
                let stays = !epochs.contains(&partition.epoch);
                if !stays {
                    gone.add_partition(topic, *number);
                }
                stays
            });
        }
        if gone.count() == 0 {
            return;
        }
        if let Err(error) = self.consumer.incremental_unassign(&gone) {
            telemetry::unassign_failed(&self.shared.group, &error);
        }
        for element in gone.elements() {
            self.shared
                .retry_topics
                .bounds()
                .forget(element.topic(), element.partition());
            self.read_errors
                .remove(&element.topic().into(), element.partition());
            // An unknown partition has no queue.
            let _ = unforward(&self.consumer, element.topic(), element.partition());
        }
    }

    /// Waits for entries, for a request, or until a lookup is due. Adds the entries to their parked
    /// sets.
    fn read_entries(&mut self) {
        let timeout = self.wait_time();
        let mut messages = std::mem::replace(&mut self.messages, Messages::with_capacity(0));
        self.queue
            .wait_and_take(&mut messages, BURST_RECORDS, timeout);
        let now = Now::read();
        // Further messages of these partitions are ignored: they are fetched again.
        let mut interrupted = Vec::new();
        let mut at = 0;
        while at < messages.len() {
            let first = messages.get(at);
            let is_of_run = |message: &Message<'_>| {
                message.topic_handle() == first.topic_handle()
                    && message.partition() == first.partition()
            };
            let run = (at..messages.len()).map(|index| messages.get(index));
            let run: Vec<Message<'_>> = run.take_while(is_of_run).collect();
            at += run.len();
            let assigned = first.topic().and_then(|topic| self.assigned.get(topic));
            let assigned = assigned.and_then(|found| found.get(&first.partition()));
            if let Some(partition) = assigned.cloned()
                && !interrupted.contains(&partition.epoch)
                && !self.process_run(&run, &partition, now)
            {
                interrupted.push(partition.epoch);
            }
        }
        messages.clear();
        self.messages = messages;
    }

    /// Seeks partitions with read errors to the offset after their last entry. A partition that can
    /// be read again then reports at least its end.
    fn retry_read_errors(&mut self) {
        if self.read_errors.is_empty() || Instant::now() < self.retry_at {
            return;
        }
        self.retry_at = Instant::now() + RETRY_INTERVAL;
        for (topic, partitions) in &self.assigned {
            for (number, partition) in partitions {
                let Some(retry) = &partition.retry else {
                    continue;
                };
                if self.read_errors.has(topic, *number) {
                    let place = Offset::Offset(retry.state().next());
                    if let Err(error) = self.consumer.seek(topic, *number, place, SEEK_WITHIN) {
                        tracing::debug!(
                            group = self.shared.group,
                            %topic,
                            partition = number,
                            %error,
                            "the retry partition cannot be read again yet"
                        );
                    }
                }
            }
        }
    }

    /// A retry partition in a log line of this member.
    fn logged<'a>(&'a self, retry: &'a RetryPartition, partition: i32) -> LoggedPartition<'a> {
        LoggedPartition {
            group: &self.shared.group,
            topic: &retry.topic,
            partition,
        }
    }

    /// How long to wait for entries: until a lookup or a retry is due.
    fn wait_time(&self) -> Duration {
        let mut wait = self.unread.next().map_or(WAIT_MAX, |next| {
            next.saturating_duration_since(Instant::now())
        });
        if !self.read_errors.is_empty() {
            wait = wait.min(self.retry_at.saturating_duration_since(Instant::now()));
        }
        wait.min(WAIT_MAX)
    }
}

/// The dispatcher ends with the reader, also after a panic.
impl Drop for RetryReader {
    fn drop(&mut self) {
        self.shared
            .retry_topics
            .send_to_dispatcher(DispatchRequest::Close);
    }
}

/// The configuration of a client that reads retry partitions.
///
/// It never resets an offset by itself (`auto.offset.reset=error`): a lost position must be
/// noticed. It reports ends, which complete the parked set.
fn client(kafka: &KafkaConfig, group: &str) -> Result<ClientConfig, KafkaError> {
    let mut config = kafka.consumer(group)?;
    config
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("queued.min.messages", "10000");
    config.remove("group.instance.id");
    config.remove("group.protocol");
    Ok(config)
}

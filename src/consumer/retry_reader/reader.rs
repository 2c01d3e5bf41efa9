//! The thread that reads the retry partitions of assigned partitions. Another thread hands out due
//! records (`dispatch`).
//!
//! Owns a second client, which joins no group and is assigned its partitions directly: the owner of
//! a partition reads its retry partition, whatever the assignor. It does not commit; the group's
//! member does.
//!
//! The parked set of a partition must be complete before its first record is handled, and stay
//! complete: every entry is added in the order of the log, or the partition is read again from
//! where one is missing. Doubts, which each stop the run of messages and seek, are a later leader
//! epoch than the committed one (truncation) and a gap.
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

use crate::consumer::retry_reader::dispatch::Dispatcher;
use crate::consumer::retry_reader::gap_check::{self, Gap, Gaps, ReadOutcome};
use crate::consumer::retry_reader::lookup::{Answer, LookupThread};
use crate::consumer::retry_reader::read_errors::ReadErrors;
use crate::consumer::retry_reader::unread::UnreadPartitions;
use crate::consumer::shared::Shared;
use crate::consumer::shared::clock::Now;
use crate::consumer::shared::retry_topics::DispatchRequest;
use crate::consumer::state::assignments::PositionLoss;
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::ordering_key::ordering_key;
use crate::consumer::state::partition::Partition;
use crate::consumer::state::retry_partition::{OPEN, RetryPartition};
use crate::event::Headers;
use crate::kafka::log::{LoggingContext, next_event};
use crate::kafka::native::{
    ForwardedQueue, Login, Message, Messages, Watched, logged_in, set_leader_epoch, unforward,
};
use crate::kafka::{KafkaConfig, KafkaError};
use crate::recovery::parked::{Owner, RetryTopicEntry};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
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
const QUIET: Duration = Duration::from_secs(1);

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
    pub(crate) followed: HashMap<Arc<str>, HashMap<i32, Arc<Partition>>>,
    /// Partitions that are not read yet.
    pub(crate) unread: UnreadPartitions,
    /// Looks partitions up, on threads of its own.
    pub(crate) asker: LookupThread,
    pub(crate) answers: mpsc::Receiver<Answer>,
    /// Why partitions are not read.
    pub(crate) troubles: ReadErrors,
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
        config.set("auto.offset.reset", "earliest");
        let dispatcher = Dispatcher::new(Arc::clone(&shared), config, dispatcher, dispatched);
        let (asker, answers) = LookupThread::new(
            Arc::clone(&shared),
            kafka.clone(),
            runtime,
            Arc::clone(&consumer),
            Arc::clone(&queue),
        );
        let reader = Self {
            shared,
            requests,
            followed: HashMap::new(),
            unread: UnreadPartitions::default(),
            asker,
            answers,
            troubles: ReadErrors::default(),
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
            self.look_up();
            self.read();
            self.retry_failed();
            self.serve_events();
            if let Some(state) = self.troubles.news() {
                self.shared.health.set_ready(COMPONENT, state);
            }
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

    /// Stops to read the partitions of revoked epochs, and removes all that was noted of them.
    fn forget(&mut self, epochs: &[Epoch]) {
        for partition in self.unread.forget(epochs) {
            if let Some(retry) = &partition.retry {
                self.troubles.remove(&retry.topic, partition.partition);
            }
        }
        let gone = DispatchRequest::Gone(epochs.to_vec());
        self.shared.retry_topics.send_to_dispatcher(gone);
        self.gaps.forget(epochs);
        self.shared.control.forget_drops(epochs);
        self.shared.forget_losses(epochs);
        let mut gone = TopicPartitionList::new();
        for (topic, partitions) in &mut self.followed {
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
            tracing::warn!(
                group = self.shared.group,
                %error,
                "retry partitions cannot be unassigned"
            );
        }
        for element in gone.elements() {
            self.shared
                .retry_topics
                .bounds()
                .forget(element.topic(), element.partition());
            self.troubles
                .remove(&element.topic().into(), element.partition());
            // An unknown partition has no queue.
            let _ = unforward(&self.consumer, element.topic(), element.partition());
        }
    }

    /// Waits for entries, for a request, or until a lookup is due. Adds the entries to their parked
    /// sets.
    fn read(&mut self) {
        let timeout = self.wait();
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
            let followed = first.topic().and_then(|topic| self.followed.get(topic));
            let followed = followed.and_then(|found| found.get(&first.partition()));
            if let Some(partition) = followed.cloned()
                && !interrupted.contains(&partition.epoch)
                && !self.take_in(&run, &partition, now)
            {
                interrupted.push(partition.epoch);
            }
        }
        messages.clear();
        self.messages = messages;
    }

    /// Processes consecutive messages of one partition. Returns false if further ones are fetched
    /// again.
    ///
    /// Two doubts are resolved before an entry is added. The first entry of a partition may be of a
    /// later leader than the committed offset: a seek with the leader epoch has the brokers check
    /// it (KIP-320). And entries may be missing before one that arrived ([`gap_check`]).
    fn take_in(&mut self, run: &[Message<'_>], partition: &Arc<Partition>, now: Now) -> bool {
        let Some(retry) = &partition.retry else {
            return true;
        };
        let next = retry.state().next();
        let first = run.iter().find(|message| message.error().is_none());
        if let Some(epoch) = first.and_then(|first| retry.doubt(first.leader_epoch()))
            && self.verify_committed(partition.partition, retry, next, epoch)
        {
            return false;
        }
        let Some(gap) = gap_check::find(next, run.iter().map(outcome_of)) else {
            return self.enter(run, partition, retry, now);
        };
        if self.gaps.is_known(partition.epoch, &gap) {
            tracing::error!(
                group = self.shared.group,
                topic = %retry.topic,
                partition = partition.partition,
                offset = gap.missing,
                "the retry partition has a gap: records were deleted from its middle"
            );
            return self.enter(run, partition, retry, now);
        }
        self.enter(&run[..gap.at], partition, retry, now);
        self.fetch_gap(&gap, partition, retry);
        false
    }

    /// Adds entries to the parked set. Returns false if the log does not have the requested offset.
    ///
    /// All entries are added under one lock of the parked set. What they imply for others (losses,
    /// entries of another group, errors) is reported after it.
    ///
    /// A lost position is accepted only while nothing depends on it: before the gate opens, or
    /// while no key waits. Then the partition is read from its beginning. Otherwise it is an error,
    /// and the partition waits for an operator.
    fn enter(
        &mut self,
        run: &[Message<'_>],
        partition: &Arc<Partition>,
        retry: &RetryPartition,
        now: Now,
    ) -> bool {
        let entries = run.iter().filter(|message| message.error().is_none());
        retry.observe_leader_epoch(entries.filter_map(Message::leader_epoch).max());
        let (mut is_position_lost, mut outlived) = (false, None);
        let (mut trouble, mut is_read, mut foreign) = (None, false, None);
        let owner = Owner {
            group: &self.shared.group,
            topic: &partition.topic,
        };
        retry.change(|state| {
            for message in run {
                is_read |= matches!(outcome_of(message), ReadOutcome::Entry(_) | ReadOutcome::End(_));
                match message.error() {
                    None => {
                        if state.observe_leader_epoch(message.leader_epoch()) {
                            outlived = Some(message.offset());
                        }
                        let headers: Headers = message.take_headers().iter().collect();
                        let name = ordering_key(&self.shared.settings, message.key());
                        let entry = RetryTopicEntry::read(headers.iter(), owner);
                        if entry == RetryTopicEntry::Foreign {
                            foreign.get_or_insert((message.offset(), headers));
                        }
                        let entry = now.translated(entry);
                        state.seen(message.offset(), name, entry, now.steady_ms);
                    }
                    Some(RDKafkaErrorCode::PartitionEOF) => state.reached(message.offset()),
                    // The log lost the offset, but no parked record depends on it.
                    Some(RDKafkaErrorCode::AutoOffsetReset)
                        if !retry.is_position_lost() && (!retry.is_open() || state.keys() == 0) =>
                    {
                        is_position_lost = true;
                    }
                    Some(RDKafkaErrorCode::AutoOffsetReset) => self.shared.abort_at_doubtful_position(format!(
                        "the retry partition {}/{} does not have the offset {} any more that comes next",
                        retry.topic, partition.partition, state.next()
                    )),
                    Some(error) => {
                        trouble = Some(ClientError::MessageConsumption(error));
                    }
                }
            }
        });
        let number = partition.partition;
        if let Some(offset) = outlived {
            let place = (&*retry.topic, number);
            self.shared
                .position_lost(place, PositionLoss::Truncated, None, Some(offset));
        }
        if is_position_lost {
            retry.set_position_lost();
            self.forget(&[partition.epoch]);
            self.unread.add(vec![Arc::clone(partition)]);
            return false;
        }
        if let Some((offset, headers)) = foreign {
            self.meet_foreign(retry, number, offset, &headers);
        }
        if is_read {
            self.troubles.remove(&retry.topic, number);
        }
        if let Some(error) = trouble {
            if !self.troubles.has(&retry.topic, number) {
                tracing::error!(
                    group = self.shared.group,
                    topic = %retry.topic,
                    partition = number,
                    %error,
                    "the retry partition cannot be read"
                );
            }
            self.troubles.add(&retry.topic, number, error.into());
        }
        open(&self.shared, retry);
        if is_read {
            self.shared.retry_topics.wake_dispatcher();
        }
        true
    }

    /// Reports an entry of another group whose retry topic has the same name. It is ignored, and
    /// retention never deletes it or later entries.
    ///
    /// The names `a.b` with topic `c` and `a` with topic `b.c` combine to the same retry topic.
    /// Each entry has its group and topic in its headers.
    fn meet_foreign(&self, retry: &RetryPartition, number: i32, offset: i64, headers: &Headers) {
        if self
            .shared
            .retry_topics
            .bounds()
            .meet_foreign(&retry.topic, number, offset)
        {
            let (group, topic) = Owner::named_in(headers);
            tracing::warn!(
                group = self.shared.group,
                retry_topic = %retry.topic,
                partition = number,
                offset,
                other_group = group,
                other_topic = topic,
                "another group uses the same retry topic, because their names combine to the same one; each group handles its own entries, and settled ones are no longer deleted; rename one of the groups"
            );
        }
    }

    /// Seeks partitions with read errors to their next offset. A partition that can be read again
    /// then reports at least its end.
    ///
    /// A partition with an error is sought to the offset after its last entry. A seek that succeeds
    /// makes the client report at least the end.
    fn retry_failed(&mut self) {
        if self.troubles.is_empty() || Instant::now() < self.retry_at {
            return;
        }
        self.retry_at = Instant::now() + RETRY_INTERVAL;
        for (topic, partitions) in &self.followed {
            for (number, partition) in partitions {
                let Some(retry) = &partition.retry else {
                    continue;
                };
                if self.troubles.has(topic, *number) {
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

    /// Seeks with the committed leader epoch, so that the client checks whether the log was
    /// truncated. Returns false if the seek failed; otherwise all entries are fetched again.
    fn verify_committed(&self, number: i32, retry: &RetryPartition, next: i64, epoch: i32) -> bool {
        let mut place = TopicPartitionList::new();
        let asked = place
            .add_partition_offset(&retry.topic, number, Offset::Offset(next))
            .and_then(|()| set_leader_epoch(&place, &retry.topic, number, Some(epoch)))
            .and_then(|()| self.consumer.seek_partitions(place, SEEK_WITHIN))
            .and_then(|sought| {
                sought
                    .elements()
                    .iter()
                    .try_for_each(TopicPartitionListElem::error)
            });
        if let Err(error) = &asked {
            tracing::warn!(
                group = self.shared.group,
                topic = %retry.topic,
                partition = number,
                %error,
                "the check whether the retry partition was truncated failed"
            );
        }
        asked.is_ok()
    }

    /// Fetches again from the first missing offset.
    fn fetch_gap(&mut self, gap: &Gap, partition: &Partition, retry: &RetryPartition) {
        let (topic, number) = (&retry.topic, partition.partition);
        let place = Offset::Offset(gap.missing);
        match self.consumer.seek(topic, number, place, SEEK_WITHIN) {
            Ok(()) => self.gaps.asked(partition.epoch, gap),
            Err(error) => {
                tracing::warn!(
                    group = self.shared.group,
                    %topic,
                    partition = number,
                    %error,
                    "the retry partition cannot be read again from the start of a gap"
                );
            }
        }
    }

    /// How long to wait for entries: until a lookup or a retry is due.
    fn wait(&self) -> Duration {
        let mut wait = self
            .unread
            .next()
            .map_or(QUIET, |next| next.saturating_duration_since(Instant::now()));
        if !self.troubles.is_empty() {
            wait = wait.min(self.retry_at.saturating_duration_since(Instant::now()));
        }
        wait.min(QUIET)
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

/// Maps a message to the offset that it reports.
fn outcome_of(message: &Message<'_>) -> ReadOutcome {
    match message.error() {
        None => ReadOutcome::Entry(message.offset()),
        Some(RDKafkaErrorCode::PartitionEOF) => ReadOutcome::End(message.offset()),
        Some(_) => ReadOutcome::Nothing,
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

/// Opens the gate of the partition after its parked set is complete.
///
/// Called after every change of a parked set that may complete it. The intake thread passes on what
/// it kept.
pub(crate) fn open(shared: &Shared, retry: &RetryPartition) {
    if !retry.is_open() && retry.state().is_whole() {
        retry.set_gate(OPEN);
        shared.intake.wake();
    }
}

//! What happens when partitions come and go: the client's callbacks, and the assignments they keep.
//!
//! The callbacks run on the poll thread, inside the client's poll. On assign a partition's queue is forwarded before the
//! assignment takes effect; on revoke nothing new starts, what runs is drained up to a deadline, what is settled is
//! committed, and only then the partition goes.

use super::commit::{Order, Owned};
use super::engine::Engine;
use super::fall_back::FallBack;
use super::ledger::Epoch;
use super::metadata::SettledAbove;
use super::parking::{RetryPartition, follow};
use super::partition::Partition;
use super::pause::{Held, Question};
use super::worker::Message;
use crate::kafka::log;
use crate::kafka::queue::{Committed, ForwardTarget, committed, forward, unforward};
use crate::recovery::retry_topic;
use crate::telemetry::{Line, Metric};
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an assignment waits for the group's committed offsets; after that, records settled above them come again.
pub(super) const COMMITTED_WITHIN: Duration = Duration::from_secs(5);
/// How long a revoke waits for its commit.
pub(crate) const COMMIT_WITHIN: Duration = Duration::from_secs(5);

/// How long to wait before a refused commit is tried again.
const COMMIT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// An assigned partition, as intake sees it.
pub(crate) struct Assigned {
    pub(crate) partition: Arc<Partition>,
    /// Settled by an earlier life of the group, above its committed offset.
    pub(crate) settled_above: SettledAbove,
    /// The offset expected next. The client passes over what it fetched for an earlier assignment, so a lower one means that
    /// the log is not what it was.
    pub(crate) next: Option<i64>,
    pub(crate) committed: Option<i64>,
    /// The leader epoch that was committed with it, until a record has come: one of a later leader may stand behind others that
    /// nobody has read.
    pub(crate) committed_under: Option<i32>,
    /// Whether the brokers are to be asked first whether the log still has what was committed: the client asks at a seek, and when
    /// a leader changes, but not when it starts to read.
    pub(crate) is_doubtful: bool,
    /// Whether its records wait until its parked set is whole.
    pub(crate) is_gated: bool,
    /// The first record that was taken from the client while it was gated; it may not have been handed on.
    pub(crate) taken_from: Option<i64>,
    /// The first record that was given back while it was gated: the client has to fetch from there again.
    pub(crate) fetch_again_from: Option<i64>,
    /// The end at which a bounded run stops; looked up after the assignment.
    pub(crate) end: Option<i64>,
    /// The end that the client told of last.
    pub(crate) ended_at: Option<i64>,
    /// Whether an error came in a record's place, and no record since.
    pub(crate) has_erred: bool,
    /// Whether it stands before a batch that cannot be read: nothing behind that is taken.
    pub(crate) is_unreadable: bool,
    /// How far it has come in being paused, while an operator wants it to be, or until it is set back.
    pub(crate) held: Option<Held>,
    /// Where its log begins anew, until it goes on from there.
    pub(crate) fall_back: Option<FallBack>,
    pub(crate) received: metrics::Counter,
}

impl Assigned {
    /// Whether records of this epoch may be handed on.
    pub(crate) fn is_of(&self, epoch: Epoch) -> bool {
        self.partition.epoch == epoch && self.held.is_none()
    }
}

/// The partitions that are assigned now.
#[derive(Default)]
pub(crate) struct Assignments {
    pub(crate) topics: HashMap<Arc<str>, HashMap<i32, Assigned>>,
    pub(super) last_epoch: u64,
    /// When partitions that could not be set back are tried again.
    pub(super) set_back_at: Option<Instant>,
    /// Whether the group has assigned anything yet, be it nothing.
    pub(crate) joined: bool,
    /// Whether a revoke or a loss was the latest change: another assignment is to come.
    pub(crate) awaited: bool,
}

impl Assigned {
    /// Whether its records are taken. Those that come meanwhile come again.
    pub(crate) fn is_taken(&self) -> bool {
        self.held.is_none() && !self.is_unreadable && !self.is_to_be_set_back()
    }

    /// Whether it is read anew, under a fresh epoch: from where its log begins anew, or from the committed offset if the brokers
    /// say that the log still has it.
    pub(crate) fn is_to_be_set_back(&self) -> bool {
        self.fall_back.is_some() || self.is_doubtful
    }
}

impl Assignments {
    pub(crate) fn get(&mut self, topic: &str, partition: i32) -> Option<&mut Assigned> {
        self.topics.get_mut(topic)?.get_mut(&partition)
    }

    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut Assigned> {
        self.topics.values_mut().flat_map(HashMap::values_mut)
    }

    pub(super) fn next_epoch(&mut self) -> Epoch {
        self.last_epoch += 1;
        Epoch(self.last_epoch)
    }

    pub(super) fn insert(
        &mut self,
        topic: &str,
        partition: i32,
        received: metrics::Counter,
        retry: RetryPartition,
    ) {
        let known = self.topics.keys().find(|name| ***name == *topic).cloned();
        let name = known.unwrap_or_else(|| topic.into());
        let epoch = self.next_epoch();
        let assigned = Assigned {
            is_gated: true,
            partition: Arc::new(Partition::new(
                Arc::clone(&name),
                partition,
                epoch,
                Some(retry),
            )),
            settled_above: SettledAbove::default(),
            taken_from: None,
            fetch_again_from: None,
            next: None,
            committed: None,
            committed_under: None,
            is_doubtful: false,
            end: None,
            ended_at: None,
            has_erred: false,
            is_unreadable: false,
            held: None,
            fall_back: None,
            received,
        };
        self.topics
            .entry(name)
            .or_default()
            .insert(partition, assigned);
    }

    pub(super) fn remove(&mut self, topic: &str, partition: i32) -> Option<Assigned> {
        self.topics.get_mut(topic)?.remove(&partition)
    }
}

/// Where partitions' queues are forwarded to.
#[derive(Clone, Copy)]
pub(crate) struct Targets {
    /// For those whose records may be handled.
    pub(crate) open: ForwardTarget,
    /// For those whose records wait for their parked sets.
    pub(crate) gated: ForwardTarget,
}

/// The client's context: this member of the group.
pub(crate) struct Member {
    pub(super) engine: Arc<Engine>,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) followed: mpsc::Sender<follow::Order>,
    assignments: Mutex<Assignments>,
    /// What is asked for partitions that are to go on.
    asked: Mutex<Option<Question>>,
    targets: Mutex<Option<Targets>>,
    /// Set once everything is committed and the client is only to be given back.
    closing: AtomicBool,
    /// What the client complained about since the last look.
    complaints: Mutex<Vec<KafkaError>>,
    /// What was said of the client's errors.
    said: Mutex<HashMap<i32, Line>>,
    /// How often partitions were assigned or revoked.
    rebalances: AtomicU64,
}

/// The client repeats an error for as long as it lasts, several times a second for each broker: one of a kind is logged that often at
/// most.
const ERROR_LINE_INTERVAL: Duration = Duration::from_secs(30);

impl Member {
    pub(crate) fn new(
        engine: Arc<Engine>,
        orders: mpsc::Sender<Order>,
        followed: mpsc::Sender<follow::Order>,
    ) -> Self {
        Self {
            engine,
            orders,
            followed,
            assignments: Mutex::default(),
            asked: Mutex::default(),
            targets: Mutex::default(),
            closing: AtomicBool::new(false),
            complaints: Mutex::default(),
            said: Mutex::default(),
            rebalances: AtomicU64::new(0),
        }
    }

    /// Where partitions' queues are forwarded to from now on; none before and after the run.
    pub(crate) fn set_targets(&self, targets: Option<Targets>) {
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets;
    }

    pub(super) fn targets(&self) -> Option<Targets> {
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on partitions go without a drain or a commit: both were done.
    pub(crate) fn set_closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// The assignments. Only the poll thread takes this lock.
    pub(crate) fn assignments(&self) -> MutexGuard<'_, Assignments> {
        self.assignments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is asked for partitions that are to go on. Only the poll thread takes this lock.
    pub(super) fn asked(&self) -> MutexGuard<'_, Option<Question>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often partitions were assigned or revoked.
    pub(crate) fn rebalances(&self) -> u64 {
        self.rebalances.load(Ordering::Relaxed)
    }

    /// Errors that the client reported outside of its poll.
    pub(crate) fn take_complaints(&self) -> Vec<KafkaError> {
        std::mem::take(
            &mut *self
                .complaints
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Fences every assigned partition, for a stop: no record starts any more.
    pub(crate) fn fence_all(&self) -> Vec<Epoch> {
        let mut epochs = Vec::new();
        for assigned in self.assignments().all() {
            assigned.partition.fence();
            epochs.extend(epochs_of(&assigned.partition));
        }
        epochs
    }

    /// Asks the workers to drop what waits of these epochs. Each answers when nothing of them runs any more.
    pub(crate) fn fence(&self, epochs: &[Epoch]) -> Drain {
        let (answer, answers) = mpsc::channel();
        for worker in &self.engine.workers {
            worker.send(Message::Fence(epochs.to_vec(), answer.clone()));
        }
        Drain {
            answers,
            open: self.engine.workers.len(),
        }
    }

    /// Has what is settled of these epochs committed; false when that failed or took too long.
    pub(crate) fn commit(&self, epochs: &[Epoch], within: Duration) -> bool {
        let (answer, answered) = mpsc::channel();
        let asked = self.orders.send(Order::Commit(epochs.to_vec(), answer));
        asked.is_ok() && answered.recv_timeout(within).unwrap_or(false)
    }

    /// [`Member::commit`] before these partitions go: tried again until `deadline` when it is refused, which a coordinator does that is
    /// loading or moving.
    fn commit_before_revoke(&self, epochs: &[Epoch], deadline: Instant) -> bool {
        loop {
            if self.commit(epochs, COMMIT_WITHIN) {
                return true;
            }
            if Instant::now() + COMMIT_AGAIN_AFTER >= deadline {
                return false;
            }
            std::thread::sleep(COMMIT_AGAIN_AFTER);
        }
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let engine = &self.engine;
        let targets = self.targets();
        let mut assignments = self.assignments();
        assignments.joined = true;
        assignments.awaited = false;
        for element in list.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let retry = self.retry_partition(&mut assignments, topic);
            // Which of its keys wait has to be known before its first record is handled.
            if let Some(targets) = targets
                && let Err(error) = forward(consumer, topic, partition, targets.gated)
            {
                // Its records would come on the consumer's queue, where nobody takes them.
                tracing::error!(group = engine.group, topic, partition, %error, "the partition's queue cannot be forwarded");
            }
            let received = metrics::counter!(Metric::Received.name(), "group" => engine.group.clone(), "topic" => topic.to_owned());
            assignments.insert(topic, partition, received, retry);
        }
        if list.count() > 0 {
            self.resume(consumer, list, &mut assignments);
        }
        let owned = |element: &TopicPartitionListElem<'_>| {
            let assigned = assignments.get(element.topic(), element.partition())?;
            Some(owned_of(assigned))
        };
        let elements = list.elements();
        let owned = elements.iter().filter_map(owned).flatten().collect();
        self.own(owned);
        tracing::info!(group = engine.group, partitions = %names(list), "partitions assigned");
        engine.readiness.assigned();
    }

    /// Where the records of a partition that is about to be assigned are parked. Whether it is there is asked then.
    pub(super) fn retry_partition(
        &self,
        assignments: &mut Assignments,
        topic: &str,
    ) -> RetryPartition {
        let name = retry_topic(&self.engine.group, topic);
        RetryPartition::new(name.into(), assignments.next_epoch())
    }

    /// Has partitions committed for from now on, and their retry partitions followed.
    pub(super) fn own(&self, owned: Vec<Owned>) {
        let followed = owned
            .iter()
            .filter_map(|owned| owned.parked_of.clone())
            .collect();
        // Both end after this thread only.
        let _ = self.orders.send(Order::Assigned(owned));
        let _ = self.followed.send(follow::Order::Assigned(followed));
        self.engine.parking.wake_reader();
    }

    /// Reads where the group stands, and which records above it are settled already.
    fn resume(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
        assignments: &mut Assignments,
    ) {
        let ids = self.topic_ids(consumer, list);
        let mut found = committed(consumer, list, COMMITTED_WITHIN).unwrap_or_else(|error| {
            tracing::warn!(group = self.engine.group, %error, "the committed offsets cannot be read; records settled above them are handled again");
            Vec::new()
        });
        for element in list.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let Some(assigned) = assignments.get(topic, partition) else {
                continue;
            };
            let at = found
                .iter()
                .position(|found| found.topic == topic && found.partition == partition);
            let found = at.map_or_else(Committed::default, |at| found.swap_remove(at));
            assigned.stand(&self.engine, &found, ids.get(topic).copied());
        }
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        // To be asked before the unassignment, which resets it.
        let lost = consumer.assignment_lost();
        let removed: Vec<Assigned> = {
            let mut assignments = self.assignments();
            assignments.awaited = true;
            list.elements()
                .iter()
                .filter_map(|element| assignments.remove(element.topic(), element.partition()))
                .collect()
        };
        // Of a topic that was deleted the partitions go in the same way.
        if lost && self.assignments().all().next().is_none() {
            let reason = "the group took its partitions away; it joins again";
            self.engine.readiness.expelled(reason);
        }
        let epochs: Vec<Epoch> = removed
            .iter()
            .flat_map(|assigned| epochs_of(&assigned.partition))
            .collect();
        removed
            .iter()
            .for_each(|assigned| assigned.partition.fence());
        let began = Instant::now();
        if lost || self.closing.load(Ordering::Relaxed) {
            self.fence(&epochs);
        } else if !epochs.is_empty() {
            let within = self.engine.settings.revoke_timeout;
            let drained = self.fence(&epochs).wait(within);
            let committed = self.commit_before_revoke(&epochs, began + within);
            if !drained || !committed {
                tracing::warn!(
                    group = self.engine.group,
                    drained,
                    committed,
                    "partitions go before everything on them was settled and committed; some records come again"
                );
            }
        }
        // The committer may have ended already when the client is only to be given back.
        let _ = self.orders.send(Order::Forget(epochs.clone()));
        let _ = self.followed.send(follow::Order::Revoked(epochs.clone()));
        self.engine.parking.wake_reader();
        {
            let mut ledger = self.engine.ledger();
            epochs.iter().for_each(|epoch| ledger.revoke(*epoch));
        }
        self.forget_pauses(consumer, &removed);
        for assigned in &removed {
            self.engine.readiness.can_read(&assigned.partition);
            // An unknown partition has no queue that could be forwarded.
            let _ = unforward(
                consumer,
                &assigned.partition.topic,
                assigned.partition.partition,
            );
        }
        tracing::info!(group = self.engine.group, partitions = %names(list), lost, took_ms = began.elapsed().as_millis() as u64, "partitions revoked");
    }

    fn count(&self, kind: &'static str) {
        metrics::counter!(Metric::Rebalances.name(), "group" => self.engine.group.clone(), "kind" => kind).increment(1);
    }
}

/// What is committed for a partition: its own position, and that of those parked of it.
pub(super) fn owned_of(assigned: &Assigned) -> Vec<Owned> {
    let partition = &assigned.partition;
    let own = Owned {
        epoch: partition.epoch,
        topic: Arc::clone(&partition.topic),
        partition: partition.partition,
        committed: assigned.committed,
        parked_of: None,
    };
    let retry = partition.retry.as_ref().map(|retry| Owned {
        epoch: retry.epoch,
        topic: Arc::clone(&retry.topic),
        partition: partition.partition,
        committed: None,
        parked_of: Some(Arc::clone(partition)),
    });
    std::iter::once(own).chain(retry).collect()
}

/// What a partition's records, and those parked of it, are committed under.
pub(super) fn epochs_of(partition: &Partition) -> impl Iterator<Item = Epoch> {
    let retry = partition.retry.as_ref().map(|retry| retry.epoch);
    std::iter::once(partition.epoch).chain(retry)
}

fn names(list: &TopicPartitionList) -> String {
    let names: Vec<String> = list
        .elements()
        .iter()
        .map(|element| format!("{}/{}", element.topic(), element.partition()))
        .collect();
    names.join(" ")
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let line = said.entry(code.map_or(0, |code| code as i32)).or_default();
        if let Some(unsaid) = line.due(ERROR_LINE_INTERVAL) {
            tracing::warn!(group = self.engine.group, %error, reason, unsaid, "the Kafka client reports an error");
        }
        drop(said);
        self.complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(error);
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.rebalances.fetch_add(1, Ordering::Relaxed);
        match rebalance {
            Rebalance::Assign(list) => {
                self.count("assigned");
                self.assign(consumer, list);
            }
            Rebalance::Revoke(list) => {
                self.count(if consumer.assignment_lost() {
                    "lost"
                } else {
                    "revoked"
                });
                self.revoke(consumer, list);
            }
            Rebalance::Error(error) => {
                tracing::error!(group = self.engine.group, %error, "the rebalance failed")
            }
        }
    }
}

/// Workers that finish what runs of some epochs.
pub(crate) struct Drain {
    answers: mpsc::Receiver<()>,
    open: usize,
}

impl Drain {
    /// Waits up to `at_most`; whether all workers are done.
    pub(crate) fn wait(&mut self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        while self.open > 0 {
            match self
                .answers
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(()) => self.open -= 1,
                Err(RecvTimeoutError::Timeout) => return false,
                // A worker that is gone runs nothing.
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
        true
    }
}

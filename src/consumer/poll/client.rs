//! The client of a member, its queues and its committing thread: one object, so that they end
//! together and in order.
//!
//! # Leaving the group
//!
//! librdkafka's close leaves the group only in some states of a member. In the others the group
//! waits for the member until its session times out, with its rebalances and its partitions. So
//! [`MemberClient`] brings the client into a state in which it leaves, before it is closed:
//!
//! | state of the client | its close alone | before the close |
//! |---|---|---|
//! | it has partitions | revokes them and leaves | nothing |
//! | its first request to join is open | an id stays, rebalances wait for it | it awaits the answer |
//! | cooperative, without partitions | does not leave | it unsubscribes, which leaves |
//! | the same, in a rebalance | does not leave | it unsubscribes, and awaits the end |
//!
//! Nothing helps a member whose coordinator cannot be reached: its session has to time out. Static
//! members stay, as intended.

use crate::consumer::commit::{CommitRequest, Committer};
use crate::consumer::poll::intake::gated_partitions::GatedPartitions;
use crate::consumer::poll::rebalance::{ForwardTargets, RebalanceContext};
use crate::consumer::report::ConsumerError;
use crate::consumer::retry_reader::reader;
use crate::consumer::settings::{Assignment, StopWhen};
use crate::consumer::shared::Shared;
use crate::kafka::native::{ForwardedQueue, Login, Watched, is_member, logged_in, member_id};
use crate::kafka::{KafkaConfig, KafkaError};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, RebalanceProtocol};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// The name of the committing thread.
const COMMIT_THREAD: &str = "evenkeel-commit";

/// How long a stop waits for the answer to the first request to join. Brokers answer it at once,
/// with the id of the member.
const JOIN_ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// How long one poll waits for events while the member leaves its group.
const LEAVE_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The client, its queues and the committing thread. Its drop leaves the group and closes the
/// client, also after a panic of the poll thread: otherwise the committing thread would keep a
/// member in the group that reads nothing.
///
/// The drop ends the committing thread first. From then on a revoke only fences, and what is
/// assigned is not read. Then the member leaves its group. The queues are dropped next, and the
/// client is closed last.
pub(super) struct MemberClient {
    shared: Arc<Shared>,
    /// Whether the member keeps its place in the group after its end.
    is_static: bool,
    /// Whether the brokers have refused this member, so that no request to join is answered by an
    /// id.
    is_refused: bool,
    requests: mpsc::Sender<CommitRequest>,
    committing: Option<std::thread::JoinHandle<()>>,
    // The fields are dropped in this order, the client last.
    pub(super) watched: Watched,
    _login: Login,
    pub(super) queue: ForwardedQueue<RebalanceContext>,
    pub(super) gates: GatedPartitions,
    pub(super) consumer: Arc<BaseConsumer<RebalanceContext>>,
}

impl MemberClient {
    pub(super) fn new(
        shared: &Arc<Shared>,
        config: &ClientConfig,
        kafka: &KafkaConfig,
        reader_requests: mpsc::Sender<reader::ReaderRequest>,
    ) -> Result<Self, ConsumerError> {
        let (requests, taken) = mpsc::channel();
        let reset = config.get("auto.offset.reset");
        let member =
            RebalanceContext::new(Arc::clone(shared), requests.clone(), reader_requests, reset);
        let created = logged_in(config, member);
        let (consumer, login) = created.map_err(|source| KafkaError::Client {
            what: "the consumer cannot be created".to_owned(),
            source,
        })?;
        let consumer = Arc::new(consumer);
        let committer = Committer::new(Arc::clone(shared), Arc::clone(&consumer), taken);
        let shared_by_thread = Arc::clone(shared);
        let commit = move || {
            if catch_unwind(AssertUnwindSafe(|| committer.run())).is_err() {
                shared_by_thread.abort("the committing thread panicked");
            }
        };
        let committing = std::thread::Builder::new()
            .name(COMMIT_THREAD.to_owned())
            .spawn(commit)
            .map_err(|source| ConsumerError::Thread {
                name: COMMIT_THREAD,
                source,
            })?;
        let queue = || match shared.settings.stop_when {
            StopWhen::UntilEnd => ForwardedQueue::new(Arc::clone(&consumer)).one_by_one(),
            _ => ForwardedQueue::new(Arc::clone(&consumer)),
        };
        let (gates, queue) = (GatedPartitions::new(queue()), queue());
        consumer.context().set_targets(Some(ForwardTargets {
            open: queue.target(),
            gated: gates.target(),
        }));
        let topic = shared.settings.topics.first().map(String::as_str);
        Ok(Self {
            watched: Watched::new(consumer.client(), &kafka.brokers, topic),
            _login: login,
            shared: Arc::clone(shared),
            is_static: config.get("group.instance.id").is_some(),
            is_refused: false,
            requests,
            committing: Some(committing),
            queue,
            gates,
            consumer,
        })
    }

    /// Notes why the run failed, if it did.
    pub(super) fn note_failure(&mut self, failure: Option<&ConsumerError>) {
        let refused = |error: &ConsumerError| {
            matches!(error, ConsumerError::Kafka(KafkaError::Refused { .. }))
        };
        self.is_refused = failure.is_some_and(refused);
    }

    /// Leaves the group where the close of the client would not: see the module's description.
    ///
    /// Serves the client's events meanwhile. Blocks until the end of a rebalance, at most until the
    /// deadline of the stop.
    fn leave_group(&self) {
        let has_partitions = self.consumer.context().assignments().all().next().is_some();
        if self.is_static || has_partitions || !self.is_subscribed() {
            return;
        }
        let deadline = self.shared.end.begin().whole;
        if !self.is_refused {
            let answered = deadline.min(Instant::now() + JOIN_ANSWER_WITHIN);
            self.poll_until(answered, || self.is_known_to_group());
        }
        self.consumer.unsubscribe();
        self.poll_until(deadline, || !self.is_leave_postponed());
    }

    /// Whether the client has subscribed. If its threads could not be started, it has not.
    fn is_subscribed(&self) -> bool {
        let topics = self.consumer.subscription();
        topics.is_ok_and(|topics| topics.count() > 0)
    }

    /// Whether the group has answered the first request to join: it may have the member from then
    /// on. With KIP-848 the client chooses its id itself.
    fn is_known_to_group(&self) -> bool {
        match self.shared.settings.assignment {
            Assignment::Broker => is_member(&self.consumer),
            _ => member_id(&self.consumer).is_some(),
        }
    }

    /// Whether the client, unsubscribed, has yet to leave: it does so after the rebalance, and
    /// forgets its id when it does. With an eager assignor its close leaves in a rebalance as well.
    /// With KIP-848 it leaves at once, and keeps its id.
    fn is_leave_postponed(&self) -> bool {
        let is_eager = || {
            let protocol = self.consumer.rebalance_protocol();
            matches!(protocol, RebalanceProtocol::Eager)
        };
        self.shared.settings.assignment != Assignment::Broker
            && member_id(&self.consumer).is_some()
            && !is_eager()
    }

    /// Serves the client's events until `is_done` or `deadline`, unless no broker can be reached.
    fn poll_until(&self, deadline: Instant, is_done: impl Fn() -> bool) {
        let is_lost =
            || self.watched.is_cut_off() || self.consumer.client().fatal_error().is_some();
        while !is_done() && !is_lost() && Instant::now() < deadline {
            // Nothing depends on errors any more, and a record belongs to a partition that is
            // released unread.
            let _ = self.consumer.poll(LEAVE_POLL_INTERVAL);
        }
    }
}

impl Drop for MemberClient {
    fn drop(&mut self) {
        let _ = self.requests.send(CommitRequest::Close);
        if let Some(committing) = self.committing.take()
            && committing.join().is_err()
        {
            tracing::error!(group = self.shared.group, "the thread for commits panicked");
        }
        let member = self.consumer.context();
        member.set_closing();
        member.set_targets(None);
        self.leave_group();
    }
}

//! The client of a member, its queues and its committing thread: one object, so that they end
//! together and in order.

use crate::consumer::commit::{CommitRequest, Committer};
use crate::consumer::poll::intake::gated_partitions::GatedPartitions;
use crate::consumer::poll::rebalance::{ForwardTargets, RebalanceContext};
use crate::consumer::report::ConsumerError;
use crate::consumer::retry_reader::reader;
use crate::consumer::settings::StopWhen;
use crate::consumer::shared::Shared;
use crate::kafka::native::{ForwardedQueue, Login, Watched, logged_in};
use crate::kafka::{KafkaConfig, KafkaError};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

/// The name of the committing thread.
const COMMIT_THREAD: &str = "evenkeel-commit";

/// The client, its queues and the committing thread. Its drop leaves the group and closes the
/// client, also after a panic of the poll thread: otherwise the committing thread would keep a
/// member in the group that reads nothing.
///
/// The drop ends the committing thread first. From then on a revoke only fences. The queues are
/// dropped next, and the client is closed last.
pub(super) struct MemberClient {
    shared: Arc<Shared>,
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
            requests,
            committing: Some(committing),
            queue,
            gates,
            consumer,
        })
    }
}

impl Drop for MemberClient {
    fn drop(&mut self) {
        let shared = &self.shared;
        let _ = self.requests.send(CommitRequest::Close);
        if let Some(committing) = self.committing.take()
            && committing.join().is_err()
        {
            tracing::error!(group = shared.group, "the thread for commits panicked");
        }
        let member = self.consumer.context();
        member.set_closing();
        member.set_targets(None);
        let has_partitions = member.assignments().all().next().is_some();
        if !has_partitions && shared.settings.instance_id.is_none() {
            // With the cooperative protocol, librdkafka's close leaves the group only if partitions
            // were assigned: a rebalance would wait for an unassigned member until its session
            // times out. Static members stay, as intended.
            self.consumer.unsubscribe();
        }
    }
}

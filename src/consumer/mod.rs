//! The consumer: poll, admit, lane, handle, settle, commit.
//!
//! Owns a member of a group from its first poll to its last commit. Knows nothing of what a handler does: a record goes to
//! it as a [`Delivery`], and an [`Outcome`] comes back.
//!
//! - **poll**: one thread owns the client. It serves rebalances and errors all the time, and takes records from the
//!   partitions' queues only while there is room. It waits for handlers nowhere but in the bounded drain of a revoke.
//! - **admit**: room is limited by records and by bytes in flight ([`ConsumerSettings::in_flight_records_max`],
//!   [`ConsumerSettings::in_flight_bytes_max`]), whatever the backlog.
//! - **lane**: a record waits behind the unsettled ones of its key, or of its partition, as [`Ordering`] says. A key's hash
//!   picks the worker that owns its lane, so order needs no lock.
//! - **handle**: at most [`ConsumerSettings::concurrency`] handlers run at a time, over all partitions. A failed record is
//!   retried in its lane, and dead-lettered when that is hopeless; the other lanes go on.
//! - **settle**: each record's bit in the ledger, kept per assignment of its partition; a result that comes after the
//!   partition went counts for nothing.
//! - **commit**: a thread of its own commits the first unsettled offset of each partition, at an interval, on a revoke and
//!   at the stop. What is settled above it travels in the commit's metadata, so that a restart does not repeat it.
//!
//! A running group is controlled through its topic `control.<group>` ([`crate::control`]): `commands` follows it,
//! `steering` compares on the poll thread what is with what is to be, `pause` holds partitions, and a record to be skipped is
//! found where it starts or waits.
//!
//! The decisions (`lanes`, `ledger`, `flow`, `metadata`) are pure and are driven through seeded schedules of revokes, late
//! results and crashes by `simulation`.

mod activity;
mod breakers;
mod commands;
mod commit;
mod control;
mod crowding;
mod dead;
mod ending;
mod engine;
mod fall_back;
mod flow;
mod gates;
mod headers;
mod intake;
mod kinds;
mod lanes;
mod ledger;
mod markers;
mod memory;
mod metadata;
mod own_topics;
mod parking;
mod partition;
mod pause;
mod permits;
mod poll;
mod prepare;
mod readiness;
mod rebalance;
mod recover;
mod reread;
mod routing;
mod running;
mod settings;
mod silent;
#[cfg(test)]
mod simulation;
mod skipping;
mod steering;
mod surplus;
mod tally;
mod unreadable;
mod watch;
mod worker;

pub use own_topics::{OwnTopic, OwnTopicKind, OwnTopicState, OwnTopics, TopicFault};
pub(crate) use parking::parked_records;
pub use parking::{ParkedKey, parked_keys};
pub use settings::{
    AfterDeadLetter, Assignment, Bound, ConsumerSettings, Keyless, Ordering, RecordHeaders,
};

use crate::control::ControlState;
use crate::handler::{Classifier, Delivery, Limited, Outcome, Router, Scope, default_classifier};
use crate::kafka::{ConfigError, KafkaConfig, KafkaError};
use crate::publisher::Publisher;
use crate::telemetry::{Health, Part};
use commands::{Commands, Followed};
use control::Control;
use dead::DeadLetterWriter;
use ending::left_until;
use engine::Engine;
use futures_util::FutureExt;
use permits::Permits;
use poll::Ended;
use readiness::Readiness;
use std::any::Any;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Memory};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A member of a consumer group.
///
/// ```no_run
/// use evenkeel::consumer::{Consumer, ConsumerSettings};
/// use evenkeel::event::Record;
/// use evenkeel::handler::Router;
/// use evenkeel::kafka::KafkaConfig;
/// use tokio_util::sync::CancellationToken;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let router = Router::new().raw(async |record: Record| println!("{record:?}"));
/// let settings = ConsumerSettings::new("audit", ["orders"]);
/// let consumer = Consumer::new(KafkaConfig::new("localhost:9092"), settings, router)?;
/// let report = consumer.run(CancellationToken::new()).await?;
/// println!("{} records settled", report.settled);
/// # Ok(())
/// # }
/// ```
pub struct Consumer<H> {
    kafka: KafkaConfig,
    settings: ConsumerSettings,
    handler: H,
    publisher: Option<Publisher>,
    health: Health,
    classifier: Classifier,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stopped {
    /// It was asked to.
    Requested,
    /// Its bound was reached.
    BoundReached,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RunReport {
    /// Why it ended.
    pub stopped: Stopped,
    /// Records received.
    pub received: u64,
    /// Records settled, by whatever outcome.
    pub settled: u64,
    /// Of those, duplicates that the inbox suppressed.
    pub duplicates: u64,
    /// Of those, ignored: events of types that no handler asks for, and what handlers answered with
    /// [`Outcome::Ignored`].
    pub ignored: u64,
    /// Of those, dead letters.
    pub dead_letters: u64,
    /// Of those, parked: they stand in the retry topic, and count again when they are settled there.
    pub parked: u64,
    /// Whether everything that was begun is settled and committed. False where the drain reached its deadline, where a commit was
    /// refused, and where a record had failed and its next attempt, or its dead letter, was still to come: it is delivered again.
    pub clean: bool,
}

impl RunReport {
    /// Of a run that was stopped before it began.
    fn of_nothing() -> Self {
        Self {
            stopped: Stopped::Requested,
            received: 0,
            settled: 0,
            duplicates: 0,
            ignored: 0,
            dead_letters: 0,
            parked: 0,
            clean: true,
        }
    }
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cluster could not be reached, or refused us, or a topic is missing.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A partition cannot be read until somebody mends that, so that a bounded run would never reach its end.
    #[error("the run cannot reach its end: {topic}/{partition} cannot be read: {why}")]
    Unreadable {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// What the client says.
        why: String,
    },
    /// Another member of the group has this one's instance id. A run waits for it to leave.
    #[error("another member of the group has the same instance id")]
    InstanceInUse,
    /// The client is unusable: the process should end and be started again.
    #[error("the client failed for good: {0}")]
    Fatal(String),
}

impl<H> Consumer<H>
where
    H: tower::Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
    H::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    H::Future: Send,
{
    /// A member that calls `handler`, usually a [`Router`], for every record. Layers of `tower`
    /// fit around it.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(
        kafka: KafkaConfig,
        mut settings: ConsumerSettings,
        handler: H,
    ) -> Result<Self, ConfigError> {
        kafka.validate()?;
        // As a property of the client it means the same.
        let protocol = kafka.properties.get("group.protocol");
        if protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer")) {
            settings.assignment = Assignment::Broker;
        }
        settings.validate()?;
        // A router inside of layers is out of sight here; its owner can ask it with `Router::validate`.
        if let Some(router) = (&handler as &dyn Any).downcast_ref::<Router>() {
            router.validate()?;
        }
        Ok(Self {
            kafka,
            settings: settings.bounded(),
            handler,
            publisher: None,
            health: Health::default(),
            classifier: default_classifier(),
        })
    }

    /// Gives handlers a publisher: [`Context::publish`](crate::handler::Context::publish).
    pub fn with_publisher(mut self, publisher: Publisher) -> Self {
        self.publisher = Some(publisher);
        self
    }

    /// Reports readiness and liveness to `health`, under names that end in the group: `consumer payments`, and for a second
    /// member of the group in the same process `consumer payments #2`. Several consumers may report to one health. When the
    /// run ends its names leave the health; after an error `consumer payments` stays, as not ready.
    pub fn with_health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Replaces the classifier of errors that handlers did not class themselves.
    pub fn with_classifier(mut self, classifier: Classifier) -> Self {
        self.classifier = classifier;
        self
    }

    /// Runs until `stop` is cancelled or the bound is reached, then drains, commits and leaves the group.
    ///
    /// Dropping the returned future stops the consumer too, but waits for nothing.
    ///
    /// # Errors
    /// When the cluster cannot be reached at the start, or the client fails for good.
    pub async fn run(self, stop: CancellationToken) -> Result<RunReport, ConsumerError> {
        let health = Part::new(
            self.health.clone(),
            readiness::COMPONENT,
            &self.settings.group,
        );
        let ran = self.run_once_free(&health, stop).await;
        let failure = ran.as_ref().err().map(ToString::to_string);
        health.end(failure.as_deref());
        ran
    }

    /// Runs once nobody else has the member's instance id: brokers that assign (KIP-848) refuse it for as long as the session of a
    /// member with this id lasts, as that of one that was killed does.
    async fn run_once_free(
        self,
        health: &Part,
        stop: CancellationToken,
    ) -> Result<RunReport, ConsumerError> {
        let mut is_said = false;
        loop {
            let next = Self {
                kafka: self.kafka.clone(),
                settings: self.settings.clone(),
                handler: self.handler.clone(),
                publisher: self.publisher.clone(),
                health: self.health.clone(),
                classifier: self.classifier.clone(),
            };
            let (group, instance) = (&self.settings.group, &self.settings.instance_id);
            match next.run_as(health.clone(), stop.clone()).await {
                Err(ConsumerError::InstanceInUse) => {}
                ran => return ran,
            }
            let instance = instance.as_deref().unwrap_or_default();
            let reason = format!(
                "another member of the group has the instance id {instance}: waiting until it leaves, or until its session ends if \
                 it was killed"
            );
            if !std::mem::replace(&mut is_said, true) {
                tracing::warn!(%group, "{reason}");
            }
            health.set_ready(readiness::COMPONENT, Err(reason));
            tokio::select! {
                () = stop.cancelled() => return Ok(RunReport::of_nothing()),
                () = tokio::time::sleep(INSTANCE_INTERVAL) => {}
            }
        }
    }

    async fn run_as(
        self,
        health: Part,
        stop: CancellationToken,
    ) -> Result<RunReport, ConsumerError> {
        let readiness = Readiness::joining(health.clone());
        let admin = prepare::topics(&self.kafka, &self.settings).await?;
        let followed = commands::follow(&self.kafka, &self.settings, &readiness, &stop).await?;
        let (commands, state) = match followed {
            Followed::Read(commands, state) => (Some(*commands), state),
            Followed::Unusable => (None, ControlState::default()),
            Followed::Stopped => return Ok(RunReport::of_nothing()),
        };
        let (control, notes) = Control::new(state);
        // Without a topic there is nobody to tell.
        control.set_muted(!commands.as_ref().is_some_and(Commands::has_topic));
        let notes = tokio::spawn(control::write_notes(
            self.settings.group.clone(),
            self.kafka.clone(),
            notes,
        ));
        let config = prepare::client(&self.kafka, &self.settings)?;
        let dead_letters =
            DeadLetterWriter::new(&self.settings, self.kafka.clone(), health.clone());
        let scope = Scope {
            group: self.settings.group.clone(),
            publisher: self.publisher,
            handler_timeout: self.settings.handler_timeout,
        };
        let handler = Limited::new(self.handler, self.settings.handler_timeout);
        let engine = Arc::new(Engine::new(
            self.settings,
            scope,
            self.classifier,
            dead_letters,
            health,
            readiness,
            control,
        ));
        let workers = spawn_workers(&engine, &handler);
        let cleaning = parking::clean::spawn(&engine, self.kafka.clone(), admin.clone());
        let watching = own_topics::watch::spawn(&engine, admin);
        let (polling, stop_polling) = spawn_poll_thread(&engine, config, self.kafka, commands)?;
        let ended = until_ended(&engine, polling, stop_polling, stop).await;
        drop((cleaning, watching));
        finish_workers(&engine, workers).await;
        engine.control.close();
        let last_words = left_until(engine.ending.begin().whole).max(LAST_WORDS_MIN);
        // What is not written by then would only tell its author late.
        let (_, unsent) = tokio::join!(
            tokio::time::timeout(last_words, notes),
            engine.dead_letters.flush(last_words)
        );
        let ended = ended?;
        let clean = ended.clean && unsent == 0 && engine.unfinished() == 0;
        Ok(engine.report(ended.stopped, clean))
    }
}

fn spawn_workers<H>(engine: &Arc<Engine>, handler: &H) -> JoinSet<()>
where
    H: tower::Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
    H::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    H::Future: Send,
{
    let mut workers = JoinSet::new();
    for inbox in &engine.workers {
        let permits = Permits::new(Arc::clone(&engine.permits));
        let worker = worker::run(
            handler.clone(),
            Arc::clone(engine),
            Arc::clone(inbox),
            permits,
        );
        let (engine, inbox) = (Arc::clone(engine), Arc::clone(inbox));
        let worker = async move {
            // However the task ends, nobody waits for its answers afterwards.
            let _open = worker::OpenInbox(inbox);
            // Panics of a service's code are outcomes; what is left is a bug of ours, and its lanes would stand still.
            if AssertUnwindSafe(worker).catch_unwind().await.is_err() {
                engine.fail("a worker panicked");
            }
        };
        // Many handlers share the worker's task: tokio's budget per task would make them look as if they were waiting.
        workers.spawn(tokio::task::unconstrained(worker));
    }
    workers
}

/// Tells the poll thread to stop when the run is dropped.
struct StopPolling {
    engine: Arc<Engine>,
    stop: Arc<AtomicBool>,
}

impl Drop for StopPolling {
    fn drop(&mut self) {
        self.stop.store(true, Memory::Relaxed);
        self.engine.wake_intake();
    }
}

/// What is heard of the poll thread.
struct Polling {
    /// How the run ended; told before the client is given back.
    ended: oneshot::Receiver<Result<Ended, ConsumerError>>,
    /// The client is given back.
    closed: oneshot::Receiver<()>,
}

fn spawn_poll_thread(
    engine: &Arc<Engine>,
    config: rdkafka::ClientConfig,
    kafka: KafkaConfig,
    commands: Option<Commands>,
) -> Result<(Polling, StopPolling), ConsumerError> {
    let (tell_ended, ended) = oneshot::channel();
    let (is_open, closed) = oneshot::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let stop_polling = StopPolling {
        engine: Arc::clone(engine),
        stop: Arc::clone(&stop),
    };
    let engine = Arc::clone(engine);
    let runtime = tokio::runtime::Handle::current();
    let poll = move || {
        // Dropped with the thread's end, whatever that is.
        let _is_open: oneshot::Sender<()> = is_open;
        poll::run(engine, &config, &kafka, commands, runtime, stop, tell_ended);
    };
    let spawned = std::thread::Builder::new()
        .name("evenkeel-poll".to_owned())
        .spawn(poll);
    spawned.map_err(|error| ConsumerError::Fatal(format!("no thread for the client: {error}")))?;
    Ok((Polling { ended, closed }, stop_polling))
}

/// How often an instance id is tried that another member has.
const INSTANCE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the last notes and dead letters may take after an end that took all of its time.
const LAST_WORDS_MIN: Duration = Duration::from_millis(100);

/// Waits for the end of the run, by itself or because it is to stop, and then for the client to be given back, in all no longer than the
/// end may take.
async fn until_ended(
    engine: &Engine,
    polling: Polling,
    stop_polling: StopPolling,
    stop: CancellationToken,
) -> Result<Ended, ConsumerError> {
    tokio::select! {
        () = stop.cancelled() => {}
        () = engine.ending.begun() => {}
    }
    let deadline = engine.ending.begin().whole.into();
    drop(stop_polling);
    let ended = match tokio::time::timeout_at(deadline, polling.ended).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) => Err(ConsumerError::Fatal("the poll thread panicked".to_owned())),
        Err(_) => Ok(Ended {
            stopped: Stopped::Requested,
            clean: false,
        }),
    };
    if tokio::time::timeout_at(deadline, polling.closed)
        .await
        .is_err()
    {
        tracing::error!(
            group = engine.group,
            "the client cannot leave the group in time and is given up; the group waits for its session to end"
        );
    }
    ended
}

/// Ends the workers; what still runs was given its time in the drain. A handler that blocks its thread cannot be ended and is
/// not waited for.
async fn finish_workers(engine: &Engine, mut workers: JoinSet<()>) {
    engine
        .workers
        .iter()
        .for_each(|worker| worker.send(worker::Message::Close));
    let idle = async { while workers.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_millis(100), idle)
        .await
        .is_err()
    {
        workers.abort_all();
        workers.detach_all();
    }
}

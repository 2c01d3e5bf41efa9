//! A member of a consumer group: its builder, its run, and the threads and tasks of a run.
//!
//! A run begins in this order, so that nothing handles a record before its protection exists: the
//! group's own topics, the state of the control topic (pauses), the workers, the tasks for
//! retention and own topics, and only then the thread that joins the group. It ends in the reverse
//! order: the poll thread drains, commits and closes the client; then the workers end; then the
//! last dead letters and notes are flushed. One deadline bounds the whole
//! ([`ConsumerSettings::drain_timeout`]).

use super::group_topics::watch;
use super::poll::operator::control_topic::{self, ControlTopicReader, Followed};
use super::poll::{self, Ended};
use super::report::{ConsumerError, RunReport, Stopped};
use super::retry_reader::retention;
use super::settings::{Assignment, ConsumerSettings};
use super::shared::Shared;
use super::shared::concurrency::Permits;
use super::shared::control::{self, Control};
use super::shared::dead_letters::DeadLetterWriter;
use super::shared::mailbox::{Message, OpenMailbox};
use super::shared::readiness::{self, Readiness};
use super::shared::stop_deadlines::left_until;
use super::{startup, worker};
use crate::control::ControlState;
use crate::handler::{
    Classifier, Delivery, DeliveryScope, Limited, Outcome, Router, default_classifier,
};
use crate::kafka::{ConfigError, KafkaConfig};
use crate::publisher::Publisher;
use crate::telemetry::{Health, Reporter};
use futures_util::FutureExt;
use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Memory};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A member of a consumer group.
///
/// `H` is the service that handles records: a [`Router`], or one wrapped in layers of `tower`.
/// Create one consumer for each member; it is used up by [`Consumer::run`]. Several consumers may
/// run in one process, in the same group or in different ones.
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
///
/// # A handler of one's own
/// Any cloneable [`tower::Service`] of [`Delivery`] is a handler. The consumer clones it for each
/// worker and each retry, calls `poll_ready` before each `call`, and polls its futures inside of a
/// worker's task: a service must not block. An error is classified like that of a handler
/// ([`Consumer::with_classifier`]); a panic dead-letters the record.
///
/// ```
/// use evenkeel::consumer::{Consumer, ConsumerSettings};
/// use evenkeel::handler::{Delivery, Outcome};
/// use evenkeel::kafka::KafkaConfig;
/// use std::convert::Infallible;
///
/// async fn audit(delivery: Delivery) -> Result<Outcome, Infallible> {
///     match delivery.record.value() {
///         Some(_) => Ok(Outcome::Done),
///         None => Ok(Outcome::Ignored),
///     }
/// }
///
/// let settings = ConsumerSettings::new("audit", ["orders"]);
/// let kafka = KafkaConfig::new("localhost:9092");
/// let consumer = Consumer::new(kafka, settings, tower::service_fn(audit))?;
/// # drop(consumer);
/// # Ok::<(), evenkeel::kafka::ConfigError>(())
/// ```
#[must_use = "a consumer does nothing until it runs"]
pub struct Consumer<H> {
    kafka: KafkaConfig,
    settings: ConsumerSettings,
    handler: H,
    publisher: Option<Publisher>,
    health: Health,
    classifier: Classifier,
}

impl<H> fmt::Debug for Consumer<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("kafka", &self.kafka)
            .field("settings", &self.settings)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

impl<H> Consumer<H>
where
    H: tower::Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
    H::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    H::Future: Send,
{
    /// Creates a member that calls `handler`, usually a [`Router`], for every record. The handler
    /// may be wrapped in layers of `tower` whose services are `Clone`. A record that waits in a
    /// layer holds a permit of [`concurrency`](ConsumerSettings::concurrency).
    ///
    /// Connects to nothing: [`Consumer::run`] does.
    ///
    /// # Errors
    /// Returns an error if a setting cannot be used, or if the handler is a [`Router`] that is
    /// incomplete. A router inside of layers is not visible here: call [`Router::validate`] before
    /// it is wrapped.
    pub fn new(
        kafka: KafkaConfig,
        mut settings: ConsumerSettings,
        handler: H,
    ) -> Result<Self, ConfigError> {
        kafka.validate()?;
        // As a property of the client, it has the same meaning.
        let protocol = kafka.properties.get("group.protocol");
        if protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer")) {
            settings.assignment = Assignment::Broker;
        }
        settings.validate()?;
        // A router inside of layers is not visible here. Its owner can call `Router::validate`.
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

    /// Provides handlers with a publisher: [`Context::publish`](crate::handler::Context::publish).
    ///
    /// The publisher is shared: the service may use it elsewhere too. The consumer does not flush
    /// or close it at its end.
    pub fn with_publisher(mut self, publisher: Publisher) -> Self {
        self.publisher = Some(publisher);
        self
    }

    /// Reports readiness and liveness to `health`, under names that end with the group: `consumer
    /// payments`, and `consumer payments #2` for a second member of the group in the same process.
    /// Several consumers may report to one health. At the end of the run its names are removed;
    /// after an error `consumer payments` stays, as not ready.
    ///
    /// ```
    /// use evenkeel::consumer::{Consumer, ConsumerSettings};
    /// # use evenkeel::event::Record;
    /// use evenkeel::handler::Router;
    /// use evenkeel::kafka::KafkaConfig;
    /// use evenkeel::telemetry::Health;
    ///
    /// # let router = Router::new().raw(async |record: Record| println!("{record:?}"));
    /// let health = Health::default();
    /// let settings = ConsumerSettings::new("payments", ["shop.orders"]);
    /// let consumer = Consumer::new(KafkaConfig::new("localhost:9092"), settings, router)?
    ///     .with_health(health.clone());
    /// // Serve `health` as `/readyz` and `/livez`: for example with a `Daemon`.
    /// # drop(consumer);
    /// # Ok::<(), evenkeel::kafka::ConfigError>(())
    /// ```
    pub fn with_health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Replaces the classifier of errors that handlers did not classify. It can delegate unknown
    /// errors to [`default_classifier`].
    ///
    /// It is called on a worker for each failed attempt whose error has no class yet, and must not
    /// block. If it panics, the record is dead-lettered.
    ///
    /// ```
    /// use evenkeel::consumer::{Consumer, ConsumerSettings};
    /// # use evenkeel::event::Record;
    /// use evenkeel::handler::{Class, Router, default_classifier};
    /// use evenkeel::kafka::KafkaConfig;
    /// use std::sync::Arc;
    ///
    /// # let router = Router::new().raw(async |record: Record| println!("{record:?}"));
    /// let known = default_classifier();
    /// let settings = ConsumerSettings::new("payments", ["shop.orders"]);
    /// let consumer = Consumer::new(KafkaConfig::new("localhost:9092"), settings, router)?
    ///     // A number that cannot be parsed will never be one.
    ///     .with_classifier(Arc::new(move |error| {
    ///         match error.downcast_ref::<std::num::ParseIntError>() {
    ///             Some(_) => Class::Permanent,
    ///             None => known(error),
    ///         }
    ///     }));
    /// # drop(consumer);
    /// # Ok::<(), evenkeel::kafka::ConfigError>(())
    /// ```
    pub fn with_classifier(mut self, classifier: Classifier) -> Self {
        self.classifier = classifier;
        self
    }

    /// Runs until `stop` is cancelled or the bound is reached, then drains running handlers,
    /// commits and leaves the group, within [`drain_timeout`](ConsumerSettings::drain_timeout).
    ///
    /// Must be called inside a Tokio runtime, on which the handlers run. The client and its commits
    /// have threads of their own.
    ///
    /// # Cancellation
    /// If the returned future is dropped, the consumer stops too, but nothing waits for its drain:
    /// running handlers are dropped at their next await, and unsettled records are redelivered.
    /// Cancel `stop` and await the report instead.
    ///
    /// # Errors
    /// Returns an error if a setting or a topic cannot be used, the cluster cannot be reached
    /// within [`startup_timeout`](ConsumerSettings::startup_timeout), or the client fails for good;
    /// see [`ConsumerError`]. A cluster that fails later is waited for, and the health reports it.
    ///
    /// # Examples
    /// ```no_run
    /// use evenkeel::consumer::{Consumer, ConsumerSettings};
    /// # use evenkeel::event::Record;
    /// use evenkeel::handler::Router;
    /// use evenkeel::kafka::KafkaConfig;
    /// use evenkeel::signals::StopRequests;
    /// use tokio_util::sync::CancellationToken;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// # let router = Router::new().raw(async |record: Record| println!("{record:?}"));
    /// let settings = ConsumerSettings::new("audit", ["orders"]);
    /// let consumer = Consumer::new(KafkaConfig::from_env()?, settings, router)?;
    /// let stop = CancellationToken::new();
    /// let running = tokio::spawn(consumer.run(stop.clone()));
    /// // The first SIGTERM or SIGINT requests a stop.
    /// StopRequests::listen()?.next().await;
    /// stop.cancel();
    /// let report = running.await??;
    /// println!("{} records settled", report.settled);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run(self, stop: CancellationToken) -> Result<RunReport, ConsumerError> {
        let health = Reporter::new(
            self.health.clone(),
            readiness::COMPONENT,
            &self.settings.group,
        );
        let ran = self.run_once_free(&health, stop).await;
        let failure = ran.as_ref().err().map(|error| match error {
            ConsumerError::Thread { source, .. } => format!("{error}: {source}"),
            error => error.to_string(),
        });
        health.end(failure.as_deref());
        ran
    }

    /// Runs, and retries while another member has the instance id. Brokers that assign (KIP-848)
    /// refuse the id while the session of its previous owner lasts, also after that was killed.
    async fn run_once_free(
        self,
        health: &Reporter,
        stop: CancellationToken,
    ) -> Result<RunReport, ConsumerError> {
        let mut is_logged = false;
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
            if !std::mem::replace(&mut is_logged, true) {
                tracing::warn!(%group, "{reason}");
            }
            health.set_ready(readiness::COMPONENT, Err(reason));
            tokio::select! {
                () = stop.cancelled() => return Ok(RunReport::new(Stopped::Requested)),
                () = tokio::time::sleep(INSTANCE_INTERVAL) => {}
            }
        }
    }

    /// Runs once: from the checks of the start to the last note. `health` outlives several runs of
    /// a member that waits for its instance id.
    async fn run_as(
        self,
        health: Reporter,
        stop: CancellationToken,
    ) -> Result<RunReport, ConsumerError> {
        let readiness = Readiness::joining(health.clone());
        let admin = startup::topics(&self.kafka, &self.settings).await?;
        let followed =
            control_topic::follow(&self.kafka, &self.settings, &readiness, &stop).await?;
        let (commands, state) = match followed {
            Followed::Read(commands, state) => (Some(*commands), state),
            Followed::Unusable => (None, ControlState::default()),
            Followed::Stopped => return Ok(RunReport::new(Stopped::Requested)),
        };
        let (control, notes) = Control::new(state);
        // Without a control topic, notes are discarded.
        control.set_muted(!commands.as_ref().is_some_and(ControlTopicReader::has_topic));
        let mut notes = tokio::spawn(control::write_notes(
            self.settings.group.clone(),
            self.kafka.clone(),
            notes,
        ));
        let config = startup::client(&self.kafka, &self.settings)?;
        let dead_letters =
            DeadLetterWriter::new(&self.settings, self.kafka.clone(), health.clone());
        let scope = DeliveryScope {
            group: self.settings.group.clone(),
            publisher: self.publisher,
            handler_timeout: self.settings.handler_timeout,
        };
        let handler = Limited::new(self.handler, self.settings.handler_timeout);
        let shared = Arc::new(Shared::new(
            self.settings,
            scope,
            self.classifier,
            dead_letters,
            health,
            readiness,
            control,
        ));
        let workers = spawn_workers(&shared, &handler);
        let cleaning = retention::spawn(&shared, self.kafka.clone(), admin.clone());
        let watching = watch::spawn(&shared, admin);
        let (polling, stop_polling) = spawn_poll_thread(&shared, config, self.kafka, commands)?;
        let ended = until_ended(&shared, polling, stop_polling, stop).await;
        drop((cleaning, watching));
        finish_workers(&shared, workers).await;
        shared.control.close();
        let last_writes = left_until(shared.end.begin().whole).max(LAST_WRITES_MIN);
        // Later notes would only arrive late.
        let (_, unsent) = tokio::join!(
            tokio::time::timeout(last_writes.min(LAST_NOTES_MAX), &mut notes),
            shared.dead_letters.flush(last_writes)
        );
        notes.abort();
        let ended = ended?;
        let clean = ended.clean && unsent == 0 && shared.unfinished() == 0;
        Ok(shared.report(ended.stopped, clean))
    }
}

/// Starts one task per mailbox. A worker that panics, which is a bug of this library, ends the run:
/// its lanes would stop unnoticed. Its mailbox closes, so that no sender waits for an answer.
fn spawn_workers<H>(shared: &Arc<Shared>, handler: &H) -> JoinSet<()>
where
    H: tower::Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
    H::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    H::Future: Send,
{
    let mut workers = JoinSet::new();
    for inbox in &shared.workers {
        let permits = Permits::new(Arc::clone(&shared.permits));
        let worker = worker::run(
            handler.clone(),
            Arc::clone(shared),
            Arc::clone(inbox),
            permits,
        );
        let (shared, inbox) = (Arc::clone(shared), Arc::clone(inbox));
        let worker = async move {
            // After the task has ended, no sender waits for its answers.
            let _open = OpenMailbox(inbox);
            // Panics of the service's code are outcomes. Any other panic is a bug of this library,
            // and the worker's lanes would stop.
            if AssertUnwindSafe(worker).catch_unwind().await.is_err() {
                shared.abort("a worker panicked");
            }
        };
        // Many handlers share the worker's task: tokio's budget per task would make them appear
        // pending.
        workers.spawn(tokio::task::unconstrained(worker));
    }
    workers
}

/// Stops the poll thread when the run is dropped, or when its end was requested. The thread drains,
/// commits and closes its client either way.
struct StopPolling {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
}

impl Drop for StopPolling {
    fn drop(&mut self) {
        self.stop.store(true, Memory::Relaxed);
        self.shared.intake.wake();
    }
}

/// The signals of the poll thread.
struct Polling {
    /// How the run ended. Sent before the client is closed.
    ended: oneshot::Receiver<Result<Ended, ConsumerError>>,
    /// Dropped after the client is closed.
    closed: oneshot::Receiver<()>,
}

/// Starts the thread that owns the client. Returns the signals of its end and the guard that stops
/// it.
fn spawn_poll_thread(
    shared: &Arc<Shared>,
    config: rdkafka::ClientConfig,
    kafka: KafkaConfig,
    commands: Option<ControlTopicReader>,
) -> Result<(Polling, StopPolling), ConsumerError> {
    let (report_end, ended) = oneshot::channel();
    let (is_open, closed) = oneshot::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let stop_polling = StopPolling {
        shared: Arc::clone(shared),
        stop: Arc::clone(&stop),
    };
    let shared = Arc::clone(shared);
    let runtime = tokio::runtime::Handle::current();
    let poll = move || {
        // Dropped at the end of the thread, also after a panic.
        let _is_open: oneshot::Sender<()> = is_open;
        poll::run(shared, &config, &kafka, commands, runtime, stop, report_end);
    };
    let spawned = std::thread::Builder::new()
        .name(POLL_THREAD.to_owned())
        .spawn(poll);
    spawned.map_err(|source| ConsumerError::Thread {
        name: POLL_THREAD,
        source,
    })?;
    Ok((Polling { ended, closed }, stop_polling))
}

/// The name of the thread that owns the client.
const POLL_THREAD: &str = "evenkeel-poll";

/// How often the run is retried while another member has the instance id.
const INSTANCE_INTERVAL: Duration = Duration::from_secs(1);

/// The most time for the last notes: they are outdated soon.
const LAST_NOTES_MAX: Duration = Duration::from_secs(2);

/// The least time for the last notes and dead letters, if the drain used up all of its time.
const LAST_WRITES_MIN: Duration = Duration::from_millis(100);

/// Waits for the end of the run, by itself or on request, and then until the client is closed, both
/// within the deadline of the stop. A client that cannot be closed in time is abandoned with its
/// thread: brokers that do not answer must not hold up the process.
async fn until_ended(
    shared: &Shared,
    polling: Polling,
    stop_polling: StopPolling,
    stop: CancellationToken,
) -> Result<Ended, ConsumerError> {
    tokio::select! {
        () = stop.cancelled() => {}
        () = shared.end.begun() => {}
    }
    let deadline = shared.end.begin().whole.into();
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
            group = shared.group,
            "the client cannot leave the group in time and is abandoned; the group waits for its session to end"
        );
    }
    ended
}

/// Ends the workers. Running handlers had their time in the drain. A handler that blocks its thread
/// cannot be ended; its worker is detached. Every other handler is dropped at its await.
async fn finish_workers(shared: &Shared, mut workers: JoinSet<()>) {
    shared
        .workers
        .iter()
        .for_each(|worker| worker.send(Message::Close));
    let idle = async { while workers.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_millis(100), idle)
        .await
        .is_err()
    {
        workers.abort_all();
        workers.detach_all();
    }
}

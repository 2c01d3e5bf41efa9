//! A member of a consumer group: its builder, its run, and the threads and tasks of a run.
//!
//! A run begins in this order, so that nothing handles a record before its protection exists: the
//! group's own topics, the state of the control topic (pauses), the workers, the tasks for
//! retention and own topics, and only then the thread that joins the group. It ends in the reverse
//! order: the poll thread drains, commits and closes the client; then the workers end; then the
//! last dead letters and notes are flushed. One deadline bounds the whole
//! ([`ConsumerSettings::drain_timeout`]).

mod threads;

use crate::consumer::group_topics::periodic_check;
use crate::consumer::member::threads::{
    finish_workers, spawn_poll_thread, spawn_workers, wait_for_end,
};
use crate::consumer::poll::operator::control_topic::{
    self, ControlTopicAtStart, ControlTopicReader,
};
use crate::consumer::report::{ConsumerError, RunReport, Stopped};
use crate::consumer::retry_reader::retention;
use crate::consumer::settings::{Assignment, ConsumerSettings};
use crate::consumer::shared::Shared;
use crate::consumer::shared::control::{self, Control};
use crate::consumer::shared::dead_letters::DeadLetterWriter;
use crate::consumer::shared::readiness::{self, Readiness};
use crate::consumer::shared::run_end::left_until;
use crate::consumer::startup;
use crate::control::ControlState;
use crate::handler::{
    Classifier, Delivery, DeliveryScope, Limited, Outcome, Router, default_classifier,
};
use crate::kafka::{ConfigError, KafkaConfig};
use crate::publisher::Publisher;
use crate::telemetry::{Health, Reporter};
use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the run is retried while another member has the instance id.
const INSTANCE_INTERVAL: Duration = Duration::from_secs(1);

/// The most time for the last notes: they are outdated soon.
const LAST_NOTES_MAX: Duration = Duration::from_secs(2);

/// The least time for the last notes and dead letters, if the drain used up all of its time.
const LAST_WRITES_MIN: Duration = Duration::from_millis(100);

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
            settings: settings.with_bounded_durations(),
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
        let result = self.run_when_instance_is_free(&health, stop).await;
        let failure = result.as_ref().err().map(|error| match error {
            ConsumerError::Thread { source, .. } => format!("{error}: {source}"),
            error => error.to_string(),
        });
        health.end(failure.as_deref());
        result
    }

    /// Runs, and retries while another member has the instance id. Brokers that assign (KIP-848)
    /// refuse the id while the session of its previous owner lasts, also after that was killed.
    async fn run_when_instance_is_free(
        self,
        health: &Reporter,
        stop: CancellationToken,
    ) -> Result<RunReport, ConsumerError> {
        let mut is_logged = false;
        loop {
            let attempt = Self {
                kafka: self.kafka.clone(),
                settings: self.settings.clone(),
                handler: self.handler.clone(),
                publisher: self.publisher.clone(),
                health: self.health.clone(),
                classifier: self.classifier.clone(),
            };
            let (group, instance) = (&self.settings.group, &self.settings.instance_id);
            match attempt.run_once(health.clone(), stop.clone()).await {
                Err(ConsumerError::InstanceInUse) => {}
                result => return result,
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
    async fn run_once(
        self,
        health: Reporter,
        stop: CancellationToken,
    ) -> Result<RunReport, ConsumerError> {
        let readiness = Readiness::joining(health.clone());
        let admin = startup::prepare_topics(&self.kafka, &self.settings).await?;
        let at_start =
            control_topic::read_at_start(&self.kafka, &self.settings, &readiness, &stop).await?;
        let (commands, state) = match at_start {
            ControlTopicAtStart::Read(commands, state) => (Some(*commands), state),
            ControlTopicAtStart::Unusable => (None, ControlState::default()),
            ControlTopicAtStart::Stopped => return Ok(RunReport::new(Stopped::Requested)),
        };
        let (control, notes) = Control::new(state);
        // Without a control topic, notes are discarded.
        control.set_muted(!commands.as_ref().is_some_and(ControlTopicReader::has_topic));
        let mut notes = tokio::spawn(control::write_notes(
            self.settings.group.clone(),
            self.kafka.clone(),
            notes,
        ));
        let config = startup::client_config(&self.kafka, &self.settings)?;
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
        let retention_task = retention::spawn(&shared, self.kafka.clone(), admin.clone());
        let topics_check = periodic_check::spawn(&shared, admin);
        let (polling, stop_polling) = spawn_poll_thread(&shared, config, self.kafka, commands)?;
        let ended = wait_for_end(&shared, polling, stop_polling, stop).await;
        drop((retention_task, topics_check));
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

//! The relay as a service configures and runs it.

use super::report::RelayReport;
use super::run::RelayTask;
use super::settings::RelaySettings;
use crate::outbox::{OutboxError, OutboxStore};
use crate::publisher::Publisher;
use crate::telemetry::Health;
use std::fmt;
use tokio_util::sync::CancellationToken;

/// Publishes the committed events of an outbox.
///
/// Any number of relays may run on one outbox, in one process or in several: they share its keys. A
/// relay is one task; it publishes many keys at a time and one event of a key at a time. It waits
/// for a store or brokers that do not answer, and reports a missing store as not ready in
/// [`Health`].
///
/// # Examples
/// In a program of its own:
/// ```no_run
/// use evenkeel::kafka::KafkaConfig;
/// use evenkeel::outbox::{OutboxStore, Relay};
/// use evenkeel::publisher::{Publisher, PublisherSettings};
/// use tokio_util::sync::CancellationToken;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = OutboxStore::open("postgres://shop@localhost/shop").await?;
/// let settings = PublisherSettings::new("/shop/relay");
/// let publisher = Publisher::new(&KafkaConfig::from_env()?, settings)?;
/// let report = Relay::new(store, publisher).run(CancellationToken::new()).await?;
/// println!("{} events published", report.published);
/// # Ok(())
/// # }
/// ```
///
/// Beside the handlers of a service, with one deadline for the whole stop:
/// ```no_run
/// # use evenkeel::outbox::{OutboxError, OutboxStore, Relay};
/// # use evenkeel::publisher::Publisher;
/// # use tokio_util::sync::CancellationToken;
/// # async fn example(store: OutboxStore, publisher: Publisher) -> Result<(), OutboxError> {
/// let (stop, drain_stop) = (CancellationToken::new(), CancellationToken::new());
/// let relay = Relay::new(store, publisher).run_then_drain(stop.clone(), drain_stop.clone());
/// let relay = tokio::spawn(relay);
/// // The handlers have ended: publish what they have written, for ten seconds at most. If another
/// // relay is registered, it does so, and this one ends at once.
/// stop.cancel();
/// tokio::spawn(async move {
///     tokio::time::sleep(std::time::Duration::from_secs(10)).await;
///     drain_stop.cancel();
/// });
/// let report = relay.await.expect("the relay does not panic")?;
/// println!("{} events published", report.published);
/// # Ok(())
/// # }
/// ```
#[must_use = "a relay publishes nothing until it runs"]
pub struct Relay {
    store: OutboxStore,
    publisher: Publisher,
    settings: RelaySettings,
    health: Health,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Relay {
    /// Creates a relay from this outbox to this publisher, which other parts may use too. The
    /// publisher must have `enable.idempotence` and `acks=all`.
    pub fn new(store: impl Into<OutboxStore>, publisher: Publisher) -> Self {
        Self {
            store: store.into(),
            publisher,
            settings: RelaySettings::default(),
            health: Health::default(),
        }
    }

    /// Sets the relay's settings.
    pub fn with_settings(mut self, settings: RelaySettings) -> Self {
        self.settings = settings.bounded();
        self
    }

    /// Reports to `health` whether the relay reaches its store, as the component `relay`, or `relay
    /// #2` beside another relay.
    pub fn with_health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Publishes until `stop`, then waits for acknowledgements, up to the drain timeout, and
    /// releases its slots. It ends within [`RelaySettings::stop_within`] after `stop`.
    ///
    /// If the store or the brokers do not answer, the relay waits for them without a limit.
    /// Dropping the future ends the relay at once: its slots are free when their leases expire, and
    /// events without an acknowledgement are published again.
    ///
    /// # Errors
    /// [`OutboxError::Setting`] for invalid settings, [`OutboxError::Producer`] if the producer
    /// failed for good: the process should stop and be restarted.
    pub async fn run(self, stop: CancellationToken) -> Result<RelayReport, OutboxError> {
        self.settings.validate()?;
        self.task().run(&stop, false).await
    }

    /// Publishes until only held keys are left, or until `stop`. If a topic refuses many keys, all
    /// its keys are held. For jobs that must end, such as a migration or a test; events that are
    /// committed meanwhile are published too.
    ///
    /// # Errors
    /// The errors of [`Relay::run`].
    pub async fn drain(self, stop: CancellationToken) -> Result<RelayReport, OutboxError> {
        self.settings.validate()?;
        self.task().run(&stop, true).await
    }

    /// Publishes until `stop`, then the remaining events except those of held keys, until
    /// `drain_stop`. Then no more rows are taken, the acknowledgements of the rows taken before are
    /// awaited, and their rows deleted, within [`RelaySettings::stop_within`].
    ///
    /// If another relay is registered in the store when `stop` is cancelled, or at a renewal after
    /// it, this one hands over: it takes no more rows, deletes what is acknowledged, releases its
    /// slots and ends, and the other publishes the rest. It logs that, and reports it as
    /// [`RelayReport::handed_over`]. Relays that stop at the same time do not all hand over: the
    /// last one publishes the rest. A relay that only waits for acknowledgements is not registered
    /// any more, but one that ends without a drain, by [`Relay::run`] or by `drain_stop`, may still
    /// count for the time of a call of the store. A relay that was killed counts as registered
    /// until its registration expires, up to a lease later. The rest then waits for the next start.
    ///
    /// Use it in a service that runs a relay beside its handlers: the events of the last handlers
    /// are still published. Without another relay, other writers may fill the outbox faster than it
    /// empties, so cancel `drain_stop` before your deadline, by `stop_within`. A process that ends
    /// before the relay leaves published events in the outbox, and they are published again.
    ///
    /// # Errors
    /// The errors of [`Relay::run`].
    pub async fn run_then_drain(
        self,
        stop: CancellationToken,
        drain_stop: CancellationToken,
    ) -> Result<RelayReport, OutboxError> {
        self.settings.validate()?;
        self.task().run_then_drain(&stop, &drain_stop).await
    }

    /// The task of this relay.
    fn task(self) -> RelayTask {
        let store = self.store.port();
        RelayTask::new(store, self.publisher, self.settings, self.health)
    }
}

//! The relay: takes committed events to Kafka, in order per key, and deletes them once the brokers have them.
//!
//! Owns one task. `window` and `shares` decide, pure; `run` asks the store and the publisher and does as they say. Several
//! relays on one store share its slots out among them; one that is killed is taken over when its leases end.

mod facts;
mod held;
mod run;
mod settings;
mod shares;
mod window;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use settings::RelaySettings;

use super::{OutboxError, OutboxStore};
use crate::publisher::Publisher;
use crate::telemetry::Health;
use run::Running;
use tokio_util::sync::CancellationToken;

/// Publishes what is committed in an outbox.
///
/// # Examples
/// ```no_run
/// use evenkeel::kafka::KafkaConfig;
/// use evenkeel::outbox::{OutboxStore, Relay};
/// use evenkeel::publisher::{Publisher, PublisherSettings};
/// use tokio_util::sync::CancellationToken;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = OutboxStore::open("postgres://shop@localhost/shop").await?;
/// let publisher = Publisher::new(&KafkaConfig::from_env()?, PublisherSettings::new("/shop/relay"))?;
/// let report = Relay::new(store, publisher).run(CancellationToken::new()).await?;
/// println!("{} events published", report.published);
/// # Ok(())
/// # }
/// ```
pub struct Relay {
    store: OutboxStore,
    publisher: Publisher,
    settings: RelaySettings,
    health: Health,
}

/// What a relay has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayReport {
    /// Events that the brokers acknowledged.
    pub published: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Keys of this relay that wait because their first event was refused.
    pub held_keys: usize,
    /// Events that had no acknowledgement when the stop's time was over; they are still in the outbox.
    pub unacknowledged: usize,
}

impl Relay {
    /// A relay from this outbox to this publisher, which others may use as well. Its `enable.idempotence` and `acks=all` are
    /// taken for granted.
    pub fn new(store: impl Into<OutboxStore>, publisher: Publisher) -> Self {
        Self {
            store: store.into(),
            publisher,
            settings: RelaySettings::default(),
            health: Health::default(),
        }
    }

    /// The same with other settings.
    pub fn with_settings(mut self, settings: RelaySettings) -> Self {
        self.settings = settings.bounded();
        self
    }

    /// The same, reporting to `health` whether it reaches its store: component `relay`, or `relay #2` beside another relay.
    pub fn with_health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Publishes until `stop`, then waits for what is under way, up to the drain timeout, and gives its slots back.
    ///
    /// A store that does not answer and brokers that do not are waited for, for as long as it takes.
    ///
    /// # Errors
    /// [`OutboxError::Setting`] for settings that cannot work, [`OutboxError::Producer`] when the producer failed for good:
    /// the process should end and start again.
    pub async fn run(self, stop: CancellationToken) -> Result<RelayReport, OutboxError> {
        self.settings.validate()?;
        Running::new(self).run(&stop, false).await
    }

    /// Publishes until nothing is left but keys that are held, or until `stop`. Of a topic that refuses many keys, all are held.
    ///
    /// # Errors
    /// As for [`Relay::run`].
    pub async fn run_until_empty(
        self,
        stop: CancellationToken,
    ) -> Result<RelayReport, OutboxError> {
        self.settings.validate()?;
        Running::new(self).run(&stop, true).await
    }

    /// Publishes until `stop`, then what is left but keys that are held, until `late`: what is under way then is not waited for.
    ///
    /// So a service ends that runs a relay beside its handlers: what the last of them published leaves with it, and one deadline
    /// holds for all parts of its stop.
    ///
    /// # Errors
    /// As for [`Relay::run`].
    pub async fn run_then_empty(
        self,
        stop: CancellationToken,
        late: CancellationToken,
    ) -> Result<RelayReport, OutboxError> {
        self.settings.validate()?;
        Running::new(self).run_then_empty(&stop, &late).await
    }
}

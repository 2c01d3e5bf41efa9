//! The consumer: poll, admit, lane, handle, settle, commit.

mod lanes;
mod ledger;
mod metadata;
mod settings;

pub use settings::{Assignment, Bound, ConsumerSettings, Keyless, Ordering};

use crate::handler::{Classifier, Delivery, HandlerError, Outcome};
use crate::kafka::{ConfigError, KafkaConfig, KafkaError};
use crate::publisher::Publisher;
use crate::telemetry::Health;
use tokio_util::sync::CancellationToken;

/// A member of a consumer group.
pub struct Consumer<H> {
    handler: H,
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
    /// Of those, dead letters.
    pub dead_letters: u64,
    /// Whether everything was drained and committed in time.
    pub clean: bool,
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
    /// The client is unusable: the process should end and be started again.
    #[error("the client failed for good: {0}")]
    Fatal(String),
}

impl<H> Consumer<H>
where
    H: tower::Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
    H::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    H::Future: Send,
{
    /// A member that calls `handler`, usually a [`Router`](crate::handler::Router), for every record.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(
        _kafka: KafkaConfig,
        _settings: ConsumerSettings,
        handler: H,
    ) -> Result<Self, ConfigError> {
        Ok(Self { handler })
    }
    /// Gives handlers a publisher: [`Context::publish`](crate::handler::Context::publish).
    pub fn with_publisher(self, _publisher: Publisher) -> Self {
        self
    }
    /// Reports readiness and liveness to `health`.
    pub fn with_health(self, _health: Health) -> Self {
        self
    }
    /// Replaces the classifier of errors that handlers did not class themselves.
    pub fn with_classifier(self, _classifier: Classifier) -> Self {
        self
    }
    /// Runs until `stop` is cancelled or the bound is reached, then drains, commits and leaves the group.
    ///
    /// # Errors
    /// When the cluster cannot be reached at the start, or the client fails for good.
    pub async fn run(self, _stop: CancellationToken) -> Result<RunReport, ConsumerError> {
        let _ = &self.handler;
        todo!()
    }
}

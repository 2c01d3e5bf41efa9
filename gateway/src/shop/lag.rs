//! How far the read model is behind the log.

use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::{KafkaConfig, KafkaError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How old a measure may become before the next query measures again, in the background.
const REFRESH: Duration = Duration::from_secs(2);
/// How old a measure may be to be told.
const TOLD_MAX: Duration = Duration::from_secs(30);
/// How long a measure may take.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(5);

/// The age of the oldest record that the group of the read model has not settled, measured at most
/// every two seconds, and only while it is asked for.
#[derive(Debug, Clone)]
pub struct ReadModelLag {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kafka: KafkaConfig,
    group: String,
    topics: Vec<String>,
    measured: Mutex<Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    lag: Option<(Duration, Instant)>,
    is_measuring: bool,
    began: Option<Instant>,
}

impl ReadModelLag {
    /// The lag of this group on these topics.
    pub fn new(kafka: KafkaConfig, group: impl Into<String>, topics: Vec<String>) -> Self {
        let shared = Shared {
            kafka,
            group: group.into(),
            topics,
            measured: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The last measure. None if there is none of the last 30 seconds, such as before the first one
    /// or while no broker answers.
    pub fn current(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut measured = self.shared.lock();
        let is_due = measured.began.is_none_or(|began| now - began >= REFRESH);
        if is_due && !measured.is_measuring {
            measured.is_measuring = true;
            measured.began = Some(now);
            tokio::spawn(measure(Arc::clone(&self.shared)));
        }
        let (lag, at) = measured.lag?;
        (now - at <= TOLD_MAX).then_some(lag)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self) -> Result<Duration, KafkaError> {
        let admin = Admin::connect(&self.kafka, MEASURE_TIMEOUT).await?;
        let lags = admin.group_lag(&self.group, &self.topics).await?;
        let lagging = lags.iter().filter(|at| at.lag > 0);
        let oldest = lagging.filter_map(|at| at.age_ms).max().unwrap_or(0);
        Ok(Duration::from_millis(u64::try_from(oldest).unwrap_or(0)))
    }
}

async fn measure(shared: Arc<Shared>) {
    let read = shared.read().await;
    let mut measured = shared.lock();
    measured.is_measuring = false;
    match read {
        Ok(lag) => measured.lag = Some((lag, Instant::now())),
        Err(error) => tracing::debug!(%error, "cannot measure the lag of the read model"),
    }
}

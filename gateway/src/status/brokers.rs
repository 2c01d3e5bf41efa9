//! The clients that ask the brokers, and the limits of blocking reads at a time.

use super::log_search::SearchLimits;
use super::settings::StatusSettings;
use crate::http::{Problem, ProblemKind};
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::{KafkaConfig, KafkaError};
use evenkeel_ops::Cluster;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OnceCell, OwnedSemaphorePermit, Semaphore};

/// The time after which a refused request should come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The cluster, with one admin client for all requests.
#[derive(Debug)]
pub(super) struct Brokers {
    kafka: KafkaConfig,
    timeout: Duration,
    records_max: u64,
    slots: Arc<Semaphore>,
    /// Held by the read of a list of groups that is under way.
    list_read: Mutex<()>,
    admin: OnceCell<Admin>,
}

impl Brokers {
    /// Does not connect.
    pub(super) fn new(kafka: KafkaConfig, settings: &StatusSettings) -> Self {
        Self {
            kafka,
            timeout: settings.search_timeout,
            records_max: settings.search_records_max,
            slots: Arc::new(Semaphore::new(settings.searches_max.max(1))),
            list_read: Mutex::default(),
            admin: OnceCell::new(),
        }
    }

    /// The admin client, which is connected by the first call that succeeds.
    pub(super) async fn admin(&self) -> Result<&Admin, Problem> {
        let connect = || Admin::connect(&self.kafka, self.timeout);
        let admin = self.admin.get_or_try_init(connect).await;
        admin.map_err(|error| unavailable(&error))
    }

    /// The cluster for operations of evenkeel-ops.
    pub(super) fn cluster(&self) -> Cluster {
        Cluster::new(self.kafka.clone(), self.timeout)
    }

    /// A slot for a blocking read. Held until the read has ended, also if nobody waits for it.
    ///
    /// # Errors
    /// [`ProblemKind::Overloaded`] if none is free in time.
    pub(super) async fn slot(&self) -> Result<OwnedSemaphorePermit, Problem> {
        match tokio::time::timeout(self.timeout, self.free_slot()).await {
            Ok(slot) => slot,
            Err(_) => {
                let detail = "too many status requests search the log; ask again later";
                Err(Problem::new(ProblemKind::Overloaded, detail).with_retry_after(RETRY_AFTER))
            }
        }
    }

    /// As [`slot`](Self::slot), without a limit of the wait: the caller ends it at its deadline.
    pub(super) async fn free_slot(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        slot.map_err(|_| stopping())
    }

    /// Runs a blocking read within the search timeout.
    ///
    /// # Errors
    /// [`ProblemKind::Overloaded`], and [`ProblemKind::Unavailable`] for an error of the cluster.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&KafkaConfig, SearchLimits) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, Problem> {
        let slot = self.slot().await?;
        self.run(slot, work).await
    }

    /// As [`read`](Self::read), but waits for a slot until the caller ends it at its deadline.
    pub(super) async fn read_when_free<T: Send + 'static>(
        &self,
        work: impl FnOnce(&KafkaConfig, SearchLimits) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, Problem> {
        let slot = self.free_slot().await?;
        self.run(slot, work).await
    }

    /// Awaits a read for a list of groups, one at a time. It takes no slot: while the brokers do
    /// not answer, the lists of all topics block one thread, and the slots are left to requests.
    pub(super) async fn read_for_list<T>(&self, read: impl Future<Output = T>) -> T {
        let _turn = self.list_read.lock().await;
        read.await
    }

    /// Runs a blocking read in a slot. If the future is dropped, the read runs to its end.
    async fn run<T: Send + 'static>(
        &self,
        slot: OwnedSemaphorePermit,
        work: impl FnOnce(&KafkaConfig, SearchLimits) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, Problem> {
        let (kafka, records_max) = (self.kafka.clone(), self.records_max);
        let timeout = self.timeout;
        let work = move || {
            let _slot = slot;
            work(&kafka, SearchLimits::new(records_max, timeout))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(read) => read.map_err(|error| unavailable(&error)),
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime shuts down.
                Err(_) => Err(stopping()),
            },
        }
    }
}

fn stopping() -> Problem {
    Problem::new(ProblemKind::Unavailable, "the gateway stops")
}

/// The answer for an error of the cluster, which is logged: the caller learns no address.
pub(super) fn unavailable(error: &KafkaError) -> Problem {
    tracing::warn!(%error, "the status of an event could not be read");
    let detail = match error {
        KafkaError::Refused { .. } => "the brokers refuse this gateway a request that it needs",
        KafkaError::UnknownTopic { .. } => "the topic of the event does not exist",
        _ => "the brokers do not answer; ask again later",
    };
    Problem::new(ProblemKind::Unavailable, detail).with_retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_read_without_a_free_slot_is_refused_in_time() {
        let settings = StatusSettings::default().with_searches_max(1);
        let brokers = Brokers::new(KafkaConfig::new("localhost:1"), &settings);
        let slot = brokers.slot().await.expect("one is free");
        let refused = brokers.read(|_, _| Ok(())).await.expect_err("none is free");
        assert_eq!(refused.kind, ProblemKind::Overloaded);
        assert!(refused.retry_after.is_some());
        drop(slot);
        brokers.read(|_, _| Ok(())).await.expect("it is free again");
    }

    #[tokio::test]
    async fn reads_for_lists_of_groups_follow_each_other() {
        let settings = StatusSettings::default().with_searches_max(1);
        let brokers = Brokers::new(KafkaConfig::new("localhost:1"), &settings);
        let _slot = brokers.slot().await.expect("one is free");
        let running = AtomicUsize::new(0);
        let read = || {
            brokers.read_for_list(async {
                assert_eq!(running.fetch_add(1, Ordering::Relaxed), 0);
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::Relaxed);
            })
        };
        tokio::join!(read(), read(), read());
    }
}

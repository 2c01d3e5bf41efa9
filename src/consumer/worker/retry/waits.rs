//! The waits of a retry: each ends when the partition is fenced, and lends the record's permit.

use crate::consumer::shared::breakers::Probe;
use crate::consumer::shared::control::RetryRegistration;
use crate::consumer::worker::retry::UnsettledRecord;
use std::future::Future;
use std::time::Duration;

/// How long a probe waits for a permit. If hanging handlers hold every permit, the probe runs
/// without one.
const PROBE_PERMIT_WITHIN: Duration = Duration::from_secs(1);

impl UnsettledRecord {
    /// Waits until the next attempt may be made. Returns a probe if the attempt tests a dependency
    /// that is down. None if the partition was revoked.
    ///
    /// Returns only when three things hold: the delay is over or an operator does not want to wait,
    /// no breaker forbids the attempt, and a permit was taken back (a probe waits a second for it).
    pub(super) async fn wait(
        &self,
        delay: Duration,
        outage_of: Option<&str>,
        registration: &RetryRegistration,
    ) -> Option<Option<Probe>> {
        let shared = &self.shared;
        let is_down = outage_of.is_some_and(|dependency| shared.breakers.is_open_for(dependency));
        // The breaker decides when the dependency is tried again.
        let mut delay = if is_down { Duration::ZERO } else { delay };
        loop {
            let lent = shared.permits.lend();
            let waited = async {
                registration
                    .wait_unless_retried(tokio::time::sleep(delay))
                    .await;
                let probe = shared.breakers.wait_until_allowed(outage_of).await;
                let permit = lent.take_back();
                match probe {
                    // It runs even without a permit.
                    Some(_) => drop(tokio::time::timeout(PROBE_PERMIT_WITHIN, permit).await),
                    None => permit.await,
                }
                probe
            };
            let probe = tokio::select! {
                probe = waited => probe,
                () = self.partition.fenced() => return None,
            };
            // A breaker may have opened while the record waited for its permit.
            if probe.is_some() || !shared.breakers.is_open() {
                return Some(probe);
            }
            delay = Duration::ZERO;
        }
    }

    /// Waits for `until` and lends its permit to other handlers meanwhile. None if the partition
    /// was revoked.
    ///
    /// The permit is taken back after `until`: a result that is ready may wait for a permit.
    pub(crate) async fn wait_for<T>(&self, until: impl Future<Output = T>) -> Option<T> {
        let lent = self.shared.permits.lend();
        let waited = async {
            let value = until.await;
            lent.take_back().await;
            value
        };
        tokio::select! {
            value = waited => Some(value),
            () = self.partition.fenced() => None,
        }
    }
}

//! The end of a relay: no more rows are taken.
//!
//! Owns the order of the last steps and their bound. The relay deregisters first, because others
//! leave the rest to a registered relay. It keeps its slots until the results of its rows are
//! recorded: their next relay repeats none of them. Its leases are not renewed any more, so a relay
//! that waits for acknowledgements lengthens them once, beyond its end.

use super::super::answer_limit::AnswerLimit;
use super::RelayTask;
use crate::outbox::OutboxError;
use crate::outbox::store::Store;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// Pause after a call that failed, where the time is short.
const LAST_RETRY: Duration = Duration::from_millis(50);

/// So many calls fit into the time of the last results. One without an answer leaves time for its
/// repetition.
const LAST_CALLS: u32 = 3;

/// Lengthens the leases of a relay that waits.
type Lengthening = BoxFuture<'static, ()>;

impl RelayTask {
    /// Whether a drain has ended: nothing is left, and nothing can be left to this relay any more.
    /// Others may leave rows to it until it has deregistered, so it asks again afterwards, and
    /// registers again if rows are left.
    pub(super) async fn ends_drained(&mut self) -> bool {
        if !self.is_drained().await {
            return false;
        }
        let deregistered = deregister(&*self.store, &self.name, self.answer_limit).await;
        self.has_deregistered = deregistered.is_ok();
        if self.has_deregistered && self.is_drained().await {
            return true;
        }
        self.has_deregistered = false;
        self.may_have_more = true;
        self.renew_at = Instant::now();
        false
    }

    /// Waits for the sent rows, up to the drain timeout. Then records their results and releases
    /// all slots, in this order, within the time of the last results.
    pub(super) async fn finish(&mut self) {
        self.in_flight.close();
        let lengthening = self.await_sends().await;
        self.report.unacknowledged = self.sends.len();
        self.report.held_keys = self.in_flight.held_keys();
        if let Err(error) = self.write_last_results(lengthening).await {
            tracing::warn!(
                %error,
                "the relay stops without a last update of the outbox: published events that are \
                 not deleted are published again, and other relays take over when its leases expire"
            );
        }
    }

    /// Waits for the sent rows, up to the drain timeout. Meanwhile it deregisters this relay, again
    /// until the store answers, then lengthens its leases. Returns the lengthening if it is under
    /// way.
    async fn await_sends(&mut self) -> Option<Lengthening> {
        let (store, name) = (Arc::clone(&self.store), self.name.clone());
        let limit = self.answer_limit;
        let lengthen = self.lengthen_leases();
        let mut has_deregistered = self.has_deregistered;
        let mut lengthening: Option<Lengthening> = None;
        {
            let keeping = async {
                if !has_deregistered {
                    while deregister(&*store, &name, limit).await.is_err() {
                        sleep(LAST_RETRY).await;
                    }
                    has_deregistered = true;
                }
                lengthening.insert(lengthen).await;
                lengthening = None;
            };
            let mut settling = pin!(self.settle_sends());
            tokio::select! {
                biased;
                () = &mut settling => {}
                () = keeping => settling.await,
            }
        }
        self.has_deregistered = has_deregistered;
        lengthening
    }

    /// Leases all slots of this relay, also the surplus ones, up to its end at the latest. Tries
    /// until the store answers.
    fn lengthen_leases(&self) -> Lengthening {
        let (store, name) = (Arc::clone(&self.store), self.name.clone());
        let (slots, limit) = (self.leases.leased(), self.answer_limit);
        let lease = self.settings.lease.max(self.settings.stop_within());
        Box::pin(async move {
            loop {
                let leased = store.lease(&name, &slots, lease);
                if limit.wait_for("lease slots", leased).await.is_ok() {
                    return;
                }
                sleep(LAST_RETRY).await;
            }
        })
    }

    /// Records the results of the sent rows, up to the drain timeout.
    async fn settle_sends(&mut self) {
        let deadline = Instant::now() + self.settings.drain_timeout;
        loop {
            let sent = tokio::select! {
                biased;
                sent = self.sends.next() => sent,
                () = sleep_until(deadline) => None,
            };
            let Some(sent) = sent else { break };
            if self.settle(sent).is_err() {
                break;
            }
        }
    }

    /// Deletes the published rows, marks the refused ones, then releases all slots. A step that
    /// fails is tried again: a row that is published and not deleted is published twice.
    ///
    /// Waits for `lengthening` before: a lease that the store takes after the release would keep
    /// the slots from others. Not for longer than for another call, and not beside the other calls:
    /// it may have the only connection.
    ///
    /// # Errors
    /// The store's last error, or [`OutboxError::NoAnswer`], after the time of the last results.
    async fn write_last_results(
        &mut self,
        lengthening: Option<Lengthening>,
    ) -> Result<(), OutboxError> {
        let limit = AnswerLimit(self.settings.last_results());
        let deadline = Instant::now() + limit.0;
        self.answer_limit = AnswerLimit(limit.0 / LAST_CALLS);
        if let Some(lengthening) = lengthening {
            let _ = timeout(self.answer_limit.0, lengthening).await;
        }
        loop {
            let results = self.write_results_and_leave();
            match timeout_at(deadline, results).await {
                Ok(Err(_)) if Instant::now() + LAST_RETRY < deadline => sleep(LAST_RETRY).await,
                Ok(written) => return written,
                Err(_) => return Err(limit.exceeded("record the last results")),
            }
        }
    }

    /// The steps of [`RelayTask::write_last_results`].
    async fn write_results_and_leave(&mut self) -> Result<(), OutboxError> {
        if !self.has_deregistered {
            deregister(&*self.store, &self.name, self.answer_limit).await?;
            self.has_deregistered = true;
        }
        self.delete().await?;
        self.mark().await?;
        self.answer_limit
            .wait_for("release slots", self.store.leave(&self.name))
            .await
    }
}

/// Deregisters a relay. Dropped, or without an answer, it may still take effect.
async fn deregister(store: &dyn Store, name: &str, limit: AnswerLimit) -> Result<(), OutboxError> {
    let deregistered = store.deregister(name);
    limit.wait_for("deregister the relay", deregistered).await
}

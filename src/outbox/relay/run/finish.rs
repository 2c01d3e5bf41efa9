//! The end of a relay: no more rows are taken.
//!
//! Owns the order of the last steps and their bound. The relay deregisters first, because others
//! leave the rest to a registered relay. It keeps its slots until the results of its rows are
//! recorded: their next relay repeats none of them.

use super::super::answer_limit::AnswerLimit;
use super::RelayTask;
use crate::outbox::OutboxError;
use crate::outbox::store::Store;
use futures_util::StreamExt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// Pause after a call that failed, where the time is short.
const LAST_RETRY: Duration = Duration::from_millis(50);

/// So many calls fit into the time of the last results. One without an answer leaves time for its
/// repetition.
const LAST_CALLS: u32 = 3;

impl RelayTask {
    /// Waits for the sent rows, up to the drain timeout. Then records their results and releases
    /// all slots, in this order, within one limit of the store's answers.
    pub(super) async fn finish(&mut self) {
        self.in_flight.close();
        self.await_sends().await;
        self.report.unacknowledged = self.sends.len();
        self.report.held_keys = self.in_flight.held_keys();
        if let Err(error) = self.write_last_results().await {
            tracing::warn!(
                %error,
                "the relay stops without a last update of the outbox: published events that are \
                 not deleted are published again, and other relays take over when its leases expire"
            );
        }
    }

    /// Waits for the sent rows, up to the drain timeout, and deregisters this relay meanwhile.
    async fn await_sends(&mut self) {
        let (store, name) = (Arc::clone(&self.store), self.name.clone());
        let deregistering = deregister(store, name, self.answer_limit);
        let is_registered = !self.has_deregistered;
        let mut has_deregistered = self.has_deregistered;
        {
            let mut settling = pin!(self.settle_sends());
            tokio::select! {
                biased;
                () = &mut settling => {}
                () = deregistering, if is_registered => {
                    has_deregistered = true;
                    settling.await;
                }
            }
        }
        self.has_deregistered = has_deregistered;
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
    /// # Errors
    /// The store's last error, or [`OutboxError::NoAnswer`], after the limit of one answer.
    async fn write_last_results(&mut self) -> Result<(), OutboxError> {
        let limit = self.answer_limit;
        let deadline = Instant::now() + limit.0;
        self.answer_limit = AnswerLimit(limit.0 / LAST_CALLS);
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
            let deregistered = self.store.deregister(&self.name);
            self.answer_limit
                .wait_for("deregister the relay", deregistered)
                .await?;
            self.has_deregistered = true;
        }
        self.delete().await?;
        self.mark().await?;
        self.answer_limit
            .wait_for("release slots", self.store.leave(&self.name))
            .await
    }
}

/// Deregisters a relay. Tries until the store answers; dropped, it may still take effect.
async fn deregister(store: Arc<dyn Store>, name: String, limit: AnswerLimit) {
    loop {
        let deregistered = store.deregister(&name);
        let answer = limit.wait_for("deregister the relay", deregistered).await;
        if answer.is_ok() {
            return;
        }
        sleep(LAST_RETRY).await;
    }
}

//! The relay's task: calls the store, the publisher and the clock as `in_flight_rows` and
//! `slot_leases` decide.
//!
//! Owns the order of the steps and the behaviour when the store does not answer; `store_calls.rs`
//! has the calls of a round, `send.rs` the bursts of rows, `finish.rs` the end. Every call to the
//! store has a deadline that leaves time to renew a lease.
//!
//! Every deadline derives from the lease: renewed after a third, each call of the store within a
//! quarter, given up a tenth before its end. A call that fails at its limit leaves time to try it
//! once more: 1/3 + 1/4 + 1/4 of the lease is less than 9/10.
//!
//! The last stop interrupts a call, which the store must endure, so that the end has a bound: the
//! drain timeout, then the time of the last results (`finish.rs`). The stop before a drain
//! interrupts none: a registration that the store takes later would be that of a relay that has
//! left, and others would leave the rest to it.

mod bursts;
mod finish;
mod send;
mod store_calls;

#[cfg(test)]
pub(super) use bursts::WAIT_MIN as BURST_WAIT_MIN;

use super::super::OutboxError;
use super::super::store::{RowId, Store};
use super::answer_limit::AnswerLimit;
use super::in_flight_rows::InFlightRows;
use super::slot_leases::SlotLeases;
use super::{RelayReport, RelaySettings};
use crate::publisher::{PublishError, Publisher};
use crate::telemetry::{Health, Reporter, instance};
use bursts::{Burst, Bursts};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The component's name in health.
const COMPONENT: &str = "relay";

/// Pause after the store did not answer.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// Pause after each round of calls to the store: events that are committed and acknowledged
/// meanwhile are read and deleted together, and each call delays the writers.
const ROUND_PAUSE: Duration = Duration::from_millis(5);

/// A send that has ended.
struct Sent {
    /// The key of the row.
    key: i64,
    burst: Burst,
    /// `None` if the row was not sent.
    result: Option<Result<(), PublishError>>,
}

/// A running relay: the state of its task. Nothing else holds a part of it, so nothing is locked.
pub(super) struct RelayTask {
    store: Arc<dyn Store>,
    publisher: Publisher,
    settings: RelaySettings,
    answer_limit: AnswerLimit,
    /// This relay's part of the process's health and metrics.
    reporter: Reporter,
    /// This relay's name towards the others.
    name: String,
    in_flight: InFlightRows,
    leases: SlotLeases,
    /// The rows being sent, at most one of each key.
    sends: FuturesUnordered<BoxFuture<'static, Sent>>,
    /// Refused rows and their reasons, to be written beside the rows.
    marks: BTreeMap<RowId, String>,
    /// Some rows may not have been read.
    may_have_more: bool,
    /// Whether this relay drains, so that it leaves the rest to another one if there is one.
    hands_over: bool,
    /// It is not registered any more: it takes no more rows, and must not register again.
    has_deregistered: bool,
    /// When the leases are renewed next.
    renew_at: Instant,
    /// When the backlog is measured next.
    measure_at: Instant,
    /// The store did not answer: it is not called until then.
    store_down_until: Option<Instant>,
    /// The store is not called until then, to gather work for one round.
    next_round_at: Instant,
    /// No rows are read until then, because the last read brought none.
    next_read_at: Instant,
    /// When ready rows are sent.
    bursts: Bursts,
    /// Counted during the run; completed at its end.
    report: RelayReport,
}

impl RelayTask {
    pub(super) fn new(
        store: Arc<dyn Store>,
        publisher: Publisher,
        settings: RelaySettings,
        health: Health,
    ) -> Self {
        let now = Instant::now();
        Self {
            store,
            publisher,
            reporter: Reporter::new(health, COMPONENT, ""),
            name: format!("{}-{}", instance(None), uuid::Uuid::now_v7().simple()),
            in_flight: InFlightRows::new(&settings),
            answer_limit: AnswerLimit(settings.answer_within()),
            settings,
            leases: SlotLeases::default(),
            sends: FuturesUnordered::new(),
            marks: BTreeMap::new(),
            may_have_more: true,
            hands_over: false,
            has_deregistered: false,
            renew_at: now,
            measure_at: now,
            store_down_until: None,
            next_round_at: now,
            next_read_at: now,
            bursts: Bursts::new(now),
            report: RelayReport::default(),
        }
    }

    /// Publishes until `stop`, or until nothing is left that can be published.
    pub(super) async fn run(
        mut self,
        stop: &CancellationToken,
        until_empty: bool,
    ) -> Result<RelayReport, OutboxError> {
        let ended = self.publish_until(stop, stop, until_empty).await;
        self.finish().await;
        self.end_reporter(&ended);
        ended.map(|()| self.report)
    }

    /// Publishes until `stop`, then until another relay is registered, which publishes the rest, or
    /// until nothing is left that can be published, or until `drain_stop`.
    pub(super) async fn run_then_drain(
        mut self,
        stop: &CancellationToken,
        drain_stop: &CancellationToken,
    ) -> Result<RelayReport, OutboxError> {
        let mut ended = self.publish_until(stop, drain_stop, false).await;
        if ended.is_ok() && !drain_stop.is_cancelled() {
            self.may_have_more = true;
            self.hands_over = true;
            // The hand-over is part of a renewal.
            self.renew_at = Instant::now();
            ended = self.publish_until(drain_stop, drain_stop, true).await;
        }
        self.finish().await;
        self.end_reporter(&ended);
        ended.map(|()| self.report)
    }

    /// Ends this relay's part of the health: well, or with the reason of its failure.
    fn end_reporter(&self, ended: &Result<(), OutboxError>) {
        let failure = ended.as_ref().err().map(ToString::to_string);
        self.reporter.end(failure.as_deref());
    }

    /// The loop: publishes until `stop`, until it has handed over, or until drained if
    /// `until_empty`. After `stop`, a call of the store that is under way may end until
    /// `last_stop`.
    ///
    /// # Errors
    /// [`OutboxError::Producer`] only.
    async fn publish_until(
        &mut self,
        stop: &CancellationToken,
        last_stop: &CancellationToken,
        until_empty: bool,
    ) -> Result<(), OutboxError> {
        let store = Arc::clone(&self.store);
        let mut committed = store.committed();
        let mut poll_at = Instant::now();
        while !stop.is_cancelled() {
            // Rows that are ready go out first: they are acknowledged while the store is called.
            self.send();
            self.settle_ended_sends()?;
            tokio::select! {
                biased;
                () = both_cancelled(stop, last_stop) => break,
                () = self.call_store() => {}
            }
            if stop.is_cancelled() || self.has_deregistered {
                break;
            }
            self.settle_ended_sends()?;
            self.send();
            if until_empty && stop.run_until_cancelled(self.ends_drained()).await != Some(false) {
                break;
            }
            let wake_at = self.wake_at().min(poll_at);
            tokio::select! {
                () = stop.cancelled() => break,
                Some(sent) = self.sends.next() => self.settle(sent)?,
                () = &mut committed => {
                    self.may_have_more = true;
                    committed = store.committed();
                }
                () = sleep_until(wake_at) => {}
            }
            self.settle_ended_sends()?;
            if Instant::now() >= poll_at {
                self.may_have_more = true;
                poll_at = Instant::now() + self.settings.poll_interval;
            }
        }
        Ok(())
    }

    /// When to act next without an event.
    fn wake_at(&self) -> Instant {
        let store_at = self.store_at();
        let burst_at = self.in_flight.has_ready().then(|| self.bursts.next_at());
        let others = [self.in_flight.next_wake(), self.leases.next_end(), burst_at];
        others.into_iter().flatten().fold(store_at, Instant::min)
    }

    /// When to call the store next, by the work that is known.
    fn store_at(&self) -> Instant {
        if let Some(until) = self.store_down_until {
            return until;
        }
        if self.in_flight.has_published() || !self.marks.is_empty() {
            return self.next_round_at;
        }
        let read_at = (self.may_have_more && self.can_read()).then_some(self.next_read_at);
        let timed = self.renew_at.min(self.measure_at);
        let at = read_at.map_or(timed, |at| at.min(timed));
        at.max(self.next_round_at)
    }

    /// Whether a read could bring rows: there is room, and a slot to read from.
    fn can_read(&self) -> bool {
        self.in_flight.has_room() && !self.leases.slots().is_empty()
    }

    /// Calls the store for all pending work. A missing answer does not end the relay: it rests for
    /// [`STORE_RETRY`] and is reported as not ready. The loss is logged once, and so is the return.
    async fn call_store(&mut self) {
        let now = Instant::now();
        let expired = self.leases.expire(now);
        self.in_flight.lose_slots(&expired);
        self.may_have_more |= self.in_flight.wake(now);
        if now < self.next_round_at || self.store_down_until.is_some_and(|until| now < until) {
            return;
        }
        let was_down = self.store_down_until.take().is_some();
        // Boxed, because the future of this function is moved into one that can be interrupted.
        let called = Box::pin(self.run_store_calls(now)).await;
        self.next_round_at = Instant::now() + ROUND_PAUSE;
        match called {
            Ok(()) if was_down => {
                tracing::info!("the outbox answers again");
                self.set_ready(Ok(()));
            }
            Ok(()) => {}
            Err(error) => {
                if !was_down {
                    tracing::warn!(%error, "the outbox does not answer; retrying");
                }
                self.set_ready(Err(error.to_string()));
                self.store_down_until = Some(Instant::now() + STORE_RETRY);
            }
        }
    }

    /// Sets the readiness of this relay.
    fn set_ready(&self, state: Result<(), String>) {
        self.reporter.set_ready(COMPONENT, state);
    }
}

/// Waits until both are cancelled.
async fn both_cancelled(stop: &CancellationToken, last_stop: &CancellationToken) {
    stop.cancelled().await;
    last_stop.cancelled().await;
}

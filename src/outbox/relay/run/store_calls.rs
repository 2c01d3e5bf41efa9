//! The calls of the store: what each does with its answer.
//!
//! Owns the order of the calls of a round. Each waits for its answer up to the limit of a call.

use super::super::{slot_leases, telemetry};
use super::{COMPONENT, RelayTask};
use crate::outbox::OutboxError;
use std::time::Duration;
use tokio::time::Instant;

/// Delay after the end of another relay's lease before it is checked again.
const LEASE_CHECK_DELAY: Duration = Duration::from_millis(20);

impl RelayTask {
    /// The calls of a round, in this order: renewing first, because a lease that ends stops
    /// everything, and deleting before reading, because a key is read only without undeleted rows.
    /// The first error ends the round; the remaining work stays pending.
    pub(super) async fn run_store_calls(&mut self, now: Instant) -> Result<(), OutboxError> {
        if now >= self.renew_at {
            if self.hands_over && self.hand_over().await? {
                return Ok(());
            }
            self.renew().await?;
        }
        self.delete().await?;
        self.mark().await?;
        self.release().await?;
        self.read().await?;
        if now >= self.measure_at {
            self.measure().await?;
        }
        Ok(())
    }

    /// Renews this relay's leases, and takes or releases slots to make the shares even.
    async fn renew(&mut self) -> Result<(), OutboxError> {
        let lease = self.settings.lease;
        let registered = self
            .answer_limit
            .wait_for("register the relay", self.store.register(&self.name, lease));
        let registered = registered.await?;
        let shares = slot_leases::plan_slots(&self.name, &registered, &self.leases.slots());
        self.leases.leave(&shares.surplus);
        self.in_flight.lose_slots(&shares.surplus);
        // Measured before the call, so that the lease in the store ends later than the local one.
        let until = Instant::now() + lease - self.settings.margin();
        let granted = self.store.lease(&self.name, &shares.wanted, lease);
        let granted = self.answer_limit.wait_for("lease slots", granted).await?;
        let lost = self.leases.granted(&granted, until);
        self.in_flight.lose_slots(&lost);
        telemetry::slots_leased(&self.reporter, granted.len());
        self.may_have_more = true;
        let recheck = shares.recheck_after.map(|after| after + LEASE_CHECK_DELAY);
        let renew_after = self.settings.renew_interval();
        self.renew_at = Instant::now() + recheck.map_or(renew_after, |at| at.min(renew_after));
        self.set_ready(Ok(()));
        Ok(())
    }

    /// Leaves the rest to another relay, if one is registered. Returns whether there is one.
    ///
    /// This relay keeps its slots until [`RelayTask::finish`] releases them, after the rows in
    /// flight were deleted: the other relay repeats none of them.
    async fn hand_over(&mut self) -> Result<bool, OutboxError> {
        let left = self.store.leave_to_another(&self.name);
        let left = self.answer_limit.wait_for("hand over", left).await?;
        if !left {
            return Ok(false);
        }
        self.has_deregistered = true;
        self.report.handed_over = true;
        telemetry::handed_over();
        Ok(true)
    }

    /// Deletes the acknowledged rows.
    pub(super) async fn delete(&mut self) -> Result<(), OutboxError> {
        let published = self.in_flight.published();
        if published.is_empty() {
            return Ok(());
        }
        self.answer_limit
            .wait_for("delete published events", self.store.delete(&published))
            .await?;
        self.may_have_more |= self.in_flight.deleted(published.len());
        Ok(())
    }

    /// Writes the reasons of refused rows beside them, for operators.
    pub(super) async fn mark(&mut self) -> Result<(), OutboxError> {
        if self.marks.is_empty() {
            return Ok(());
        }
        self.answer_limit
            .wait_for("mark refused events", self.store.mark(&self.marks))
            .await?;
        self.marks.clear();
        Ok(())
    }

    /// Releases surplus slots, once none of their rows is being sent.
    async fn release(&mut self) -> Result<(), OutboxError> {
        let mut idle = self.leases.leaving();
        idle.retain(|slot| !self.in_flight.is_busy(*slot));
        if idle.is_empty() {
            return Ok(());
        }
        self.answer_limit
            .wait_for("release slots", self.store.release(&self.name, &idle))
            .await?;
        self.leases.released(&idle);
        Ok(())
    }

    /// Reads the next rows, if there is room and more may be there.
    ///
    /// A read that brings none may have passed over a long backlog of the keys in memory, and each
    /// commit is a reason for another one. As much time as it took is left to the other calls.
    async fn read(&mut self) -> Result<(), OutboxError> {
        let begun = Instant::now();
        if !self.may_have_more || begun < self.next_read_at {
            return Ok(());
        }
        let Some(page) = self.in_flight.page(&self.leases.slots()) else {
            return Ok(());
        };
        let read = self
            .answer_limit
            .wait_for("read events", self.store.read(&page))
            .await?;
        if read.rows.is_empty() {
            let pause = begun.elapsed().min(self.settings.poll_interval);
            self.next_read_at = Instant::now() + pause;
        }
        self.may_have_more = self.in_flight.take(read);
        Ok(())
    }

    /// Measures the backlog and the open transactions for operators.
    async fn measure(&mut self) -> Result<(), OutboxError> {
        self.measure_at = Instant::now() + self.settings.watch_interval;
        let backlog = self
            .answer_limit
            .wait_for("measure its backlog", self.store.backlog())
            .await?;
        telemetry::backlog_measured(&self.reporter, &backlog);
        let open = self
            .store
            .open_transaction(self.settings.open_transaction_max);
        let open = self
            .answer_limit
            .wait_for("find open transactions", open)
            .await?;
        telemetry::transaction_seen(&self.reporter, open.as_ref());
        let held = self.in_flight.held_keys();
        let note = format!("{held} keys wait behind a refused event; see: evenkeel outbox status");
        self.reporter
            .set_note(COMPONENT, (held > 0).then_some(note));
        Ok(())
    }

    /// Whether nothing is left that can be published. All keys of a stopped topic are held,
    /// including those never tried.
    pub(super) async fn is_drained(&mut self) -> bool {
        if !self.in_flight.is_empty() || self.may_have_more || self.store_down_until.is_some() {
            return false;
        }
        let stopped = self.in_flight.stopped_topics();
        let is_drained = self.store.is_drained(&stopped);
        let is_drained = self
            .answer_limit
            .wait_for("check whether it is drained", is_drained);
        is_drained.await.unwrap_or(false)
    }
}

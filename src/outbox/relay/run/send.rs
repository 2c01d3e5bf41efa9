//! Hands rows to the publisher and records the results.
//!
//! Sends what is ready in one burst; `bursts.rs` decides when.

use super::super::in_flight_rows::{RowSettled, SendOutcome};
use super::super::telemetry;
use super::{RelayTask, Sent};
use crate::outbox::OutboxError;
use crate::publisher::PublishError;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout_at};

impl RelayTask {
    /// Begins to send ready rows, in bursts. They are handed to the publisher when the sends are
    /// next polled. Waits for room in the publisher's buffer beside all other work, but not for
    /// longer than the slot's lease.
    pub(super) fn send(&mut self) {
        let now = Instant::now();
        let Some(burst) = self.bursts.next(now) else {
            return;
        };
        let mut sent = 0;
        let leases = &self.leases;
        let is_ours = |slot| leases.until(slot).is_some_and(|until| now < until);
        while let Some(row) = self.in_flight.next(is_ours) {
            let Some(until) = leases.until(row.slot) else {
                continue;
            };
            let publisher = self.publisher.clone();
            let key = row.key_hash;
            let publish = async move {
                let record = match row.record {
                    Ok(record) => record,
                    Err(reason) => {
                        let topic = row.topic;
                        return Some(Err(PublishError::TooLarge { topic, reason }));
                    }
                };
                let enqueued = timeout_at(until, publisher.enqueue_record(record)).await;
                Some(match enqueued.ok()? {
                    Ok(receipt) => receipt.await.map(drop),
                    Err(error) => Err(error),
                })
            };
            let send = async move {
                let result = publish.await;
                Sent { key, burst, result }
            };
            self.sends.push(send.boxed());
            sent += 1;
        }
        self.bursts.sent(burst, sent);
    }

    /// Hands the rows of [`RelayTask::send`] to the publisher, and records the results of the sends
    /// that have ended. Does not wait.
    ///
    /// # Errors
    /// The errors of [`RelayTask::settle`].
    pub(super) fn settle_ended_sends(&mut self) -> Result<(), OutboxError> {
        while let Some(Some(sent)) = self.sends.next().now_or_never() {
            self.settle(sent)?;
        }
        Ok(())
    }

    /// Records the result of a send. Refusals of the topic (no such topic, no permission) are
    /// distinguished from those of the row, because the former will meet its other keys too.
    ///
    /// # Errors
    /// [`OutboxError::Producer`] if the producer is unusable.
    pub(super) fn settle(&mut self, sent: Sent) -> Result<(), OutboxError> {
        let Sent { key, burst, result } = sent;
        let now = Instant::now();
        let is_acknowledged = matches!(result, Some(Ok(())));
        self.bursts.settled(burst, is_acknowledged, now);
        let outcome = match result {
            None => SendOutcome::NotSent,
            Some(Ok(())) => SendOutcome::Published,
            Some(Err(error @ PublishError::Fatal(_))) => return Err(OutboxError::Producer(error)),
            Some(Err(error @ PublishError::Unknown { .. })) => {
                SendOutcome::Unknown(error.to_string())
            }
            Some(Err(error @ (PublishError::Refused { .. } | PublishError::NoTopic { .. }))) => {
                SendOutcome::Refused(error.to_string())
            }
            Some(Err(error)) => SendOutcome::Unfit(error.to_string()),
        };
        let settled = self.in_flight.settle(key, outcome, now, rand::random());
        let Some(settled) = settled else {
            return Ok(());
        };
        match &settled {
            RowSettled::Published { .. } => self.report.published += 1,
            RowSettled::Held {
                row,
                reason,
                needs_mark,
                ..
            } => {
                self.report.failed += 1;
                if *needs_mark {
                    self.marks.insert(row.clone(), reason.clone());
                }
            }
            RowSettled::Delayed { .. } => self.report.failed += 1,
        }
        telemetry::row_settled(&settled);
        Ok(())
    }
}

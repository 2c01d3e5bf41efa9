//! Hands rows to the publisher and records the results.
//!
//! Owns when ready rows are sent: in bursts, so that those that are ready at about the same time
//! share requests.

use super::super::in_flight_rows::{RowSettled, SendOutcome};
use super::super::telemetry;
use super::{RelayTask, Sent};
use crate::outbox::OutboxError;
use crate::publisher::PublishError;
use futures_util::{FutureExt, StreamExt};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long ready rows wait for the next acknowledgement of the burst before them. When all have
/// arrived, the next burst follows at once: the interval bounds what a partition without a leader
/// costs the others, once for each burst that has a row for it.
///
/// Rows that are sent together share requests. And librdkafka's idempotent producer keeps one
/// request of a partition in flight once that has five records; its thread spends the time until the
/// answer in a busy loop if more records come meanwhile. Busy brokers answer late because of it.
pub(in crate::outbox::relay) const BURST_INTERVAL: Duration = Duration::from_millis(100);

/// How long ready rows wait for the burst before them at most, though its acknowledgements keep
/// arriving.
const BURST_MAX: Duration = Duration::from_secs(1);

impl RelayTask {
    /// Begins to send ready rows, in bursts. They are handed to the publisher when the sends are
    /// next polled. Waits for room in the publisher's buffer beside all other work, but not for
    /// longer than the slot's lease.
    pub(super) fn send(&mut self) {
        let now = Instant::now();
        if self.burst_unsettled > 0 && now < self.next_burst_at {
            return;
        }
        let mut sent = 0;
        let burst = self.burst + 1;
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
        if sent > 0 {
            self.burst = burst;
            self.burst_unsettled = sent;
            self.next_burst_at = now + BURST_INTERVAL;
            self.last_burst_at = now;
        }
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
        // A late result of an earlier burst holds back no rows.
        if burst == self.burst {
            self.burst_unsettled -= 1;
            let latest = self.last_burst_at + BURST_MAX;
            self.next_burst_at = latest.min(Instant::now() + BURST_INTERVAL);
        }
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
        let settled = self
            .in_flight
            .settle(key, outcome, Instant::now(), rand::random());
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

//! A relay's logs and metrics: each fact is logged and counted in one place.

use super::in_flight_rows::RowSettled;
use crate::outbox::status::OpenTransaction;
use crate::outbox::store::Backlog;
use crate::telemetry::{Metric, Reporter};
use metrics::counter;
use std::time::Duration;

/// Logs and counts the result of a row.
pub(super) fn row_settled(settled: &RowSettled) {
    match settled {
        RowSettled::Published { topic } => {
            counter!(Metric::OutboxPublished.name(), "topic" => topic.clone()).increment(1);
        }
        RowSettled::Held {
            row,
            topic,
            reason,
            is_new,
            stops_topic,
            ..
        } => {
            failed(topic, "refused");
            if *is_new {
                tracing::error!(
                    sequence = row.sequence,
                    topic,
                    reason,
                    "an event of the outbox was refused; its key waits, and it is retried until it \
                     is accepted or its row is deleted"
                );
            }
            if *stops_topic {
                tracing::error!(
                    topic,
                    reason,
                    "too many keys of the topic are held: no others are tried until one of them is \
                     published or its row is deleted"
                );
            }
        }
        RowSettled::Delayed { topic, reason } => {
            failed(topic, "unknown");
            tracing::warn!(
                topic,
                reason,
                "an event of the outbox may not have been published; retrying"
            );
        }
    }
}

/// Counts an attempt that did not publish its row.
fn failed(topic: &str, result: &'static str) {
    counter!(Metric::OutboxFailed.name(), "topic" => topic.to_owned(), "result" => result)
        .increment(1);
}

/// Logs that this relay leaves the rest to another one.
pub(super) fn handed_over() {
    tracing::info!("another relay is registered: it publishes the rest");
}

/// Reports the size of the backlog.
pub(super) fn backlog_measured(reporter: &Reporter, backlog: &Backlog) {
    let oldest = backlog.oldest.unwrap_or_default();
    reporter
        .gauge(Metric::OutboxPending, &[])
        .set(backlog.pending as f64);
    reporter
        .gauge(Metric::OutboxOldestSeconds, &[])
        .set(oldest.as_secs_f64());
    reporter
        .gauge(Metric::OutboxHeldKeys, &[])
        .set(backlog.held_keys as f64);
}

/// Reports the number of leased slots.
pub(super) fn slots_leased(reporter: &Reporter, slots: usize) {
    reporter.gauge(Metric::OutboxSlots, &[]).set(slots as f64);
}

/// Warns of a transaction that delays its own events and the transactions that publish on the same
/// keys.
pub(super) fn transaction_seen(reporter: &Reporter, open: Option<&OpenTransaction>) {
    let age = open.map_or(Duration::ZERO, |open| Duration::from_millis(open.age_ms));
    reporter
        .gauge(Metric::OutboxOpenTransactionSeconds, &[])
        .set(age.as_secs_f64());
    if let Some(open) = open {
        tracing::warn!(
            pid = open.pid,
            application = open.application,
            state = open.state,
            age_s = age.as_secs(),
            "long-running transaction in the outbox; its events, and other transactions that \
             publish on the same keys, wait for its end"
        );
    }
}

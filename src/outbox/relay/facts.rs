//! What a relay tells its operators: each fact is logged and counted in one place.

use super::super::status::OpenTransaction;
use super::super::store::Backlog;
use super::window::Fact;
use crate::telemetry::{Metric, Part};
use metrics::counter;
use std::time::Duration;

/// Logs and counts what became of a row.
pub(super) fn row_settled(fact: &Fact) {
    match fact {
        Fact::Published { topic } => {
            counter!(Metric::OutboxPublished.name(), "topic" => topic.clone()).increment(1);
        }
        Fact::Held {
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
                    "an event of the outbox is refused; its key waits, and it is tried again until it is accepted or its row is \
                     deleted"
                );
            }
            if *stops_topic {
                tracing::error!(
                    topic,
                    reason,
                    "too many keys of the topic are held: no others are tried until one of them gets through or its row is deleted"
                );
            }
        }
        Fact::Delayed { topic, reason } => {
            failed(topic, "unknown");
            tracing::warn!(
                topic,
                reason,
                "an event of the outbox is not known to be published; it is tried again"
            );
        }
    }
}

fn failed(topic: &str, result: &'static str) {
    counter!(Metric::OutboxFailed.name(), "topic" => topic.to_owned(), "result" => result)
        .increment(1);
}

/// Reports how much waits.
pub(super) fn backlog_measured(part: &Part, backlog: &Backlog) {
    let oldest = backlog.oldest.unwrap_or_default();
    part.gauge(Metric::OutboxPending, &[])
        .set(backlog.pending as f64);
    part.gauge(Metric::OutboxOldestSeconds, &[])
        .set(oldest.as_secs_f64());
    part.gauge(Metric::OutboxHeldKeys, &[])
        .set(backlog.held_keys as f64);
}

/// Reports how many slots are ours.
pub(super) fn slots_leased(part: &Part, slots: usize) {
    part.gauge(Metric::OutboxSlots, &[]).set(slots as f64);
}

/// Warns of a transaction that holds up what it has written, and whoever publishes on the same keys.
pub(super) fn transaction_seen(part: &Part, open: Option<&OpenTransaction>) {
    let age = open.map_or(Duration::ZERO, |open| Duration::from_millis(open.age_ms));
    part.gauge(Metric::OutboxOpenTransactionSeconds, &[])
        .set(age.as_secs_f64());
    if let Some(open) = open {
        tracing::warn!(
            pid = open.pid,
            application = open.application,
            state = open.state,
            age_s = age.as_secs(),
            "a transaction that has written to the outbox is open for long; its events and the keys it published on wait for \
             its end"
        );
    }
}

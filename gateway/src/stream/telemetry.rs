//! Metrics and log lines of streams.
//!
//! Labels are topics and fixed words only: no key, no id, no caller.

use evenkeel::kafka::KafkaError;
use metrics::{counter, gauge};
use std::time::Duration;

/// A stream that counts as open as long as the value lives.
#[derive(Debug)]
pub(super) struct OpenStream(());

impl OpenStream {
    pub(super) fn new() -> Self {
        gauge!("gateway_stream_clients").increment(1.0);
        Self(())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        gauge!("gateway_stream_clients").decrement(1.0);
    }
}

pub(super) fn event_sent() {
    counter!("gateway_stream_events_sent_total").increment(1);
}

pub(super) fn gap_sent(topic: &str) {
    counter!("gateway_stream_gaps_total", "topic" => topic.to_owned()).increment(1);
}

pub(super) fn slow_client_cut() {
    counter!("gateway_stream_slow_clients_total").increment(1);
}

pub(super) fn stream_refused(reason: &'static str) {
    counter!("gateway_stream_refused_total", "reason" => reason).increment(1);
}

pub(super) fn catch_up_started(topic: &str) {
    counter!("gateway_stream_catch_ups_total", "topic" => topic.to_owned()).increment(1);
}

pub(super) fn ring_changed(topic: &str, bytes: usize) {
    gauge!("gateway_stream_ring_bytes", "topic" => topic.to_owned()).set(bytes as f64);
}

pub(super) fn reader_started(topic: &str) {
    tracing::info!(topic, "the reader of the topic started");
}

pub(super) fn reader_stopped(topic: &str) {
    tracing::info!(topic, "the reader of the topic stopped: no stream needs it");
}

pub(super) fn reader_failed(topic: &str, reason: &str) {
    tracing::error!(topic, reason, "the streams of the topic end");
}

pub(super) fn brokers_unreachable(topic: &str, error: &KafkaError) {
    tracing::debug!(topic, %error, "the reader of the topic waits for the brokers");
}

pub(super) fn log_restarted(topic: &str, was_recreated: bool) {
    tracing::warn!(
        topic,
        was_recreated,
        "the log of the topic begins anew or was cut; its streams continue with a gap"
    );
}

pub(super) fn batch_skipped(topic: &str, partition: i32, from: i64, to: i64) {
    tracing::error!(
        topic,
        partition,
        from,
        to,
        "a batch cannot be read; the streams of the topic continue after it with a gap"
    );
}

pub(super) fn retrying(topic: &str, error: &KafkaError, after: Duration) {
    tracing::warn!(topic, %error, ?after, "the reader of the topic is opened again");
}

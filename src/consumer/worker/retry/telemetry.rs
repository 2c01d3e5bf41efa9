//! The log lines about records that fail, are parked, dead-lettered or skipped.

use crate::consumer::shared::dead_letters::WriteError;
use crate::control::Command;
use crate::event::Record;
use crate::handler::{Class, DeadReason, Failure};
use crate::publisher::PublishError;
use std::fmt::Display;
use std::time::Duration;

/// The record that a line is about.
#[derive(Clone, Copy)]
pub(super) struct LoggedRecord<'a> {
    pub(super) group: &'a str,
    pub(super) record: &'a Record,
    /// Attempts that were made.
    pub(super) attempts: u32,
}

/// Logs a failed attempt that is repeated in place.
pub(super) fn attempt_failed(of: LoggedRecord<'_>, failure: &Failure, delay: Duration) {
    tracing::warn!(
        group = of.group,
        record = ?of.record,
        attempt = of.attempts,
        class = failure.class.as_str(),
        error = failure.message,
        retry_in_ms = delay.as_millis() as u64,
        "attempt failed"
    );
}

/// Logs a record that is parked after its attempts in place.
pub(super) fn record_parked(of: LoggedRecord<'_>, failure: &Failure, delay: Duration) {
    tracing::warn!(
        group = of.group,
        record = ?of.record,
        attempts = of.attempts,
        class = failure.class.as_str(),
        error = failure.message,
        retry_in_s = delay.as_secs(),
        "attempts failed; the record is parked, and its key waits"
    );
}

/// Logs a record that is dead-lettered.
pub(super) fn record_dead(of: LoggedRecord<'_>, class: Class, reason: &DeadReason) {
    tracing::error!(
        group = of.group,
        record = ?of.record,
        attempts = of.attempts,
        class = class.as_str(),
        stage = %reason.stage,
        reason = reason.message,
        "record failed for good; writing it to the dead-letter topic"
    );
}

/// Logs a record that an operator skipped.
pub(super) fn record_skipped(of: LoggedRecord<'_>, command: &Command) {
    tracing::warn!(
        group = of.group,
        record = ?of.record,
        command = command.id,
        by = command.by,
        why = command.why,
        "record skipped by an operator; writing it to the dead-letter topic"
    );
}

/// Logs a failed write of a dead letter.
pub(super) fn dead_letter_not_written(of: LoggedRecord<'_>, error: &WriteError) {
    tracing::error!(
        group = of.group,
        record = ?of.record,
        %error,
        "the dead letter cannot be written; the record stays unsettled and the write is retried"
    );
}

/// Logs a failed write to the retry topic.
pub(super) fn entry_not_written(of: LoggedRecord<'_>, topic: &str, error: &WriteError) {
    tracing::error!(
        group = of.group,
        record = ?of.record,
        topic,
        %error,
        "the record cannot be parked; it stays unsettled and the write is retried"
    );
}

/// Logs a record that the retry topic refuses.
pub(super) fn entry_refused(of: LoggedRecord<'_>, topic: &str, error: &PublishError) {
    tracing::error!(
        group = of.group,
        record = ?of.record,
        topic,
        %error,
        "the retry topic does not accept the record"
    );
}

/// Logs a key that cannot be held after a dead letter.
pub(super) fn key_not_held(of: LoggedRecord<'_>, cause: &str) {
    tracing::error!(
        group = of.group,
        record = ?of.record,
        cause,
        "the key cannot be held for the replay of its dead letter; its later records are handled"
    );
}

/// Logs a record whose headers are gone with it.
pub(super) fn headers_deleted(of: LoggedRecord<'_>) {
    tracing::warn!(
        group = of.group,
        record = ?of.record,
        "the record was deleted from its topic: it continues without its headers"
    );
}

/// Logs a failed read of a record's headers.
pub(super) fn headers_not_read(of: LoggedRecord<'_>, error: &dyn Display) {
    tracing::warn!(
        group = of.group,
        record = ?of.record,
        %error,
        "the record's headers cannot be read; the record waits, and the read is retried"
    );
}

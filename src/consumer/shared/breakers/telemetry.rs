//! The log lines about breakers and probes.

use std::time::Duration;

/// Logs that a breaker opened.
pub(super) fn breaker_opened(group: &str, dependency: &str, reason: &str) {
    tracing::error!(
        group,
        dependency,
        reason,
        "a dependency is down: no handler starts until it answers; no record is lost, and no attempt is counted"
    );
}

/// Logs that a breaker closed, and why.
pub(super) fn breaker_closed(group: &str, dependency: &str, why: &str) {
    tracing::warn!(
        group,
        dependency,
        why,
        "handlers start again after an outage of a dependency"
    );
}

/// Logs a probe that takes longer than the breaker allows.
pub(super) fn probe_is_late(group: &str, dependency: &str, after: Duration) {
    tracing::warn!(
        group,
        dependency,
        after_s = after.as_secs(),
        "a probe did not end in time: the next record probes beside it; give the handler's calls a timeout"
    );
}

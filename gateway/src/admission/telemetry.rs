//! The metrics of admission.
//!
//! The handles are made once: a request looks none up. A recorder must be installed before
//! [`Telemetry::new`].
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `gateway_admission_limit` | gauge | – | the concurrency limit |
//! | `gateway_in_flight` | gauge | – | admitted requests in progress |
//! | `gateway_refused_total` | counter | reason | refused requests |
//! | `gateway_queue_age_seconds` | gauge | – | age of the oldest event that waits for the brokers |
//!
//! `reason` is one of `rate`, `backlog_events`, `queue_age`, `concurrency`, `uploads` and
//! `deadline`. The gauges are set by requests: without any they keep their last value.

use super::refusal::RefusalReason;
use crate::store::Backlog;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

const LIMIT: &str = "gateway_admission_limit";
const IN_FLIGHT: &str = "gateway_in_flight";
const REFUSED: &str = "gateway_refused_total";
const QUEUE_AGE: &str = "gateway_queue_age_seconds";

/// The handles of the metrics.
#[derive(Debug)]
pub(super) struct Telemetry {
    limit: Gauge,
    in_flight: Gauge,
    queue_age: Gauge,
    /// In the order of [`RefusalReason::ALL`].
    refused: [Counter; RefusalReason::ALL.len()],
}

/// The concurrency limit and its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConcurrencyMeasured {
    /// The limit.
    pub(super) limit: u32,
    /// Requests in flight.
    pub(super) in_flight: u32,
}

impl Telemetry {
    /// Makes the handles with the recorder that is installed.
    pub(super) fn new() -> Self {
        describe_gauge!(LIMIT, "Requests that may be in progress at a time");
        describe_gauge!(IN_FLIGHT, "Admitted requests in progress");
        describe_gauge!(
            QUEUE_AGE,
            "Age of the oldest event that waits for the brokers"
        );
        describe_counter!(REFUSED, "Refused requests, by reason");
        Self {
            limit: gauge!(LIMIT),
            in_flight: gauge!(IN_FLIGHT),
            queue_age: gauge!(QUEUE_AGE),
            refused: RefusalReason::ALL.map(|reason| counter!(REFUSED, "reason" => reason.name())),
        }
    }

    /// Reports the limit and its use.
    pub(super) fn concurrency_measured(&self, measured: ConcurrencyMeasured) {
        self.limit.set(f64::from(measured.limit));
        self.in_flight.set(f64::from(measured.in_flight));
    }

    /// Reports the backlog.
    pub(super) fn backlog_measured(&self, backlog: &Backlog) {
        let age = backlog.oldest_age.unwrap_or_default();
        self.queue_age.set(age.as_secs_f64());
    }

    /// Counts a refused request.
    pub(super) fn request_refused(&self, reason: RefusalReason) {
        self.refused[reason as usize].increment(1);
    }
}

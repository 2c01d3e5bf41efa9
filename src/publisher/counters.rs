//! Counts a topic's published records by result.

use super::error::Failure;
use crate::telemetry::Metric;
use metrics::{Counter, counter};

/// The results, as the metric's label names them.
const RESULTS: [&str; 3] = ["ok", "refused", "unknown"];

/// The counters of a topic. They are looked up in the recorder once and kept: a lookup by labels
/// costs more than the rest of a delivery report.
pub(super) struct TopicCounters([Counter; 3]);

/// Results that are counted together.
#[derive(Default)]
pub(super) struct Tally([u64; 3]);

impl Tally {
    /// Adds one record that was delivered or failed.
    pub(super) fn add(&mut self, failure: Option<&Failure>) {
        let result = match failure {
            None => 0,
            Some(
                Failure::Refused(_)
                | Failure::TooLarge(_)
                | Failure::Unfit(_)
                | Failure::NoTopic
                | Failure::NoPartition,
            ) => 1,
            Some(Failure::Unknown(_) | Failure::Fatal(_)) => 2,
        };
        self.0[result] += 1;
    }
}

impl TopicCounters {
    pub(super) fn new(topic: &str) -> Self {
        Self(RESULTS.map(|result| {
            counter!(Metric::Published.name(), "topic" => topic.to_owned(), "result" => result)
        }))
    }

    /// Counts a burst of records.
    pub(super) fn count(&self, tally: &Tally) {
        for (counter, records) in self.0.iter().zip(tally.0) {
            if records > 0 {
                counter.increment(records);
            }
        }
    }
}

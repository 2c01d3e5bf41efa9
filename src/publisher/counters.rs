//! Counts published records by topic and result.

use super::error::Failure;
use crate::telemetry::Metric;
use foldhash::fast::RandomState;
use metrics::{Counter, counter};
use std::collections::HashMap;

/// Counters by topic. Each is looked up in the recorder once and kept: a lookup by labels costs
/// more than the rest of a delivery report.
#[derive(Default)]
pub(super) struct Published {
    by_topic: HashMap<String, [Counter; 3], RandomState>,
}

impl Published {
    /// Counts one record that was delivered or failed.
    pub(super) fn count(&mut self, topic: &str, failure: Option<&Failure>) {
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
        if let Some(counters) = self.by_topic.get(topic) {
            counters[result].increment(1);
            return;
        }
        let counters = ["ok", "refused", "unknown"].map(|result| {
            counter!(Metric::Published.name(), "topic" => topic.to_owned(), "result" => result)
        });
        counters[result].increment(1);
        self.by_topic.insert(topic.to_owned(), counters);
    }
}

//! Reports entries of retry partitions that Kafka deleted before they were settled, and accepts
//! their loss on an operator's command.
//!
//! Until then they count as unsettled, so that the alarm returns after a restart.
//!
//! A parked record is the only copy that is still to be handled: its source offset is committed.
//! Kafka deletes it only if somebody changed the topic, which the check of own topics reports
//! before.
//!
//! | loss | noticed by | ends by |
//! |---|---|---|
//! | first entries of a partition | its first offset | `groups accept-loss`, or a revoke |
//! | a record that is due and gone | the dispatcher | the same |
//! | a whole topic | the check of own topics | the topic's creation, which ends the run |

use crate::consumer::retry_reader::telemetry::{self, LoggedPartition};
use crate::consumer::shared::Shared;
use crate::consumer::shared::retry_topics::Loss;
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::partition::Partition;
use crate::recovery::parking::ParkedSet;
use crate::telemetry::Metric;
use std::collections::BTreeMap;

/// The health component of lost entries.
const COMPONENT: &str = "parked_records";

impl Shared {
    /// Reports the lost entries of this partition's retry partition.
    pub(crate) fn report_loss(&self, partition: &Partition) {
        let Some(retry) = &partition.retry else {
            return;
        };
        let (entries, first) = {
            let state = retry.state();
            (state.lost(), state.first_lost())
        };
        let number = partition.partition;
        let status = self
            .retry_topics
            .losses
            .change(&self.group, |losses| match first {
                None => drop(losses.remove(&partition.epoch.0)),
                Some(first) => {
                    let place = format!("{}/{number}", retry.topic);
                    let loss = Loss {
                        place,
                        entries,
                        first,
                    };
                    losses.insert(partition.epoch.0, loss);
                }
            });
        self.parked_lost(&retry.topic, number).set(entries as f64);
        self.health.set_ready(COMPONENT, status);
    }

    /// Reports retry topics that do not exist. The records that this member knew to be parked in
    /// them are lost.
    pub(crate) fn show_gone_retry_topics<'a>(&self, gone: impl Iterator<Item = &'a str>) {
        let waiting = gone.map(|topic| (topic.to_owned(), self.retry_topics.waiting_in(topic)));
        let topics: BTreeMap<_, _> = waiting.filter(|(_, (_, records))| *records > 0).collect();
        let mut new_losses = Vec::new();
        let status = self.retry_topics.losses.change_all(&self.group, |all| {
            let is_new = |(topic, _): &(&String, &(usize, usize))| !all.topics.contains_key(*topic);
            let fresh = topics.iter().filter(is_new);
            new_losses = fresh
                .map(|(topic, waiting)| (topic.clone(), *waiting))
                .collect();
            all.topics = topics;
        });
        for (topic, (keys, records)) in new_losses {
            telemetry::topic_lost(&self.group, &topic, keys, records);
        }
        self.health.set_ready(COMPONENT, status);
    }

    /// Clears the losses of revoked epochs.
    pub(crate) fn forget_losses(&self, gone: &[Epoch]) {
        let status = self.retry_topics.losses.change(&self.group, |losses| {
            losses.retain(|epoch, _| gone.iter().all(|gone| gone.0 != *epoch));
        });
        self.health.set_ready(COMPONENT, status);
    }

    /// Accepts the loss of this partition's lost entries. Returns their number.
    pub(crate) fn accept_loss(&self, partition: &Partition) -> u64 {
        let Some(retry) = &partition.retry else {
            return 0;
        };
        let entries = retry.change(ParkedSet::accept_loss);
        if entries > 0 {
            let logged = LoggedPartition {
                group: &self.group,
                topic: &retry.topic,
                partition: partition.partition,
            };
            telemetry::loss_accepted(logged, entries);
        }
        self.report_loss(partition);
        entries
    }

    /// The gauge of lost entries of a retry partition.
    fn parked_lost(&self, topic: &str, partition: i32) -> metrics::Gauge {
        let partition = partition.to_string();
        let labels = [
            ("group", &*self.group),
            ("topic", topic),
            ("partition", &*partition),
        ];
        self.health.gauge(Metric::ParkedLost, &labels)
    }
}

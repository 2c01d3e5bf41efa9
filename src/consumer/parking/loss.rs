//! Entries of retry partitions that Kafka deleted before they were settled: how the health shows them, and how an operator gives
//! them up.
//!
//! Until then they count as unsettled, so that the alarm comes again after a restart.

use super::super::engine::Engine;
use super::super::ledger::Epoch;
use super::super::partition::Partition;
use crate::telemetry::Metric;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The component under which lost entries show in the health.
const COMPONENT: &str = "parked_records";

/// What is lost.
#[derive(Default)]
pub(crate) struct Losses(Mutex<All>);

#[derive(Default)]
struct All {
    /// Lost entries by the epoch of their partition.
    entries: BTreeMap<u64, Loss>,
    /// Retry topics that were deleted, with the keys and records that this member knew in them.
    topics: BTreeMap<String, (usize, usize)>,
}

struct Loss {
    place: String,
    entries: u64,
    first: i64,
}

impl Losses {
    fn change(
        &self,
        group: &str,
        change: impl FnOnce(&mut BTreeMap<u64, Loss>),
    ) -> Result<(), String> {
        self.change_all(group, |all| change(&mut all.entries))
    }

    fn change_all(&self, group: &str, change: impl FnOnce(&mut All)) -> Result<(), String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut all);
        told_topic(group, &all.topics)?;
        told(group, &all.entries)
    }
}

fn told_topic(group: &str, topics: &BTreeMap<String, (usize, usize)>) -> Result<(), String> {
    let Some((topic, (keys, records))) = topics.first_key_value() else {
        return Ok(());
    };
    Err(format!(
        "{topic} was deleted while {records} records of {keys} keys were parked in it: they are lost; evenkeel audit names those of \
         the group {group}; handle them again from the source, then start this member anew"
    ))
}

fn told(group: &str, losses: &BTreeMap<u64, Loss>) -> Result<(), String> {
    let Some(first) = losses.values().next() else {
        return Ok(());
    };
    let entries: u64 = losses.values().map(|loss| loss.entries).sum();
    Err(format!(
        "{entries} entries of {} retry partitions were deleted by Kafka before they were settled, from {}@{} on: what was parked \
         there is lost; find out why with: evenkeel groups topics {group}; then give them up with: evenkeel groups accept-loss \
         {group}",
        losses.len(),
        first.place,
        first.first,
    ))
}

impl Engine {
    /// Shows what is lost of this partition's retry partition.
    pub(crate) fn show_loss(&self, partition: &Partition) {
        let Some(retry) = &partition.retry else {
            return;
        };
        let (entries, first) = {
            let state = retry.state();
            (state.lost(), state.first_lost())
        };
        let number = partition.partition;
        let told = self
            .parking
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
        self.health.set_ready(COMPONENT, told);
    }

    /// Retry topics that do not exist. What was parked in them is lost, as far as this member knows of it in its partitions.
    pub(crate) fn show_gone_retry_topics<'a>(&self, gone: impl Iterator<Item = &'a str>) {
        let waiting = gone.map(|topic| (topic.to_owned(), self.parking.waiting_in(topic)));
        let topics: BTreeMap<_, _> = waiting.filter(|(_, (_, records))| *records > 0).collect();
        let mut news = Vec::new();
        let told = self.parking.losses.change_all(&self.group, |all| {
            let is_new = |(topic, _): &(&String, &(usize, usize))| !all.topics.contains_key(*topic);
            let fresh = topics.iter().filter(is_new);
            news = fresh
                .map(|(topic, waiting)| (topic.clone(), *waiting))
                .collect();
            all.topics = topics;
        });
        for (topic, (keys, records)) in news {
            tracing::error!(
                group = self.group,
                topic,
                keys,
                records,
                "a retry topic was deleted while records were parked in it: they are lost; evenkeel audit names them"
            );
        }
        self.health.set_ready(COMPONENT, told);
    }

    /// These partitions went.
    pub(crate) fn forget_losses(&self, gone: &[Epoch]) {
        let told = self.parking.losses.change(&self.group, |losses| {
            losses.retain(|epoch, _| gone.iter().all(|gone| gone.0 != *epoch));
        });
        self.health.set_ready(COMPONENT, told);
    }

    /// Gives up what is lost of this partition's retry partition, and says how much.
    pub(crate) fn accept_loss(&self, partition: &Partition) -> u64 {
        let Some(retry) = &partition.retry else {
            return 0;
        };
        let entries = retry.change(super::Parking::accept_loss);
        if entries > 0 {
            tracing::warn!(group = self.group, topic = %retry.topic, partition = partition.partition, entries, "an operator accepts that entries of the retry partition are lost");
        }
        self.show_loss(partition);
        entries
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_names_how_many_are_lost_and_the_command() {
        let losses = Losses::default();
        let loss = |first| Loss {
            place: "retry.g.t/3".to_owned(),
            entries: 4,
            first,
        };
        let shown = losses.change("g", |losses| drop(losses.insert(1, loss(7))));
        let shown = shown.expect_err("lost");
        assert!(
            shown.starts_with("4 entries of 1 retry partitions"),
            "{shown}"
        );
        assert!(shown.contains("retry.g.t/3@7"), "{shown}");
        assert!(shown.ends_with("evenkeel groups accept-loss g"), "{shown}");
        let shown = losses.change("g", |losses| drop(losses.insert(2, loss(9))));
        assert!(shown.is_err_and(|shown| shown.starts_with("8 entries of 2")));
        assert_eq!(losses.change("g", BTreeMap::clear), Ok(()));
    }
}

//! Reports dead letters that cannot be written, and floods of them, to the health and the metrics.
//!
//! One component shows both, in order: a flood, then the topics that cannot be written. An alarm of
//! a record ends with its drop, so that a revoked record cannot leave it raised.

use crate::telemetry::{Metric, Reporter};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The component of the alarms in the health.
const COMPONENT: &str = "dead_letters";

/// The alarms of one consumer.
pub(crate) struct Alarms {
    /// For the labels of the gauges.
    group: String,
    health: Reporter,
    /// Locked while the health is set, so that it shows the latest state.
    state: Mutex<State>,
}

/// What is wrong now.
#[derive(Default)]
struct State {
    flood: Option<String>,
    /// Topics with records whose dead letters cannot be written.
    unwritable: BTreeMap<String, Unwritable>,
}

/// Records that wait for one topic's dead letters.
struct Unwritable {
    records: usize,
    /// Why the last attempt failed.
    reason: String,
}

impl State {
    /// The state for the health.
    fn status(&self) -> Result<(), String> {
        let unwritable = self.unwritable.iter().map(|(topic, unwritable)| {
            let Unwritable { records, reason } = unwritable;
            format!(
                "the dead-letter topic of {topic} cannot be written, records that wait: {records}: {reason}"
            )
        });
        let reasons: Vec<String> = self.flood.iter().cloned().chain(unwritable).collect();
        match reasons.is_empty() {
            true => Ok(()),
            false => Err(reasons.join("; ")),
        }
    }
}

impl Alarms {
    /// No alarm is raised.
    pub(crate) fn new(group: &str, health: Reporter) -> Self {
        Self {
            group: group.to_owned(),
            health,
            state: Mutex::default(),
        }
    }

    /// Raises the alarm of a flood, or clears it if there is no reason.
    pub(crate) fn flood(&self, reason: Option<String>) {
        let mut state = self.lock();
        let flooded = if reason.is_some() { 1.0 } else { 0.0 };
        self.health
            .gauge(Metric::DeadLetterFlood, &[("group", &self.group)])
            .set(flooded);
        state.flood = reason;
        self.health.set_ready(COMPONENT, state.status());
    }

    /// Returns an alarm for one record of `topic`. It is not raised yet.
    pub(crate) fn for_topic(&self, topic: &str) -> Alarm<'_> {
        Alarm {
            alarms: self,
            topic: topic.to_owned(),
            is_raised: false,
        }
    }

    /// Applies a change, and updates the gauge and the health under one lock.
    fn change(&self, topic: &str, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let records = state
            .unwritable
            .get(topic)
            .map_or(0, |unwritable| unwritable.records);
        let labels = [("group", self.group.as_str()), ("topic", topic)];
        self.health
            .gauge(Metric::DeadLettersWaiting, &labels)
            .set(records as f64);
        self.health.set_ready(COMPONENT, state.status());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The alarm of one record. Its drop clears it: the dead letter is written, or the partition was
/// revoked.
///
/// Raised by the first failed write, and again by each further one with its reason.
pub(crate) struct Alarm<'a> {
    alarms: &'a Alarms,
    topic: String,
    is_raised: bool,
}

impl Alarm<'_> {
    /// Raises the alarm: the dead letter cannot be written.
    ///
    /// `why` is the failure with its remedy, as the health shows it.
    pub(crate) fn raise(&mut self, why: &str) {
        let is_new = !std::mem::replace(&mut self.is_raised, true);
        self.alarms.change(&self.topic, |state| {
            let topic = self.topic.clone();
            let entry = state.unwritable.entry(topic).or_insert(Unwritable {
                records: 0,
                reason: String::new(),
            });
            entry.records += usize::from(is_new);
            why.clone_into(&mut entry.reason);
        });
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if !self.is_raised {
            return;
        }
        self.alarms.change(&self.topic, |state| {
            if let Some(entry) = state.unwritable.get_mut(&self.topic) {
                entry.records -= 1;
                if entry.records == 0 {
                    state.unwritable.remove(&self.topic);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Health;

    fn reason(health: &Health) -> String {
        health
            .not_ready()
            .pop()
            .map_or_else(String::new, |(_, reason)| reason)
    }

    #[test]
    fn the_end_of_one_alarm_clears_no_other() {
        let health = Health::default();
        let alarms = Alarms::new("payments", Reporter::new(health.clone(), "consumer", ""));
        let mut orders = alarms.for_topic("orders");
        let mut more_orders = alarms.for_topic("orders");
        let mut stock = alarms.for_topic("stock");
        drop(alarms.for_topic("stock"));
        assert_eq!(reason(&health), "", "none was raised");
        orders.raise("missing");
        orders.raise("still missing");
        more_orders.raise("forbidden");
        stock.raise("full");
        let of_orders = |records: usize| {
            format!(
                "the dead-letter topic of orders cannot be written, records that wait: {records}: forbidden"
            )
        };
        let of_stock =
            "the dead-letter topic of stock cannot be written, records that wait: 1: full";
        assert_eq!(reason(&health), format!("{}; {of_stock}", of_orders(2)));
        drop(orders);
        assert_eq!(reason(&health), format!("{}; {of_stock}", of_orders(1)));
        drop(stock);
        assert_eq!(reason(&health), of_orders(1));
        alarms.flood(Some("a flood".to_owned()));
        drop(more_orders);
        assert_eq!(reason(&health), "a flood");
        alarms.flood(None);
        assert_eq!(reason(&health), "");
    }
}

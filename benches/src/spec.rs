//! A workload, the input of one turn, and its result.

use crate::workload::Workload;
use evenkeel::kafka::KafkaConfig;
use evenkeel_program::exit::Usage;
use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A workload: its data, its contestants and its aims.
pub(crate) struct Plan {
    /// The workload in one line.
    pub(crate) title: String,
    /// Unit of a turn's value.
    pub(crate) unit: &'static str,
    /// The contestants in the order of their turns. The first one represents `raw`, if there is
    /// one.
    pub(crate) contestants: Vec<Contestant>,
    pub(crate) aims: Vec<Aim>,
    /// Turns of each contestant, unless the user chooses another number.
    pub(crate) runs: usize,
}

impl Plan {
    /// The plan of the named contestants, with the aims that need no other. Without names, all of
    /// it.
    pub(crate) fn only(self, names: &[String]) -> Result<Self, Usage> {
        if names.is_empty() {
            return Ok(self);
        }
        self.check(names)?;
        Ok(self.retain(|name| names.iter().any(|named| named == name)))
    }

    /// The plan of all contestants but the named ones, with the aims that need none of these.
    pub(crate) fn without(self, names: &[String]) -> Result<Self, Usage> {
        self.check(names)?;
        Ok(self.retain(|name| names.iter().all(|named| named != name)))
    }

    /// Refuses a name that no contestant has.
    fn check(&self, names: &[String]) -> Result<(), Usage> {
        let is_known = |name: &&String| self.contestants.iter().any(|known| known.name == **name);
        let Some(unknown) = names.iter().find(|name| !is_known(name)) else {
            return Ok(());
        };
        let known: Vec<&str> = self.contestants.iter().map(|known| known.name).collect();
        let known = known.join(", ");
        Err(Usage(format!(
            "there is no contestant {unknown}: this workload has {known}"
        )))
    }

    fn retain(mut self, is_kept: impl Fn(&str) -> bool) -> Self {
        self.contestants
            .retain(|contestant| is_kept(contestant.name));
        self.aims
            .retain(|aim| is_kept(aim.contestant) && aim.figure.other().is_none_or(&is_kept));
        self
    }
}

/// A contestant of a workload.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// The data on its topic. `None` if it writes itself or needs no Kafka.
    pub(crate) data: Option<Data>,
}

/// The data of a topic: `records` records with mixed keys, in order per key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Data {
    pub(crate) records: u64,
    pub(crate) size: usize,
    pub(crate) partitions: i32,
    pub(crate) keys: usize,
    pub(crate) form: Form,
}

/// The form of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    /// A JSON value without headers.
    Plain,
    /// A CloudEvent in binary mode.
    Event,
    /// A CloudEvent as handlers publish them: with a derived id, which has no order.
    Derived,
}

/// The input of one turn.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) workload: Workload,
    pub(crate) contestant: String,
    pub(crate) brokers: String,
    /// The prepared topic, or an empty one to which the contestant writes.
    pub(crate) topic: String,
    pub(crate) data: Data,
    /// Client properties for every contestant, as `name=value`.
    pub(crate) properties: Vec<String>,
}

impl Spec {
    /// evenkeel's connection settings with the properties.
    pub(crate) fn kafka(&self) -> anyhow::Result<KafkaConfig> {
        self.kafka_with(&[])
    }

    /// evenkeel's connection settings: `tuning`, overridden by the properties.
    pub(crate) fn kafka_with(&self, tuning: &[&str]) -> anyhow::Result<KafkaConfig> {
        let mut kafka = KafkaConfig::new(&self.brokers);
        let given = self.properties.iter().map(String::as_str);
        for property in tuning.iter().copied().chain(given) {
            kafka.set(property)?;
        }
        Ok(kafka)
    }

    /// A raw client's configuration: `tuning`, overridden by the properties.
    pub(crate) fn raw(&self, tuning: &[(&str, &str)]) -> ClientConfig {
        let given = self.properties.iter();
        let given = given.filter_map(|property| property.split_once('='));
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        for (name, value) in tuning.iter().copied().chain(given) {
            config.set(name, value);
        }
        config
    }
}

/// The result of one turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Turn {
    /// The value in the workload's unit.
    pub(crate) value: f64,
    /// Processor time of all threads per message, in microseconds. `None` if that has no meaning.
    pub(crate) us_per_message: Option<f64>,
    /// The peak of resident memory, in MiB.
    pub(crate) rss_mib: f64,
    /// Other figures by name, such as `p99_ms`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) details: BTreeMap<String, f64>,
}

/// An aim of a contestant.
pub(crate) struct Aim {
    pub(crate) contestant: &'static str,
    pub(crate) figure: Figure,
    pub(crate) bound: Bound,
}

/// The figure that an aim bounds, computed from medians.
pub(crate) enum Figure {
    /// The value.
    Value,
    /// The value as a share of another contestant's.
    RatioTo(&'static str),
    /// The value minus another contestant's.
    MoreThan(&'static str),
    /// Processor time per message.
    UsPerMessage,
    /// Processor time per message, minus another contestant's.
    UsMoreThan(&'static str),
    /// The peak of resident memory.
    RssMib,
    /// A detail.
    Detail(&'static str),
    /// A detail as a share of another contestant's.
    DetailRatioTo(&'static str, &'static str),
}

impl Figure {
    /// The other contestant that it needs.
    fn other(&self) -> Option<&'static str> {
        match self {
            Self::RatioTo(other)
            | Self::MoreThan(other)
            | Self::UsMoreThan(other)
            | Self::DetailRatioTo(_, other) => Some(*other),
            Self::Value | Self::UsPerMessage | Self::RssMib | Self::Detail(_) => None,
        }
    }
}

/// Whether the bound is a minimum or a maximum.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Aim {
    pub(crate) fn new(contestant: &'static str, figure: Figure, bound: Bound) -> Self {
        Self {
            contestant,
            figure,
            bound,
        }
    }
}

impl Bound {
    pub(crate) fn holds(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(least) => measured >= least,
            Self::AtMost(most) => measured <= most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let contestant = |name| Contestant { name, data: None };
        let at_least = |figure| Aim::new("evenkeel", figure, Bound::AtLeast(1.0));
        Plan {
            title: "a test".to_owned(),
            unit: "messages/s",
            contestants: ["raw", "evenkeel"].map(contestant).into(),
            aims: vec![at_least(Figure::RatioTo("raw")), at_least(Figure::Value)],
            runs: 1,
        }
    }

    #[test]
    fn a_plan_of_named_contestants_has_the_aims_that_need_no_other() {
        let count = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let plan = plan().only(&names).expect("known names");
            (plan.contestants.len(), plan.aims.len())
        };
        assert_eq!(count(&[]), (2, 2));
        assert_eq!(count(&["raw", "evenkeel"]), (2, 2));
        assert_eq!(count(&["evenkeel"]), (1, 1));
        assert_eq!(count(&["raw"]), (1, 0));
    }

    #[test]
    fn contestants_are_left_out_with_the_aims_that_need_them() {
        let count = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let plan = plan().without(&names).expect("known names");
            (plan.contestants.len(), plan.aims.len())
        };
        assert_eq!(count(&[]), (2, 2));
        assert_eq!(count(&["raw"]), (1, 1));
        assert_eq!(count(&["evenkeel"]), (1, 0));
    }

    #[test]
    fn an_unknown_contestant_is_named_with_the_known_ones() {
        let refused = plan().only(&["other".to_owned()]).err();
        let refused = refused.expect("there is no such contestant").to_string();
        assert!(refused.contains("other"), "{refused}");
        assert!(refused.contains("raw, evenkeel"), "{refused}");
    }
}

//! A workload, the input of one turn, and its result.

use crate::workload::Workload;
use evenkeel::kafka::KafkaConfig;
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

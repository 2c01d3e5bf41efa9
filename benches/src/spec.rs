//! What a workload is, what one turn of it is told, and what the turn came to.

use crate::workloads::Workload;
use evenkeel::kafka::KafkaConfig;
use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A workload: its data, its contestants and what it has to reach.
pub(crate) struct Plan {
    /// What is done, in a line.
    pub(crate) title: String,
    /// What a turn's value counts.
    pub(crate) unit: &'static str,
    /// In the order in which they take turns; the first is what `raw` stands for, unless there is none.
    pub(crate) contestants: Vec<Contestant>,
    pub(crate) aims: Vec<Aim>,
    /// Turns of each contestant, unless the user says otherwise.
    pub(crate) runs: usize,
}

/// Who takes turns.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// What stands on its topic; none when it writes itself or needs no Kafka.
    pub(crate) data: Option<Data>,
}

/// The data of a topic: `records` records, each key's share in order, keys mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Data {
    pub(crate) records: u64,
    pub(crate) size: usize,
    pub(crate) partitions: i32,
    pub(crate) keys: usize,
    pub(crate) form: Form,
}

/// What a record of the data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    /// A JSON value without headers.
    Plain,
    /// A CloudEvent in binary mode.
    Event,
}

/// What one turn is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) workload: Workload,
    pub(crate) contestant: String,
    pub(crate) brokers: String,
    /// The prepared topic, or an empty one to write to.
    pub(crate) topic: String,
    pub(crate) data: Data,
    /// Properties of the client, as `name=value`, for every contestant.
    pub(crate) properties: Vec<String>,
}

impl Spec {
    /// evenkeel's connection with the properties.
    pub(crate) fn kafka(&self) -> anyhow::Result<KafkaConfig> {
        self.tuned(&[])
    }

    /// evenkeel's connection: `tuning`, and the properties over it.
    pub(crate) fn tuned(&self, tuning: &[&str]) -> anyhow::Result<KafkaConfig> {
        let mut kafka = KafkaConfig::new(&self.brokers);
        let given = self.properties.iter().map(String::as_str);
        for property in tuning.iter().copied().chain(given) {
            kafka.set(property)?;
        }
        Ok(kafka)
    }

    /// A raw client's configuration: `tuning`, and the properties over it.
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

/// What one turn came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Turn {
    /// In the workload's unit.
    pub(crate) value: f64,
    /// Processor time of all threads per message, in microseconds; none where that says nothing.
    pub(crate) us_per_message: Option<f64>,
    /// The most memory that was resident, in MiB.
    pub(crate) rss_mib: f64,
    /// Further figures by name, such as `p99_ms`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) details: BTreeMap<String, f64>,
}

/// What a contestant has to reach.
pub(crate) struct Aim {
    pub(crate) contestant: &'static str,
    pub(crate) figure: Figure,
    pub(crate) bound: Bound,
}

/// What is looked at, of the medians.
pub(crate) enum Figure {
    /// The value.
    Value,
    /// The value as a share of another contestant's.
    RatioTo(&'static str),
    /// The value less another contestant's.
    MoreThan(&'static str),
    /// Processor time per message.
    UsPerMessage,
    /// Processor time per message, less another contestant's.
    UsMoreThan(&'static str),
    /// The most resident memory.
    RssMib,
    /// A detail.
    Detail(&'static str),
    /// A detail as a share of another contestant's.
    DetailRatioTo(&'static str, &'static str),
}

/// Which way is good.
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

//! The workloads: one file each. A new one is a variant here and a file with its plan and its turn.

mod backlog;
mod consume;
mod decode;
mod effects;
mod hot_key;
mod keys;
mod latency;
mod lifecycle;
mod parked;
mod publish;
mod rebalance;
mod shared_rows;
mod slow;

use crate::spec::{Data, Plan, Spec, Turn};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// Reads a topic with an empty handler.
    Consume,
    /// Reads CloudEvents as structs, with and without schema validation.
    Decode,
    /// A handler that waits 10 ms, concurrency 1,000 and 10,000.
    Slow,
    /// Publishes with every receipt awaited.
    Publish,
    /// Publish to handler at 500 a second.
    Latency,
    /// One effect an event in SQLite and PostgreSQL, inbox on.
    Effects,
    /// Handlers that update the same few rows of PostgreSQL, by number of connections.
    SharedRows,
    /// Memory before a backlog of 10 million.
    Backlog,
    /// Many partitions and keys beside few.
    Keys,
    /// What a hot key, or one that computes, does to the others.
    HotKey,
    /// How long a record waits while a member joins and leaves.
    Rebalance,
    /// Start, idling and stop.
    Lifecycle,
    /// An assignment with a million parked records.
    Parked,
}

impl Workload {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        let name = self.to_possible_value();
        name.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it is and what it has to reach.
    pub(crate) fn plan(self) -> Plan {
        match self {
            Self::Consume => consume::plan(),
            Self::Decode => decode::plan(),
            Self::Slow => slow::plan(),
            Self::Publish => publish::plan(),
            Self::Latency => latency::plan(),
            Self::Effects => effects::plan(),
            Self::SharedRows => shared_rows::plan(),
            Self::Backlog => backlog::plan(),
            Self::Keys => keys::plan(),
            Self::HotKey => hot_key::plan(),
            Self::Rebalance => rebalance::plan(),
            Self::Lifecycle => lifecycle::plan(),
            Self::Parked => parked::plan(),
        }
    }

    /// What a contestant without data writes, where that counts records.
    pub(crate) fn writes(self) -> Data {
        consume::DATA
    }

    /// Takes one turn, in this process.
    pub(crate) async fn turn(self, spec: &Spec) -> anyhow::Result<Turn> {
        match self {
            Self::Consume => consume::turn(spec).await,
            Self::Decode => decode::turn(spec).await,
            Self::Slow => slow::turn(spec).await,
            Self::Publish => publish::turn(spec).await,
            Self::Latency => latency::turn(spec).await,
            Self::Effects => effects::turn(spec).await,
            Self::SharedRows => shared_rows::turn(spec).await,
            Self::Backlog => backlog::turn(spec).await,
            Self::Keys => keys::turn(spec).await,
            Self::HotKey => hot_key::turn(spec).await,
            Self::Rebalance => rebalance::turn(spec).await,
            Self::Lifecycle => lifecycle::turn(spec).await,
            Self::Parked => parked::turn(spec).await,
        }
    }
}

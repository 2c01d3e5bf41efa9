//! The workloads by name.

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
    /// The name on the command line.
    pub(crate) fn name(self) -> String {
        let name = self.to_possible_value();
        name.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

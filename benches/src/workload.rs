//! The workloads by name.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// Read a topic with an empty handler.
    Consume,
    /// Read CloudEvents as structs, with and without schema validation.
    Decode,
    /// Run a handler that waits 10 ms, with concurrency 1,000 and 10,000.
    Slow,
    /// Publish, and await every receipt.
    Publish,
    /// Time from publish to handler, at 500 events per second.
    Latency,
    /// Write one effect per event in SQLite and PostgreSQL, with an inbox.
    Effects,
    /// Update the same few rows of PostgreSQL, by number of connections.
    SharedRows,
    /// Publish a full outbox of SQLite and PostgreSQL by a relay.
    Relay,
    /// Publish through an outbox in PostgreSQL while commits take 20 ms.
    OutboxPublish,
    /// Memory with a backlog of 10 million records.
    Backlog,
    /// Many partitions and keys compared with few.
    Keys,
    /// Effect of a hot key, or a key with a slow handler, on the others.
    HotKey,
    /// Delay of records while a member joins and leaves.
    Rebalance,
    /// Start, idle time and stop.
    Lifecycle,
    /// Assignment with a million parked records.
    Parked,
    /// Post over HTTP, compared with plain routes.
    Gateway,
    /// Post over HTTP at multiples of the capacity.
    GatewayOverload,
    /// Post over HTTP while the brokers are gone for 30 s.
    GatewayOutage,
    /// Stream events to 1, 100 and 5,000 clients.
    GatewayStreams,
    /// One effect and one published event for each event, beside hand-written code and others;
    /// needs Maven and a JDK.
    Peers,
    /// Place orders in the whole shop: rate, processor time an effect, time until dispatch.
    Shop,
    /// Costs by members, keys, payload size and inbox rows: 15 minutes, 10 GB, not part of `all`.
    Growth,
}

impl Workload {
    /// The name on the command line.
    pub(crate) fn name(self) -> String {
        let name = self.to_possible_value();
        name.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether `all` includes it: what takes 25 minutes and needs nothing but Kafka.
    pub(crate) fn is_in_all(self) -> bool {
        !matches!(self, Self::Peers | Self::Growth)
    }
}

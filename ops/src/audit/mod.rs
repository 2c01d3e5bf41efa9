//! The audit: proves for a group and a topic that every event reached its end, once and in order.
//! It reads the logs and the store; it trusts no counter of the group.
//!
//! Every record below the group's committed offset needs one end: a row in the inbox, a dead
//! letter, a parked record, a skip that members acknowledged, or a type that the group does not
//! handle. The audit reports a record as
//!
//! - **missing** if it has no end;
//! - **doubled** if it has an effect and a dead letter that was never replayed, or effects by two
//!   handlers where one is expected;
//! - **out of order** if its effect came before that of an earlier record of its key.
//!
//! `docs/src/operate/audit.md` explains what a report proves and what it cannot prove.
//!
//! - [`AuditSettings`] and [`Handlers`]: the input; [`AuditReport`]: the result
//! - `verify`: the rules, pure, over `Sources`; `pending`, `contradictions`, `reordering`: their
//!   tables, each bounded
//! - `identity`: the identity of a record; `logs`: the sources as Kafka and a store implement them
//!
//! ```no_run
//! use evenkeel::inbox::MemoryInbox;
//! use evenkeel::kafka::KafkaConfig;
//! use evenkeel_ops::Cluster;
//! use evenkeel_ops::audit::{AuditSettings, audit};
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! # async fn example(inbox: MemoryInbox) -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = Cluster::new(KafkaConfig::from_env()?, Duration::from_secs(10));
//! let settings = AuditSettings::new("payments", "shop.orders");
//! let report = audit(&cluster, settings, Arc::new(inbox), |_| {}).await?;
//! println!("{} records, proven: {}", report.total.records, report.proven);
//! # Ok(())
//! # }
//! ```

mod contradictions;
mod error;
mod identity;
mod logs;
mod pending;
mod reordering;
mod report;
mod settings;
mod sources;
mod verify;

#[cfg(test)]
mod tests;

pub use error::AuditError;
pub use logs::audit;
pub use report::{AuditReport, EndCounts, Finding, Findings, PartitionRange, Progress, Step};
pub use settings::{AuditSettings, Handlers};

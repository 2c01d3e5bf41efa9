//! The audit: proves of a group and a topic that every event had its end, once and in order, from what the log and the store
//! say; no counter of the group is trusted.
//!
//! For each record of a range of offsets, below what the group has committed, there must be one of: its row in the inbox, a
//! dead letter, a parked record that waits, a skip that members recorded; or its type is one that the group does not handle.
//! What has none of these is missing. What has an effect and a dead letter that nobody replayed, or effects by two handlers
//! where one is expected, is doubled. What had its effect before an earlier record of its key is out of order. `docs/audit.md`
//! says what that proves and what it cannot.
//!
//! - [`AuditSettings`] and [`Handlers`]: what is audited · [`AuditReport`]: what came of it
//! - `judge`: the judgement, pure, over `Evidence` · `pending`, `contradictions`, `order`, `suspects`: its tables, each bounded
//! - `subject`: what a record is to the group · `logs`: the evidence as Kafka and a store have it
//!
//! ```no_run
//! use evenkeel::audit::{AuditSettings, audit};
//! use evenkeel::inbox::MemoryInbox;
//! use evenkeel::kafka::KafkaConfig;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! # async fn example(inbox: MemoryInbox) -> Result<(), Box<dyn std::error::Error>> {
//! let settings = AuditSettings::new("payments", "shop.orders");
//! let kafka = KafkaConfig::from_env()?;
//! let report = audit(&kafka, settings, Arc::new(inbox), Duration::from_secs(10), |_| {}).await?;
//! println!("{} records, proven: {}", report.total.records, report.proven);
//! # Ok(())
//! # }
//! ```

mod contradictions;
mod evidence;
mod judge;
mod logs;
mod order;
mod pending;
mod report;
mod settings;
mod subject;
mod suspects;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use logs::audit;
pub use report::{AuditReport, Finding, Findings, Stretch, Tally};
pub use settings::{AuditSettings, Handlers};

use crate::inbox::InboxError;
use crate::kafka::KafkaError;

/// How far an audit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it does.
    pub step: Step,
    /// In which pass over the topic, from 1.
    pub pass: u32,
    /// How many records of this step are done.
    pub done: u64,
    /// How many offsets there are for it; 0 where that is not known.
    pub total: u64,
}

/// What an audit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reads the dead letters.
    Letters,
    /// Reads the topic and asks the store.
    Topic,
    /// Reads the topic for copies of events that seem to be out of order.
    Copies,
}

/// Why an audit came to no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The cluster could not be asked.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] InboxError),
    /// The group has never committed an offset of the topic: there is nothing to prove.
    #[error(
        "the group {group} has committed nothing of {topic}; see: evenkeel groups describe {group}"
    )]
    NeverCommitted {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
    },
    /// No record has an effect, and the store has nothing of the group.
    #[error("the store has no delivery of the group {group}: is it the group's store?")]
    UnknownToStore {
        /// The group.
        group: String,
    },
    /// The caller has gone.
    #[error("the audit was stopped")]
    Stopped,
}

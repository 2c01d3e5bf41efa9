//! Commands to a running group: what stands on its control topic, and what follows from it.
//!
//! Pure: types, their form on the log, and the state that they add up to. The consumer's part, which reads the topic and
//! carries commands out, is `consumer::{control, steering, pause, skip}`; the tool writes them.
//!
//! The topic `control.<group>` has one partition, so that all members see all entries in one order, and is compacted.
//! What lasts (pauses, the rate) is written under a key for each scope, so that the latest word on a scope is never lost
//! and a member that reads the topic from its beginning knows what holds. Everything else has a key of its own. A command is
//! one record, never two that could be torn apart. The topic keeps also what was superseded for at least
//! [`HISTORY_DAYS`] days (`min.compaction.lag.ms`); who writes a command deletes what is older ([`History::outdated`]).
//! Deletion by age, `compact,delete`, would take a pause away that nobody has taken back.

mod entry;
mod history;
mod pace;
mod scope;
mod state;

pub use entry::{Ack, Action, Command, Entry, Malformed, Outcome, Status};
pub use history::{History, Recorded};
pub(crate) use pace::Pace;
pub use scope::Scope;
pub use state::ControlState;
pub(crate) use state::Skip;

use std::collections::BTreeMap;

/// How long commands and their acknowledgements are kept to be listed, at least.
pub const HISTORY_DAYS: i64 = 90;

/// The topic of the commands to `group`.
pub fn control_topic(group: &str) -> String {
    format!("control.{group}")
}

/// What the topic has to be created with.
pub fn control_topic_config() -> BTreeMap<String, String> {
    let lag_ms = HISTORY_DAYS * 24 * 60 * 60 * 1000;
    BTreeMap::from([
        ("cleanup.policy".to_owned(), "compact".to_owned()),
        ("min.compaction.lag.ms".to_owned(), lag_ms.to_string()),
        // How old an entry is must not depend on the clock of who wrote it.
        (
            "message.timestamp.type".to_owned(),
            "LogAppendTime".to_owned(),
        ),
    ])
}

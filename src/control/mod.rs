//! Commands to a running group: the entries of its control topic, and the state that results from
//! them.
//!
//! Pure: types, their encoding, and the resulting state. The consumer's part, which reads the topic
//! and executes commands, is in `consumer::poll::operator` and `consumer::poll::pause`. The tool
//! writes the commands.
//!
//! The topic `control.<group>` has one partition, so that all members read all entries in one
//! order, and is compacted. Lasting commands (pauses, the rate) have one key for each scope, so
//! that the latest command for a scope is never lost, and a member that reads the topic from its
//! beginning has the present state. Every other entry has its own key. A command is a single
//! record, so that no part of it can be lost. The topic also keeps superseded entries for at least
//! [`HISTORY_DAYS`] days (`min.compaction.lag.ms`). The writer of a command deletes older ones
//! ([`History::outdated`]). Deletion by age, `compact,delete`, would remove a pause that was never
//! cancelled.

mod entry;
mod history;
mod member;
mod pace;
mod scope;
mod state;

pub use entry::{Ack, Action, Command, CommandOutcome, Entry, Malformed, Status};
pub use history::{History, Recorded};
pub use member::MemberInfo;
pub(crate) use pace::Pace;
pub use scope::Scope;
pub use state::ControlState;
pub(crate) use state::Skip;

use std::collections::BTreeMap;

/// How many days commands and their acknowledgements are kept for listings, at least.
pub const HISTORY_DAYS: i64 = 90;

/// The name of the topic with the commands to `group`.
pub fn control_topic(group: &str) -> String {
    format!("control.{group}")
}

/// The settings with which the control topic must be created.
pub fn control_topic_config() -> BTreeMap<String, String> {
    let lag_ms = HISTORY_DAYS * 24 * 60 * 60 * 1000;
    BTreeMap::from([
        ("cleanup.policy".to_owned(), "compact".to_owned()),
        ("min.compaction.lag.ms".to_owned(), lag_ms.to_string()),
        // The age of an entry must not depend on the clock of its writer.
        (
            "message.timestamp.type".to_owned(),
            "LogAppendTime".to_owned(),
        ),
    ])
}

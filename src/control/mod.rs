//! Commands to a running group: the entries of its control topic, and the state that results from
//! them.
//!
//! Pure: types, their encoding, and the resulting state. The consumer's part, which reads the topic
//! and executes commands, is in `consumer::poll::operator` and `consumer::poll::pause`. The tool
//! writes the commands.
//!
//! The topic `control.<group>` has one partition, so that all members read all entries in one
//! order. It is compacted. Lasting commands (pauses, the rate) have one key for each scope, so that
//! compaction keeps the latest one, and a member that reads the topic from its beginning gets the
//! present state. Every other entry has a key of its own. A command is a single record, so that no
//! part of it can be lost.
//!
//! The topic also keeps superseded entries for at least [`HISTORY_DAYS`] days
//! (`min.compaction.lag.ms`). The writer of a command deletes older ones ([`History::outdated`]).
//! Deletion by age (`compact,delete`) would remove a pause that was never cancelled.
//!
//! # Examples
//! A command, as the tool writes it, and its effect on the state:
//!
//! ```
//! use evenkeel::control::{Action, Command, ControlState, Entry, Scope};
//!
//! let scope: Scope = "partition/shop.orders/3".parse().expect("a scope");
//! let pause = Command::new("ada", "a bad order", Action::Pause { scope })?;
//! // The key and the value of the record in the topic `control.<group>`.
//! assert_eq!(pause.key(), "pause/partition/shop.orders/3");
//! let value = pause.value().expect("JSON");
//!
//! // A member, or the tool, reads it.
//! let entry = Entry::read(Some(pause.key().as_bytes()), Some(&value))?;
//! let mut state = ControlState::default();
//! state.apply(entry, true)?;
//! assert!(state.pause_of("shop.orders", 3).is_some());
//! assert!(state.pause_of("shop.orders", 4).is_none());
//! # Ok::<(), evenkeel::control::Malformed>(())
//! ```

mod entry;
mod history;
mod member;
mod scope;
mod state;
mod token_bucket;

pub use entry::{Ack, Action, Command, CommandOutcome, Entry, Malformed, Status};
pub use history::{History, Recorded};
pub use member::MemberInfo;
pub use scope::Scope;
pub use state::ControlState;
pub(crate) use state::Skip;
pub(crate) use token_bucket::TokenBucket;

use std::collections::BTreeMap;

/// How many days commands and their acknowledgements are kept for listings, at least.
pub const HISTORY_DAYS: i64 = 90;

/// The name of the topic with the commands to `group`.
///
/// ```
/// assert_eq!(evenkeel::control::control_topic("payments"), "control.payments");
/// ```
pub fn control_topic(group: &str) -> String {
    format!("control.{group}")
}

/// The settings with which the control topic must be created, beside its one partition: compaction,
/// a minimal age of [`HISTORY_DAYS`] before it applies, and timestamps of the brokers.
///
/// ```
/// let config = evenkeel::control::control_topic_config();
/// assert_eq!(config["cleanup.policy"], "compact");
/// ```
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

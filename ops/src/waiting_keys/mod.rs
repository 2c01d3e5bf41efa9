//! Keys of a group whose records wait in its retry topics.
//!
//! - `keys`: finds waiting keys; `listing`: rows by key or by cause; `repetitions`: the records
//!   that a drill delivered

mod error;
mod keys;
mod listing;
mod repetitions;

pub use error::WaitingKeysError;
pub use keys::{key_text, source_topics, waiting_keys};
pub use listing::{Cause, WaitingKey, by_cause};
pub use repetitions::repetitions;

//! Keys of a group whose records wait in its retry topics.
//!
//! - `keys`: finds waiting keys; `listing`: rows by key or by cause; `repetitions`: the records
//!   that a drill delivered
//!
//! The waiting keys are computed as a member computes them: from the entries of the retry topic
//! behind the group's committed offset. So a listing is right even if no member runs. It is a
//! moment of a moving log: keys may have continued by the time it is shown.
//!
//! ```no_run
//! use evenkeel::kafka::admin::Admin;
//! use evenkeel_ops::waiting_keys::{
//!     WaitingKey, WaitingKeysError, by_cause, source_topics, waiting_keys,
//! };
//! use evenkeel_ops::{Cluster, SilentObserver};
//!
//! # async fn example(cluster: Cluster, admin: Admin) -> Result<(), WaitingKeysError> {
//! let topics = source_topics(&admin, "payments", &[], &SilentObserver).await?;
//! let keys = waiting_keys(&cluster, "payments", topics).await?;
//! let keys: Vec<WaitingKey> = keys.into_iter().map(WaitingKey::new).collect();
//! for cause in by_cause(&keys) {
//!     println!("{} keys wait: {}", cause.keys, cause.message);
//! }
//! # Ok(())
//! # }
//! ```

mod error;
mod keys;
mod listing;
mod repetitions;

pub use error::WaitingKeysError;
pub use keys::{key_text, source_topics, waiting_keys};
pub use listing::{Cause, WaitingKey, by_cause};
pub use repetitions::repetitions;

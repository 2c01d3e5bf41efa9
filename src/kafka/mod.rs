//! Connecting to a cluster: settings, errors, administration, and reading without a group.

pub mod admin;
mod config;
pub(crate) mod error;
pub(crate) mod log;
pub(crate) mod queue;
pub mod reader;
mod span;
mod topic;
pub(crate) mod unreadable;

pub use config::{ConfigError, KafkaConfig};
pub use error::KafkaError;
pub use topic::is_topic_name;
pub use unreadable::UnreadableBatch;

//! Connections to a cluster: settings, errors, administration, and reading without a group.

pub mod admin;
mod config;
pub(crate) mod error;
pub(crate) mod log;
pub(crate) mod native;
mod position;
pub mod reader;
mod timestamp;
mod token;
mod topic;
pub(crate) mod unreadable;

#[cfg(feature = "config-file")]
pub use config::read_toml;
pub use config::{ConfigError, ConfigLayers, EffectiveSetting, KafkaConfig, SettingOrigin};
pub use error::KafkaError;
pub(crate) use error::{fault, trouble};
pub use position::RecordPosition;
pub use token::{Token, TokenError, TokenSourceAlreadySet, set_token_source};
pub use topic::is_topic_name;
pub use unreadable::UnreadableBatch;

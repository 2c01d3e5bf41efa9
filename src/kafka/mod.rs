//! Connections to a cluster: settings, errors, administration, and reading without a group.
//!
//! # How the parts fit
//! - [`KafkaConfig`] holds the connection settings. Every client of this crate is created from one:
//!   a consumer, a publisher, [`admin::Admin`] and [`reader::Reader`].
//! - [`ConfigLayers`] fills a [`KafkaConfig`] from files, environment variables and flags, and
//!   knows the origin of each setting.
//! - [`set_token_source`] provides tokens for SASL/OAUTHBEARER to all clients of the process.
//! - [`admin::Admin`] lists, creates and describes topics and groups. It is asynchronous.
//! - [`reader::Reader`] reads partitions without a group. It blocks its thread.
//! - [`KafkaError`] is the error of every request to a cluster. Its variants are classes by remedy.
//!
//! This module knows neither handlers nor inboxes nor groups of this library.
//!
//! # Example
//! ```no_run
//! use evenkeel::kafka::KafkaConfig;
//! use evenkeel::kafka::admin::Admin;
//! use std::time::Duration;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let kafka = KafkaConfig::from_env()?;
//! let admin = Admin::connect(&kafka, Duration::from_secs(10)).await?;
//! println!("topics: {}", admin.topics().await?.join(", "));
//! # Ok(())
//! # }
//! ```

pub mod admin;
mod config;
pub(crate) mod error;
pub(crate) mod log;
pub(crate) mod native;
pub mod reader;
mod record_position;
mod timestamp;
mod token;
mod topic;
pub(crate) mod unreadable;

#[cfg(feature = "config-file")]
pub use config::read_toml;
pub use config::{ConfigError, ConfigLayers, EffectiveSetting, KafkaConfig, SettingOrigin};
pub use error::KafkaError;
pub(crate) use error::{connection_fault, error_log};
pub use record_position::RecordPosition;
pub use token::{Token, TokenError, TokenSourceAlreadySet, set_token_source};
pub use topic::is_topic_name;
pub use unreadable::UnreadableBatch;

//! Connection settings: a few documented fields, and any property of librdkafka.
//!
//! Owns the permitted properties, the defaults of each kind of client, and the masking of secrets.
//! Opens no connection.

mod environment;
mod error;
#[cfg(feature = "config-file")]
mod file;
mod kafka_config;
mod layers;
mod mask;
#[cfg(feature = "config-file")]
mod properties;
mod rules;
mod trust;

#[cfg(test)]
mod tests;

pub use error::ConfigError;
#[cfg(feature = "config-file")]
pub use file::read_toml;
pub use kafka_config::KafkaConfig;
pub use layers::{ConfigLayers, EffectiveSetting, SettingOrigin};
pub(crate) use mask::mask_userinfo;

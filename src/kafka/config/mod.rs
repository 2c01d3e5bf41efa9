//! Connection settings: a few documented fields, and any property of librdkafka.
//!
//! Owns the permitted properties, the defaults of each kind of client, and the masking of secrets.
//! Opens no connection.
//!
//! | file | content |
//! |---|---|
//! | `kafka_config.rs` | the settings, and the properties of each kind of client |
//! | `layers.rs` | precedence of flags, files, variables and defaults; the origin of a setting |
//! | `environment.rs`, `file.rs`, `properties.rs` | the sources of layers |
//! | `rules.rs` | which properties may be set, and to which values |
//! | `trust.rs` | the certificate authorities that are trusted by default |
//! | `mask.rs` | which values are secrets |
//!
//! Invariants:
//! - Every property passes `rules::check` before it is stored, whatever its source. So a guarantee
//!   of the library cannot be switched off by a file or a variable.
//! - A property is stored under its canonical name only. Otherwise a default and the user's value
//!   could both be set under different names, and their order would decide.
//! - No error, warning or `Debug` output contains the value of a secret.

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

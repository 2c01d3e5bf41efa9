//! The configuration file of a daemon: TOML, every key optional, unknown keys rejected.
//!
//! `brokers` and the table `[kafka]` are the same in every program of evenkeel.
//! [`ConfigLayers`](evenkeel::kafka::ConfigLayers) reads them, so the operator's tool accepts the
//! same file. A `.properties` file contains Kafka settings only.
//!
//! Precedence, highest first: flag, environment variable, file, default. Kafka settings are an
//! exception: a file named on the command line takes precedence over variables. `daemon.reference.toml`
//! beside this crate's manifest documents every key.

use super::options::{GroupProtocol, Survives};
use evenkeel::kafka::{ConfigError, read_toml};
use evenkeel::telemetry::daemon::admin_address;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// The content of a configuration file. Each field corresponds to the flag of the same name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Bootstrap servers, comma separated. Read by `ConfigLayers`.
    #[serde(default)]
    brokers: Ignored,
    /// The service's SQLite file.
    pub store: Option<PathBuf>,
    /// The failure that a handled event survives: `power-loss` or `process-crash`.
    pub durability: Option<Survives>,
    /// Maximum number of handlers that run at the same time.
    pub concurrency: Option<NonZeroUsize>,
    /// Address of /livez, /readyz and /metrics, such as `9464` in quotes, or `0.0.0.0:9464`.
    #[serde(default, deserialize_with = "admin")]
    pub admin: Option<SocketAddr>,
    /// How long a stop waits for running handlers and their published events, such as `25s`.
    pub drain_timeout: Option<String>,
    /// How long the inbox keeps a handled event, such as `45d`.
    pub inbox_retention: Option<String>,
    /// Static membership.
    pub instance_id: Option<String>,
    /// Assignment protocol of the group: `classic` or `consumer`.
    pub group_protocol: Option<GroupProtocol>,
    /// Log as JSON lines.
    pub log_json: Option<bool>,
    /// Validate payloads against their schemas.
    pub validate: Option<bool>,
    /// Verbatim librdkafka properties. Read by `ConfigLayers`.
    #[serde(default)]
    kafka: Ignored,
}

/// A key that other code reads.
type Ignored = Option<IgnoredAny>;

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, or has an unknown key or a value of the wrong type. The
    /// message contains the position.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        read_toml(path)
    }
}

fn admin<'de, D: serde::Deserializer<'de>>(text: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(text)?;
    admin_address(&text)
        .map(Some)
        .map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_file_names_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("daemon.reference.toml");
        let file = ConfigFile::read(&path).unwrap();
        let ConfigFile {
            brokers: Some(_),
            store: Some(_),
            durability: Some(_),
            concurrency: Some(_),
            admin: Some(_),
            drain_timeout: Some(_),
            inbox_retention: Some(_),
            instance_id: Some(_),
            group_protocol: Some(_),
            log_json: Some(_),
            validate: Some(_),
            kafka: Some(_),
        } = file
        else {
            panic!("a key is missing: {file:?}");
        };
    }

    #[test]
    fn unusable_settings_are_refused_with_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        for (text, expected) in [
            ("brokerz = \"a:1\"", "brokerz"),
            ("concurrency = 0", "line 1"),
            ("store = ", "line 1"),
        ] {
            let path = dir.path().join("config.toml");
            std::fs::write(&path, text).unwrap();
            let message = ConfigFile::read(&path).unwrap_err().to_string();
            assert!(message.contains("config.toml"), "{message}");
            assert!(message.contains(expected), "{message}");
        }
        let missing = ConfigFile::read(&dir.path().join("none.toml")).unwrap_err();
        assert!(missing.to_string().contains("cannot be read"), "{missing}");
    }
}

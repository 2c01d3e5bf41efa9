//! The configuration file of a daemon: TOML, every key optional, unknown keys refused.
//!
//! A flag wins over an environment variable, a variable over the file, the file over the default. `reference.toml` beside
//! this crate's manifest documents every key.

use crate::options::{GroupProtocol, Survives};
use evenkeel::kafka::ConfigError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// What a configuration file says. Each field is the flag of the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Bootstrap servers, comma separated.
    pub brokers: Option<String>,
    /// The service's SQLite file.
    pub store: Option<PathBuf>,
    /// What a handled event survives: `power-loss` or `process-crash`.
    pub durability: Option<Survives>,
    /// Handlers running at the same time.
    pub concurrency: Option<NonZeroUsize>,
    /// Where /livez, /readyz and /metrics are served.
    pub admin: Option<SocketAddr>,
    /// How long a stop waits for running handlers and what they publish, such as `25s`.
    pub drain_timeout: Option<String>,
    /// How long a handled event is remembered, such as `45d`.
    pub inbox_retention: Option<String>,
    /// Static membership.
    pub instance_id: Option<String>,
    /// How the group shares partitions out: `classic` or `consumer`.
    pub group_protocol: Option<GroupProtocol>,
    /// Log as JSON lines.
    pub log_json: Option<bool>,
    /// Check payloads against their schemas.
    pub validate: Option<bool>,
    /// Verbatim librdkafka properties.
    #[serde(default)]
    pub kafka: BTreeMap<String, String>,
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or has a line that is no TOML, an unknown key or a value of the wrong kind: the message says
    /// where.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let named =
            |reason: String| ConfigError::new(format!("--config {}", path.display()), reason);
        let text = std::fs::read_to_string(path)
            .map_err(|error| named(format!("cannot be read: {error}")))?;
        toml::from_str(&text).map_err(|error| named(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_file_names_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference.toml");
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
            kafka,
        } = file
        else {
            panic!("a key is missing: {file:?}");
        };
        assert!(!kafka.is_empty());
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_file_and_place() {
        let dir = tempfile::tempdir().unwrap();
        for (text, expected) in [
            ("brokerz = \"a:1\"", "brokerz"),
            ("concurrency = 0", "line 1"),
            ("store = ", "line 1"),
            ("[kafka]\nlinger = 5", "line 2"),
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

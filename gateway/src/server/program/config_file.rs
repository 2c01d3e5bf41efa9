//! The configuration file of the gateway: TOML, every key optional, unknown keys rejected.
//!
//! `brokers` and the table `[kafka]` are the same in every program of evenkeel. A `.properties`
//! file contains Kafka settings only. `reference.toml` beside this crate's manifest documents every
//! key. There is no key for `--no-auth`: a forgotten line must not open a gateway.
//!
//! Precedence, highest first: flag, environment variable, file, default. Kafka settings are an
//! exception: a file named on the command line takes precedence over variables.

use super::limits::{AdmissionTable, StreamsTable, duration};
use crate::access::JwtSettings;
use crate::server::settings::StoreAddress;
use evenkeel::kafka::{ConfigError, read_toml};
use evenkeel::telemetry::daemon::admin_address;
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The content of a configuration file. Most fields correspond to the flag of the same name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConfigFile {
    /// Bootstrap servers, comma separated. Read by `ConfigLayers`.
    brokers: Ignored,
    /// Public address, such as `"8080"`, or `"0.0.0.0:8080"`.
    #[serde(deserialize_with = "address")]
    pub listen: Option<SocketAddr>,
    /// Address of /livez, /readyz and /metrics.
    #[serde(deserialize_with = "address")]
    pub admin: Option<SocketAddr>,
    /// Where accepted events become durable: `sqlite:PATH`, `postgres://…` or `brokers`.
    #[serde(deserialize_with = "store")]
    pub store: Option<StoreAddress>,
    /// File with the hashes of the callers' tokens.
    pub tokens: Option<PathBuf>,
    /// How JSON Web Tokens are verified.
    pub jwt: Option<JwtSettings>,
    /// Certificate with its chain, PEM.
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate, PEM.
    pub tls_key: Option<PathBuf>,
    /// Name of this gateway.
    pub worker_name: Option<String>,
    /// Origins of other sites whose pages may use the gateway.
    pub allowed_origins: Option<Vec<String>>,
    /// URLs of the orderboard's instances.
    pub orderboards: Option<Vec<String>>,
    /// Deadline of a stop.
    #[serde(deserialize_with = "duration")]
    pub stop_within: Option<Duration>,
    /// How long a gateway that stops still serves.
    #[serde(deserialize_with = "duration")]
    pub pre_stop_delay: Option<Duration>,
    /// The most open connections.
    pub connections_max: Option<NonZeroUsize>,
    /// The most open connections of one address.
    pub connections_per_ip_max: Option<NonZeroUsize>,
    /// How long a connection may be without a request.
    #[serde(deserialize_with = "duration")]
    pub idle_timeout: Option<Duration>,
    /// Log as JSON lines.
    pub log_json: Option<bool>,
    /// When posts are refused.
    pub(super) admission: AdmissionTable,
    /// Bounds of streams.
    pub(super) streams: StreamsTable,
    /// Verbatim librdkafka properties. Read by `ConfigLayers`.
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

fn address<'de, D: Deserializer<'de>>(text: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(text)?;
    admin_address(&text).map(Some).map_err(D::Error::custom)
}

fn store<'de, D: Deserializer<'de>>(text: D) -> Result<Option<StoreAddress>, D::Error> {
    let text = String::deserialize(text)?;
    text.parse().map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_file_names_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference.toml");
        let file = ConfigFile::read(&path).expect("the reference is valid");
        let ConfigFile {
            brokers: Some(_),
            listen: Some(_),
            admin: Some(_),
            store: Some(_),
            tokens: Some(_),
            jwt: Some(_),
            tls_cert: Some(_),
            tls_key: Some(_),
            worker_name: Some(_),
            allowed_origins: Some(_),
            orderboards: Some(_),
            stop_within: Some(_),
            pre_stop_delay: Some(_),
            connections_max: Some(_),
            connections_per_ip_max: Some(_),
            idle_timeout: Some(_),
            log_json: Some(_),
            // `limits.rs` tests their keys.
            admission: _,
            streams: _,
            kafka: Some(_),
        } = file
        else {
            panic!("a key is missing: {file:?}");
        };
    }

    #[test]
    fn unusable_settings_are_refused_with_file_and_line() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (text, expected) in [
            ("brokerz = \"a:1\"", "brokerz"),
            ("no_auth = true", "no_auth"),
            ("listen = \"here\"", "write a port"),
            ("stop_within = \"soon\"", "not a time"),
            ("connections_max = 0", "line 1"),
            ("store = \"mysql://x\"", "sqlite:PATH"),
            ("[admission]\nuploads = 1", "uploads"),
            ("[admission]\nuploads_max = 0", "line 2"),
            ("[streams]\nheartbeat = 15", "line 2"),
            ("[streams]\nheartbeats = \"15s\"", "heartbeats"),
        ] {
            let path = dir.path().join("config.toml");
            std::fs::write(&path, text).expect("a writable file");
            let message = ConfigFile::read(&path).expect_err(text).to_string();
            assert!(message.contains("config.toml"), "{message}");
            assert!(message.contains(expected), "{message}");
        }
    }
}

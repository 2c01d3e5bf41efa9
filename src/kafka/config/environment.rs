//! The settings in conventional environment variables.
//!
//! Owns the variables' names. Reads them from any iterator, so that tests need not touch the process's environment.

use super::{ConfigError, KafkaConfig};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Where a local Kafka listens unless told otherwise.
const BROKERS_DEFAULT: &str = "localhost:9092";

/// The variables that name the brokers; the first that is set counts.
const BROKERS: &[&str] = &[
    "KAFKA_BOOTSTRAP_SERVERS",
    "KAFKA_BROKERS",
    "BOOTSTRAP_SERVERS",
];

/// Variables with a property each.
const PROPERTIES: &[(&str, &str)] = &[
    ("KAFKA_CLIENT_ID", "client.id"),
    ("KAFKA_SECURITY_PROTOCOL", "security.protocol"),
    ("KAFKA_SASL_MECHANISM", "sasl.mechanism"),
    ("KAFKA_SASL_USERNAME", "sasl.username"),
    ("KAFKA_SASL_PASSWORD", "sasl.password"),
    ("KAFKA_SSL_CA_LOCATION", "ssl.ca.location"),
    ("KAFKA_SSL_CERTIFICATE_LOCATION", "ssl.certificate.location"),
    ("KAFKA_SSL_KEY_LOCATION", "ssl.key.location"),
    ("KAFKA_SSL_KEY_PASSWORD", "ssl.key.password"),
];

/// Variables with this prefix carry a property in their name.
const PASS_THROUGH: &str = "KAFKA_X__";

/// Reads the settings from variables.
pub(super) fn read(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<KafkaConfig, ConfigError> {
    let mut config = KafkaConfig::new(BROKERS_DEFAULT);
    apply(&mut config, variables)?;
    Ok(config)
}

/// Replaces what the variables set and leaves the rest.
pub(super) fn apply(
    config: &mut KafkaConfig,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(), ConfigError> {
    let variables = relevant(variables)?;
    for name in BROKERS.iter().rev() {
        if let Some(value) = value_of(&variables, name)? {
            config.brokers = value;
        }
    }
    for (name, property) in PROPERTIES {
        if let Some(value) = value_of(&variables, name)? {
            config
                .set_property(property, &value)
                .map_err(|error| ConfigError::new(*name, error.reason))?;
        }
    }
    for (name, value) in &variables {
        if let Some(property) = name.strip_prefix(PASS_THROUGH) {
            config
                .set_property(&property_name(property), value)
                .map_err(|error| ConfigError::new(name, error.to_string()))?;
        }
    }
    config.validate()
}

/// Our variables as text. Empty ones count as not set, as compose files and unit files can leave them.
fn relevant(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut texts = BTreeMap::new();
    for (name, value) in variables {
        let Some(name) = name.to_str() else {
            continue;
        };
        if !name.starts_with("KAFKA_") && !name.starts_with("BOOTSTRAP_SERVERS") {
            continue;
        }
        let Some(value) = value.to_str() else {
            return Err(ConfigError::new(name, "the value is not UTF-8 text"));
        };
        if !value.is_empty() {
            texts.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(texts)
}

/// The value of a variable, or the content of the file that `<name>_FILE` points to.
fn value_of(
    variables: &BTreeMap<String, String>,
    name: &str,
) -> Result<Option<String>, ConfigError> {
    let file_variable = format!("{name}_FILE");
    match (variables.get(name), variables.get(&file_variable)) {
        (Some(_), Some(_)) => Err(ConfigError::new(
            name,
            format!("both {name} and {file_variable} are set; keep one"),
        )),
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(path)) => match std::fs::read_to_string(path) {
            // Editors and `echo` end a file with a line break that is no part of the secret.
            Ok(content) => Ok(Some(content.trim_end_matches(['\r', '\n']).to_owned())),
            Err(error) => Err(ConfigError::new(
                file_variable,
                format!("cannot read {path}: {error}"),
            )),
        },
        (None, None) => Ok(None),
    }
}

/// `SESSION_TIMEOUT_MS` is `session.timeout.ms`, `LOG__LEVEL` is `log_level`.
fn property_name(variable: &str) -> String {
    variable
        .to_ascii_lowercase()
        .split("__")
        .map(|part| part.replace('_', "."))
        .collect::<Vec<_>>()
        .join("_")
}

//! Settings from conventional environment variables.
//!
//! Owns the names of the variables. Reads them from any iterator, so that tests do not change the
//! environment of the process.
//!
//! Variables of one property each are applied first, then those with the prefix, in the order of
//! their names. So `KAFKA_X__SASL_MECHANISM` overrides `KAFKA_SASL_MECHANISM`.

use super::error::ConfigError;
use super::kafka_config::{BROKERS_DEFAULT, KafkaConfig};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// The variables that name the brokers. The first one that is set counts.
const BROKERS: &[&str] = &[
    "KAFKA_BOOTSTRAP_SERVERS",
    "KAFKA_BROKERS",
    "BOOTSTRAP_SERVERS",
];

/// Variables for one property each.
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

/// The prefix of variables whose names contain a property.
const PASS_THROUGH: &str = "KAFKA_X__";

/// A property and the variable that sets it.
pub(super) struct VariableProperty {
    pub(super) variable: String,
    pub(super) property: String,
    pub(super) value: String,
}

impl KafkaConfig {
    /// Reads the conventional environment variables. An empty variable counts as not set.
    ///
    /// | variable | sets |
    /// |---|---|
    /// | `KAFKA_BOOTSTRAP_SERVERS` | [`brokers`](Self::brokers) |
    /// | `KAFKA_CLIENT_ID` | [`client_id`](Self::client_id) |
    /// | `KAFKA_SECURITY_PROTOCOL` | `security.protocol` |
    /// | `KAFKA_SASL_MECHANISM` | `sasl.mechanism` |
    /// | `KAFKA_SASL_USERNAME` | `sasl.username` |
    /// | `KAFKA_SASL_PASSWORD` | `sasl.password` |
    /// | `KAFKA_SSL_CA_LOCATION` | `ssl.ca.location` |
    /// | `KAFKA_SSL_CERTIFICATE_LOCATION` | `ssl.certificate.location` |
    /// | `KAFKA_SSL_KEY_LOCATION` | `ssl.key.location` |
    /// | `KAFKA_SSL_KEY_PASSWORD` | `ssl.key.password` |
    /// | `KAFKA_X__SESSION_TIMEOUT_MS` | `session.timeout.ms`; so any other property |
    ///
    /// The brokers are read from `KAFKA_BROKERS` or `BOOTSTRAP_SERVERS` if the first variable is
    /// not set, and are `localhost:9092` if none is.
    ///
    /// Each except the last may be given as `<NAME>_FILE` instead: a file that contains the value,
    /// as secrets are mounted into containers. Line breaks at its end are removed. After
    /// `KAFKA_X__` a double underscore stands for an underscore in the property's name.
    ///
    /// ```no_run
    /// use evenkeel::kafka::KafkaConfig;
    ///
    /// // KAFKA_BOOTSTRAP_SERVERS=broker-1:9092 KAFKA_X__SESSION_TIMEOUT_MS=9000
    /// let kafka = KafkaConfig::from_env()?;
    /// assert_eq!(kafka.brokers, "broker-1:9092");
    /// assert_eq!(kafka.properties["session.timeout.ms"], "9000");
    /// # Ok::<(), evenkeel::kafka::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error for a variable that is not UTF-8, is given twice, names a file that cannot
    /// be read, or sets a property that [`Self::set`] refuses. [`ConfigError::setting`] is the name
    /// of the variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        let mut config = Self::new(BROKERS_DEFAULT);
        config.apply_env()?;
        Ok(config)
    }

    /// Replaces the settings that the variables of [`Self::from_env`] set, and keeps the others,
    /// for example those from a file.
    ///
    /// # Errors
    /// Returns the errors of [`Self::from_env`].
    pub fn apply_env(&mut self) -> Result<(), ConfigError> {
        apply(self, std::env::vars_os())
    }
}

/// Reads the settings from variables.
#[cfg(test)]
pub(super) fn read(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<KafkaConfig, ConfigError> {
    let mut config = KafkaConfig::new(BROKERS_DEFAULT);
    apply(&mut config, variables)?;
    Ok(config)
}

/// Replaces the settings that the variables set, and keeps the others.
pub(super) fn apply(
    config: &mut KafkaConfig,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(), ConfigError> {
    for found in settings(variables)? {
        found.apply(config)?;
    }
    // Other required settings may have another origin.
    config.check_each()
}

impl VariableProperty {
    /// Sets the property. An error names the variable.
    pub(super) fn apply(&self, config: &mut KafkaConfig) -> Result<(), ConfigError> {
        let set = config.set_property(&self.property, &self.value);
        set.map_err(|error| {
            let reason = match self.variable.starts_with(PASS_THROUGH) {
                true => error.to_string(),
                false => error.reason,
            };
            ConfigError::new(&self.variable, reason)
        })
    }
}

/// The settings from the variables, in the order in which they are applied.
pub(super) fn settings(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<VariableProperty>, ConfigError> {
    let variables = relevant_variables(variables)?;
    let mut settings = Vec::new();
    let mut add = |name: &str, property: &str, value: String| {
        settings.push(VariableProperty {
            variable: name.to_owned(),
            property: property.to_owned(),
            value,
        });
    };
    let mut brokers = None;
    for name in BROKERS.iter().rev() {
        if let Some((variable, value)) = value_of(&variables, name)? {
            brokers = Some((variable, value));
        }
    }
    if let Some((variable, value)) = brokers {
        add(&variable, "bootstrap.servers", value);
    }
    for (name, property) in PROPERTIES {
        if let Some((variable, value)) = value_of(&variables, name)? {
            add(&variable, property, value);
        }
    }
    for (name, value) in &variables {
        if let Some(property) = name.strip_prefix(PASS_THROUGH) {
            add(name, &property_name(property), value.clone());
        }
    }
    Ok(settings)
}

/// The relevant variables as text. Empty ones count as not set: compose files and unit files can
/// leave them empty.
fn relevant_variables(
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

/// The value of a variable, or the content of the file that `<name>_FILE` names, with the name of
/// the variable that is set.
fn value_of(
    variables: &BTreeMap<String, String>,
    name: &str,
) -> Result<Option<(String, String)>, ConfigError> {
    let file_variable = format!("{name}_FILE");
    match (variables.get(name), variables.get(&file_variable)) {
        (Some(_), Some(_)) => Err(ConfigError::new(
            name,
            format!("both {name} and {file_variable} are set; keep one"),
        )),
        (Some(value), None) => Ok(Some((name.to_owned(), value.clone()))),
        (None, Some(path)) => match std::fs::read_to_string(path) {
            // Editors and `echo` end a file with a line break, which is not part of the secret.
            Ok(content) => {
                let value = content.trim_end_matches(['\r', '\n']).to_owned();
                Ok(Some((file_variable, value)))
            }
            Err(error) => Err(ConfigError::new(
                file_variable,
                format!("cannot read {path}: {error}"),
            )),
        },
        (None, None) => Ok(None),
    }
}

/// Converts `SESSION_TIMEOUT_MS` to `session.timeout.ms`, and `LOG__LEVEL` to `log_level`.
fn property_name(variable: &str) -> String {
    variable
        .to_ascii_lowercase()
        .split("__")
        .map(|part| part.replace('_', "."))
        .collect::<Vec<_>>()
        .join("_")
}

//! Settings from several layers. A flag overrides a file that the command line names, which
//! overrides a variable, which overrides a file that a variable names, which overrides the default.
//!
//! Owns this precedence and the origin of each setting. Prints nothing: messages for the user are
//! in [`ConfigLayers::warnings`].
//!
//! A layer is applied to the settings at once, in the order of the calls, so the last one wins.
//! `origins` remembers who set a property last. It has an entry for every property that a layer
//! set, also if the value equals the default.

use super::error::ConfigError;
use super::kafka_config::{BROKERS_DEFAULT, KafkaConfig};
use super::{environment, mask, rules};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
#[cfg(feature = "config-file")]
use std::path::Path;

/// The property that names the brokers.
const BROKERS: &str = "bootstrap.servers";

/// The origin of a setting. Its `Display` is one of `default`, `file PATH`, `environment VARIABLE`
/// and `flag FLAG`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "from", content = "name")]
#[non_exhaustive]
pub enum SettingOrigin {
    /// evenkeel's default: the user set no value.
    Default,
    /// A file, by its path.
    File(String),
    /// An environment variable, by its name.
    Environment(String),
    /// A command line flag, by its name.
    Flag(String),
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// An effective setting, as [`ConfigLayers::effective`] lists them. The value of a secret is
/// masked, so it may be printed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct EffectiveSetting {
    /// librdkafka's name of the property.
    pub name: String,
    /// The value of the property, or `***` for a secret.
    pub value: String,
    /// The origin of the value.
    pub origin: SettingOrigin,
}

/// Connection settings with the origin of each. Later layers override earlier ones: add files and
/// the environment, then flags.
///
/// It is meant for programs with flags. A service that is configured by its environment only needs
/// [`KafkaConfig::from_env`]. `Debug` masks every secret.
///
/// ```
/// use evenkeel::kafka::{ConfigLayers, SettingOrigin};
///
/// let mut layers = ConfigLayers::new("payments");
/// layers.set_property("-X", "socket.timeout.ms=10000")?;
/// let effective = layers.effective()?;
/// let timeout = effective.iter().find(|setting| setting.name == "socket.timeout.ms");
/// assert_eq!(timeout.expect("it is set").origin, SettingOrigin::Flag("-X".to_owned()));
/// # Ok::<(), evenkeel::kafka::ConfigError>(())
/// ```
///
/// A typical program:
///
/// ```no_run
/// use evenkeel::kafka::ConfigLayers;
///
/// let mut layers = ConfigLayers::new("payments");
/// layers.add_env()?;
/// layers.set_brokers("--brokers", "localhost:9092")?;
/// for warning in layers.warnings() {
///     eprintln!("{warning}");
/// }
/// let kafka = layers.build()?;
/// # Ok::<(), evenkeel::kafka::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct ConfigLayers {
    config: KafkaConfig,
    origins: BTreeMap<String, SettingOrigin>,
    warnings: Vec<String>,
    /// A file that was read and names no brokers.
    file_without_brokers: Option<String>,
}

impl ConfigLayers {
    /// Creates the defaults for a client with this client id.
    pub fn new(client_id: &str) -> Self {
        let mut config = KafkaConfig::new(BROKERS_DEFAULT);
        client_id.clone_into(&mut config.client_id);
        Self {
            config,
            origins: BTreeMap::new(),
            warnings: Vec::new(),
            file_without_brokers: None,
        }
    }

    /// Adds a file, if there is one, and the variables of [`KafkaConfig::from_env`]. A file named
    /// on the command line overrides variables, which may have been exported long before. A file
    /// that the variable `variable` names does not override them. `is_program_file` means that the
    /// file may have no settings of Kafka.
    ///
    /// `variable` is the program's own variable for the path, such as `SHOP_CONFIG`, which argument
    /// parsers merge into the flag: the file counts as named by the variable if the variable has
    /// the same path.
    ///
    /// # Errors
    /// Returns the errors of [`ConfigLayers::add_file`] and [`ConfigLayers::add_env`].
    #[cfg(feature = "config-file")]
    pub fn add_file_and_env(
        &mut self,
        file: Option<&Path>,
        variable: &str,
        is_program_file: bool,
    ) -> Result<(), ConfigError> {
        let is_named_by_variable =
            file.is_some() && std::env::var_os(variable).as_deref() == file.map(Path::as_os_str);
        if !is_named_by_variable {
            self.add_env()?;
        }
        match file {
            Some(path) if is_program_file => self.add_program_file(path)?,
            Some(path) => self.add_file(path)?,
            None => {}
        }
        match is_named_by_variable {
            true => self.add_env(),
            false => Ok(()),
        }
    }

    /// Adds a file: TOML with `brokers` or a table `[kafka]`, or `key=value` lines if its name ends
    /// in `.properties`.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("kafka.toml");
    /// std::fs::write(&path, "brokers = [\"broker-1:9092\", \"broker-2:9092\"]\n")?;
    /// let mut layers = evenkeel::kafka::ConfigLayers::new("payments");
    /// layers.add_file(&path)?;
    /// assert_eq!(layers.build()?.brokers, "broker-1:9092,broker-2:9092");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, has no settings of Kafka, or sets a property
    /// that cannot be set. No error quotes a value.
    #[cfg(feature = "config-file")]
    pub fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        self.add(path, super::file::contents(path)?.about_kafka(path)?)
    }

    /// Adds the settings of Kafka in a program's own file, if it has any.
    /// [`read_toml`](super::read_toml) reads its other keys.
    ///
    /// # Errors
    /// Returns the errors of [`ConfigLayers::add_file`], except for a file without settings of
    /// Kafka.
    #[cfg(feature = "config-file")]
    pub fn add_program_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        self.add(path, super::file::contents(path)?)
    }

    #[cfg(feature = "config-file")]
    fn add(&mut self, path: &Path, contents: super::file::FileContent) -> Result<(), ConfigError> {
        let shown = path.display().to_string();
        for (name, value) in contents.settings {
            let set = self.set(&name, &value, SettingOrigin::File(shown.clone()));
            set.map_err(|error| ConfigError::new(super::file::name_of(path), error.to_string()))?;
        }
        if !self.origins.contains_key(BROKERS) {
            self.file_without_brokers = Some(shown);
        }
        Ok(())
    }

    /// Adds the variables of [`KafkaConfig::from_env`]. A variable that changes a setting of a file
    /// is mentioned in [`ConfigLayers::warnings`].
    ///
    /// # Errors
    /// Returns the errors of [`KafkaConfig::from_env`].
    pub fn add_env(&mut self) -> Result<(), ConfigError> {
        self.add_variables(std::env::vars_os())
    }

    fn add_variables(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), ConfigError> {
        for found in environment::settings(variables)? {
            let name = rules::canonical(&found.property).to_owned();
            let before = (self.value(&name), self.origins.get(&name).cloned());
            found.apply(&mut self.config)?;
            // A variable that was exported long before is easily forgotten.
            if let (Some(value), Some(SettingOrigin::File(path))) = before
                && self.value(&name) != Some(value)
            {
                let variable = &found.variable;
                self.warnings.push(format!(
                    "{variable} of the environment overrides {name} of {path}"
                ));
            }
            self.origins
                .insert(name, SettingOrigin::Environment(found.variable));
        }
        Ok(())
    }

    /// Sets the brokers from the flag `flag`, whose name becomes the setting's origin.
    ///
    /// # Errors
    /// Returns an error if the text names no brokers.
    pub fn set_brokers(&mut self, flag: &str, brokers: &str) -> Result<(), ConfigError> {
        self.set(BROKERS, brokers, SettingOrigin::Flag(flag.to_owned()))
    }

    /// Sets a property from the flag `flag`, as `name=value`. The flag's name becomes the setting's
    /// origin. Call it once for each occurrence of the flag; the last value of a property counts.
    ///
    /// # Errors
    /// Returns the errors of [`KafkaConfig::set`].
    pub fn set_property(&mut self, flag: &str, assignment: &str) -> Result<(), ConfigError> {
        self.config.set(assignment)?;
        let name = assignment
            .split_once('=')
            .map_or(assignment, |(name, _)| name);
        let name = rules::canonical(name.trim()).to_owned();
        self.origins
            .insert(name, SettingOrigin::Flag(flag.to_owned()));
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str, origin: SettingOrigin) -> Result<(), ConfigError> {
        self.config.set_property(name, value)?;
        self.origins
            .insert(rules::canonical(name).to_owned(), origin);
        Ok(())
    }

    /// The present value of a property by its canonical name.
    fn value(&self, name: &str) -> Option<String> {
        match name {
            BROKERS => Some(self.config.brokers.clone()),
            "client.id" => Some(self.config.client_id.clone()),
            name => self.config.properties.get(name).cloned(),
        }
    }

    /// The effective settings, validated as a whole by [`KafkaConfig::validate`]. Layers may be
    /// added afterwards, and the settings built again.
    ///
    /// # Errors
    /// Returns the first setting that cannot be used.
    pub fn build(&self) -> Result<KafkaConfig, ConfigError> {
        self.config.validate()?;
        Ok(self.config.clone())
    }

    /// Messages for the user: a variable that overrides a file, a file without brokers, settings
    /// without an effect, such as `sasl.password` without SASL. Print them before the program
    /// connects. They contain no value of a secret.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        if let Some(path) = &self.file_without_brokers
            && !self.origins.contains_key(BROKERS)
        {
            let brokers = &self.config.brokers;
            warnings.push(format!(
                "{path} names no brokers (brokers = \"host:port\"), nor does a flag or the \
                 environment: using {brokers}"
            ));
        }
        let protocol = self.value("security.protocol").unwrap_or_default();
        let protocol = protocol.to_ascii_lowercase();
        let unused = |prefix: &str, needed: &str| {
            let mut names = self.origins.keys().filter(|name| name.starts_with(prefix));
            let name = names.next()?;
            let origin = &self.origins[name];
            let set = if protocol.is_empty() {
                "plaintext, the default"
            } else {
                protocol.as_str()
            };
            Some(format!(
                "{name} ({origin}) has no effect: security.protocol is {set}; it takes {needed}"
            ))
        };
        if !protocol.starts_with("sasl") {
            warnings.extend(unused("sasl.", "SASL_SSL or SASL_PLAINTEXT"));
        }
        if !protocol.ends_with("ssl") {
            warnings.extend(unused("ssl.", "SSL or SASL_SSL"));
        }
        warnings
    }

    /// All effective settings that evenkeel or its user set, sorted by name. librdkafka's defaults
    /// hold for the rest.
    ///
    /// # Errors
    /// Returns the errors of [`ConfigLayers::build`].
    pub fn effective(&self) -> Result<Vec<EffectiveSetting>, ConfigError> {
        let client = self.config.client()?;
        let mut settings: BTreeMap<&str, &str> = BTreeMap::new();
        settings.extend(
            client
                .config_map()
                .iter()
                .map(|(name, value)| (*name, *value)),
        );
        let own = self.config.properties.iter();
        settings.extend(own.map(|(name, value)| (rules::canonical(name), value.as_str())));
        let origin = |name: &str| self.origins.get(name).cloned();
        Ok(settings
            .into_iter()
            .map(|(name, value)| EffectiveSetting {
                name: name.to_owned(),
                value: mask::masked(name, value).into_owned(),
                origin: origin(name).unwrap_or(SettingOrigin::Default),
            })
            .collect())
    }
}

impl fmt::Debug for ConfigLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigLayers")
            .field("config", &self.config)
            .field("origins", &self.origins)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(feature = "config-file")]
mod tests {
    use super::*;

    fn layers(file: &str, variables: &[(&str, &str)], flags: &[&str]) -> ConfigLayers {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let mut layers = ConfigLayers::new("me");
        if !file.is_empty() {
            std::fs::write(&path, file).unwrap();
            layers.add_file(&path).unwrap();
        }
        let own = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
        layers.add_variables(variables.iter().map(own)).unwrap();
        for flag in flags {
            layers.set_property("-X", flag).unwrap();
        }
        layers
    }

    fn of(layers: &ConfigLayers, name: &str) -> (String, &'static str) {
        let effective = layers.effective().unwrap();
        let found = effective.into_iter().find(|setting| setting.name == name);
        let found = found.expect(name);
        let kind = match found.origin {
            SettingOrigin::Default => "default",
            SettingOrigin::File(_) => "file",
            SettingOrigin::Environment(_) => "environment",
            SettingOrigin::Flag(_) => "flag",
        };
        (found.value, kind)
    }

    #[test]
    fn flag_wins_over_variable_over_file_over_default() {
        let file = "brokers = \"file:1\"\n[kafka]\nsocket.timeout.ms = 1000\n";
        let name = BROKERS;
        let seen = |file, variables: &[_], flags: &[_]| of(&layers(file, variables, flags), name);
        let variable = ("KAFKA_BOOTSTRAP_SERVERS", "env:1");
        let flag = "bootstrap.servers=flag:1";
        let expect = |value: &str, kind| (value.to_owned(), kind);
        assert_eq!(seen("", &[], &[]), expect("localhost:9092", "default"));
        assert_eq!(seen(file, &[], &[]), expect("file:1", "file"));
        assert_eq!(seen(file, &[variable], &[]), expect("env:1", "environment"));
        assert_eq!(seen(file, &[variable], &[flag]), expect("flag:1", "flag"));
        let built = layers(file, &[variable], &[flag]).build().unwrap();
        assert_eq!(built.brokers, "flag:1");
        assert_eq!(built.properties["socket.timeout.ms"], "1000");
    }

    #[test]
    fn overriding_and_ineffective_settings_are_warned_about() {
        let file = "brokers = \"file:1\"";
        let says = |layers: ConfigLayers, expected: &[&str]| {
            let warnings = layers.warnings();
            assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
            for (warning, expected) in warnings.iter().zip(expected) {
                assert!(warning.contains(expected), "{warning}");
            }
        };
        says(layers(file, &[], &[]), &[]);
        says(layers(file, &[("KAFKA_BROKERS", "file:1")], &[]), &[]);
        let variable = [("KAFKA_BROKERS", "env:1")];
        says(
            layers(file, &variable, &[]),
            &["KAFKA_BROKERS of the environment overrides"],
        );
        says(
            layers("[kafka]\nclient.id = 1", &[], &[]),
            &["using localhost:9092"],
        );
        says(layers("[kafka]\nclient.id = 1", &variable, &[]), &[]);
        let password = "sasl.password=hunter2";
        says(
            layers(file, &[], &[password]),
            &["sasl.password (flag -X) has no effect"],
        );
        says(
            layers(file, &[], &["security.protocol=SSL", "ssl.ca.location=/ca"]),
            &[],
        );
    }

    #[test]
    fn secrets_are_masked_and_alias_names_are_one_property() {
        let sasl = [
            ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
            ("KAFKA_SASL_MECHANISM", "PLAIN"),
            ("KAFKA_SASL_USERNAME", "me"),
            ("KAFKA_SASL_PASSWORD", "hunter2 "),
        ];
        let layers = layers("", &sasl, &["sasl.mechanisms=SCRAM-SHA-256"]);
        assert_eq!(of(&layers, "sasl.password").0, "***");
        assert_eq!(
            of(&layers, "sasl.mechanism"),
            ("SCRAM-SHA-256".to_owned(), "flag")
        );
        let built = layers.build().unwrap();
        assert_eq!(built.properties["sasl.password"], "hunter2 ");
        assert!(!built.properties.contains_key("sasl.mechanisms"));
        assert!(!format!("{layers:?}").contains("hunter2"));
    }
}

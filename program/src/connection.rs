//! The broker flags, and their merge with the configuration file and the environment.
//!
//! Every setting keeps its origin, so that an error names the flag, the variable or the line of the
//! file that must be changed.

use clap::Args;
use evenkeel::kafka::{ConfigError, ConfigLayers};
use evenkeel::telemetry::say;
use std::fmt;
use std::path::Path;
use std::sync::Once;

/// How to reach Kafka, as every program takes it; `GLOBAL` flags stand before or behind the
/// subcommands of their command.
#[derive(Clone, Default, Args)]
pub struct BrokerArgs<const GLOBAL: bool> {
    /// Bootstrap servers, comma separated [env: KAFKA_BOOTSTRAP_SERVERS, KAFKA_BROKERS] [default:
    /// localhost:9092].
    #[arg(
        short,
        long,
        visible_alias = "bootstrap-server",
        value_name = "HOST:PORT",
        global = GLOBAL
    )]
    pub brokers: Option<String>,

    /// A librdkafka property, for example security.protocol=SASL_SSL; may be repeated.
    ///
    /// Other users of the machine can read arguments (ps): put a password into KAFKA_SASL_PASSWORD,
    /// into the file that KAFKA_SASL_PASSWORD_FILE names, or into the file of --config.
    #[arg(short = 'X', value_name = "KEY=VALUE", global = GLOBAL)]
    pub property: Vec<String>,
}

/// The configuration file of a program, named by its flag `--config` or by an environment variable.
///
/// A file that is named must exist and be readable.
#[derive(Debug, Clone, Copy)]
pub struct ConfigFile<'a> {
    /// Path of the file. `None` if neither names one.
    pub path: Option<&'a Path>,
    /// The environment variable that names the file if the flag does not.
    pub variable: &'static str,
    /// Whether the file also contains settings of the program. Such a file need not contain Kafka
    /// settings.
    pub is_program_file: bool,
}

/// Shows the keys of the properties only: a value may be a password.
impl<const GLOBAL: bool> fmt::Debug for BrokerArgs<GLOBAL> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.property.iter().map(|property| {
            let (key, _) = property.split_once('=').unwrap_or_default();
            key
        });
        f.debug_struct("BrokerArgs")
            .field("brokers", &self.brokers)
            .field("property", &keys.collect::<Vec<_>>())
            .finish()
    }
}

impl<const GLOBAL: bool> BrokerArgs<GLOBAL> {
    /// The settings, each with its origin, for a client with the client id `client_id`. Precedence,
    /// highest first: flag, file of `--config`, environment variable, file that a variable names,
    /// default.
    ///
    /// # Errors
    /// If the file, a variable or a flag is invalid. The message names it.
    pub fn layers(
        &self,
        client_id: &str,
        file: ConfigFile<'_>,
    ) -> Result<ConfigLayers, ConfigError> {
        let mut layers = ConfigLayers::new(client_id);
        layers.add_file_and_env(file.path, file.variable, file.is_program_file)?;
        for property in &self.property {
            layers.set_property("-X", property)?;
        }
        if let Some(brokers) = &self.brokers {
            layers.set_brokers("--brokers", brokers)?;
        }
        Ok(layers)
    }
}

/// Prints the warnings about the settings to standard error, each after `prefix`. Only the first
/// call in a process prints: a program may build several clients from the same settings.
pub fn print_warnings(layers: &ConfigLayers, prefix: &str) {
    static PRINTED: Once = Once::new();
    PRINTED.call_once(|| {
        for warning in layers.warnings() {
            say(&format!("{prefix}warning: {warning}"));
        }
    });
}

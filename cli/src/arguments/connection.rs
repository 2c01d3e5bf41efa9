//! Builds connection settings from flags, environment and file, and announces the cluster that a
//! command changes.
//!
//! Precedence, highest first: flag, file of `--config`, environment variable, file of
//! `EVENKEEL_CONFIG`, default. The layers are merged in `evenkeel::kafka::ConfigLayers`; this file
//! only names the sources. Nothing connects before [`ConnectionArgs::admin`] or a client of
//! [`ConnectionArgs::kafka`] is created.

use crate::output::stderr::say;
use clap::Args;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::{ConfigLayers, KafkaConfig};
use evenkeel_ops::Cluster;
use evenkeel_program::connection::{BrokerArgs, ConfigFile, print_warnings};
use evenkeel_program::duration::parse_duration_or_seconds;
use std::path::PathBuf;
use std::time::Duration;

/// The environment variables, for the help text.
pub(crate) const ENVIRONMENT: &str = "\
Environment:
  KAFKA_BOOTSTRAP_SERVERS         Bootstrap servers (or KAFKA_BROKERS, or BOOTSTRAP_SERVERS)
  KAFKA_SECURITY_PROTOCOL         PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
  KAFKA_SASL_MECHANISM            PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER
  KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD
  KAFKA_X__SASL_OAUTHBEARER_CONFIG=file=PATH  File of the JWT for OAUTHBEARER, read at each refresh
  KAFKA_SSL_CA_LOCATION           Trusted certificate authorities, PEM [default: the system's]
  KAFKA_SSL_CERTIFICATE_LOCATION, KAFKA_SSL_KEY_LOCATION, KAFKA_SSL_KEY_PASSWORD
  KAFKA_CLIENT_ID                 Name of the client in the brokers' logs
  KAFKA_X__SOCKET_TIMEOUT_MS      Any property of librdkafka, here socket.timeout.ms
  NAME_FILE                       Path of a file with the value of NAME; not for KAFKA_X__*
  EVENKEEL_CONFIG                 Default of --config
  EVENKEEL_STORE                  Default of --store
  SSL_CERT_FILE, SSL_CERT_DIR     The system's certificate authorities, if in an unusual place
Precedence, highest first: flag, file of --config, variable, file of EVENKEEL_CONFIG, default.
`evenkeel config show --origin` shows the values in effect and their origins.";

/// The flags that say how to reach Kafka. They are global: they apply to every subcommand.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    #[command(flatten)]
    brokers: BrokerArgs<true>,

    /// Configuration file: TOML with brokers = "host:port" and a table [kafka] of librdkafka
    /// properties, or a .properties file.
    #[arg(long, value_name = "FILE", env = "EVENKEEL_CONFIG", global = true)]
    config: Option<PathBuf>,

    /// Time limit of each request to the cluster, such as 10s or 500ms; a bare number is seconds.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        value_parser = parse_duration_or_seconds,
        global = true
    )]
    timeout: Duration,
}

impl ConnectionArgs {
    /// The settings, each with its origin. Fails if a flag, a variable or the file is invalid; the
    /// error names it and is a usage error.
    pub(crate) fn layers(&self) -> anyhow::Result<ConfigLayers> {
        let file = ConfigFile {
            path: self.config.as_deref(),
            variable: "EVENKEEL_CONFIG",
            is_program_file: false,
        };
        Ok(self.brokers.layers("evenkeel", file)?)
    }

    /// The effective settings. Prints warnings about them to standard error.
    pub(crate) fn kafka(&self) -> anyhow::Result<KafkaConfig> {
        let layers = self.layers()?;
        print_config_warnings(&layers);
        Ok(layers.build()?)
    }

    /// The cluster for operations of `evenkeel-ops`, which create their own clients.
    pub(crate) fn cluster(&self) -> anyhow::Result<Cluster> {
        Ok(Cluster::new(self.kafka()?, self.timeout))
    }

    /// The time limit of a request.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects an admin client. Fails if no broker answers in time, so that a wrong address is
    /// reported before any work.
    pub(crate) async fn admin(&self) -> anyhow::Result<Admin> {
        Ok(Admin::connect(&self.kafka()?, self.timeout).await?)
    }

    /// Connects an admin client for a command that changes the cluster, and announces the cluster.
    /// An operator with several clusters sees the wrong one before the first change.
    pub(crate) async fn admin_to_change(&self) -> anyhow::Result<Admin> {
        let admin = self.admin().await?;
        announce_cluster(&admin).await?;
        Ok(admin)
    }
}

/// Prints which cluster a command is about to change.
pub(crate) async fn announce_cluster(admin: &Admin) -> anyhow::Result<()> {
    let cluster = admin.cluster_id().await?;
    let cluster = cluster.map_or_else(String::new, |id| format!("cluster {id} at "));
    say!("on {cluster}{}", admin.brokers());
    Ok(())
}

/// Prints the warnings about the settings, once.
pub(crate) fn print_config_warnings(layers: &ConfigLayers) {
    print_warnings(layers, "evenkeel: ");
}

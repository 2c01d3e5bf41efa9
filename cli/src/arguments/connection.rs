//! Builds connection settings from flags, environment and file, and announces the cluster that a
//! command changes.

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
  KAFKA_X__SASL_OAUTHBEARER_CONFIG=file=PATH  The JWT for OAUTHBEARER, read anew at each refresh
  KAFKA_SSL_CA_LOCATION           Trusted certificate authorities in PEM; the system's when not set
  KAFKA_SSL_CERTIFICATE_LOCATION, KAFKA_SSL_KEY_LOCATION, KAFKA_SSL_KEY_PASSWORD
  KAFKA_CLIENT_ID                 How brokers log the client
  KAFKA_X__SOCKET_TIMEOUT_MS      Any property of librdkafka: socket.timeout.ms
  NAME_FILE                       Each but KAFKA_X__*: a file that holds the value, as secrets are mounted
  EVENKEEL_CONFIG                 The file of --config
  SSL_CERT_FILE, SSL_CERT_DIR     The system's certificate authorities, where they are not in a usual place
A flag wins over the file of --config, that over a variable, a variable over the file of EVENKEEL_CONFIG, and that over the default;
`evenkeel config show --origin` shows the outcome.";

/// How to reach Kafka.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    #[command(flatten)]
    brokers: BrokerArgs<true>,

    /// Settings: TOML with brokers = "host:port" and a table [kafka] of librdkafka properties, or a
    /// .properties file.
    #[arg(long, value_name = "FILE", env = "EVENKEEL_CONFIG", global = true)]
    config: Option<PathBuf>,

    /// How long to wait for the cluster's answer, for example 10s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration_or_seconds, global = true)]
    timeout: Duration,
}

impl ConnectionArgs {
    /// The settings, each with its origin.
    pub(crate) fn layers(&self) -> anyhow::Result<ConfigLayers> {
        let file = ConfigFile {
            path: self.config.as_deref(),
            variable: "EVENKEEL_CONFIG",
            is_program_file: false,
        };
        Ok(self.brokers.layers("evenkeel", file)?)
    }

    /// The effective settings.
    pub(crate) fn kafka(&self) -> anyhow::Result<KafkaConfig> {
        let layers = self.layers()?;
        warn_of(&layers);
        Ok(layers.build()?)
    }

    /// The cluster for operations.
    pub(crate) fn cluster(&self) -> anyhow::Result<Cluster> {
        Ok(Cluster::new(self.kafka()?, self.timeout))
    }

    /// The time limit of a request.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects an admin client.
    pub(crate) async fn admin(&self) -> anyhow::Result<Admin> {
        Ok(Admin::connect(&self.kafka()?, self.timeout).await?)
    }

    /// Connects an admin client for a command that changes the cluster, and announces the change.
    pub(crate) async fn admin_to_change(&self) -> anyhow::Result<Admin> {
        let admin = self.admin().await?;
        announce(&admin).await?;
        Ok(admin)
    }
}

/// Prints which cluster a command is about to change.
pub(crate) async fn announce(admin: &Admin) -> anyhow::Result<()> {
    let cluster = admin.cluster_id().await?;
    let cluster = cluster.map_or_else(String::new, |id| format!("cluster {id} at "));
    say!("on {cluster}{}", admin.brokers());
    Ok(())
}

/// Prints the warnings about the settings, once.
pub(crate) fn warn_of(layers: &ConfigLayers) {
    print_warnings(layers, "evenkeel: ");
}

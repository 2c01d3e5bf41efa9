//! The Kafka connection flags, and a publisher whose connection was checked.

use anyhow::Context;
use clap::{Args, ValueEnum};
use evenkeel::event::ContentMode;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::{KafkaConfig, KafkaError};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel_program::connection::{BrokerArgs, ConfigFile, print_warnings};
use evenkeel_program::duration::parse_duration;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How to reach Kafka, as given on the command line.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kafka")]
pub struct ConnectionArgs {
    #[command(flatten)]
    brokers: BrokerArgs<true>,

    /// Configuration file, as for the services and the tool; only brokers and the table [kafka] are
    /// used
    #[arg(long, global = true, env = "SHOP_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// CloudEvents content mode: where the attributes are
    #[arg(long, global = true, value_enum, default_value_t)]
    ce: CloudEventsMode,
    /// Time limit for the first answer of a broker; then the exit code is 4
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        default_value = "5s",
        value_parser = parse_duration
    )]
    connect_timeout: Duration,
}

/// CloudEvents content mode.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum CloudEventsMode {
    /// Attributes as `ce_` headers, the payload as the value
    #[default]
    Binary,
    /// Attributes and payload in one JSON document
    Structured,
}

/// Validated connection settings. Connects to nothing yet.
#[derive(Debug, Clone)]
pub struct Connection {
    kafka: KafkaConfig,
    content_mode: ContentMode,
    timeout: Duration,
}

impl ConnectionArgs {
    /// Merges the settings. Precedence, highest first: flags, file of `--config`, environment, file
    /// of `SHOP_CONFIG`, defaults. Prints warnings to standard error.
    ///
    /// # Errors
    /// If a flag, a variable or the file is invalid.
    pub fn build(self) -> Result<Connection, evenkeel::kafka::ConfigError> {
        let file = ConfigFile {
            path: self.config.as_deref(),
            variable: "SHOP_CONFIG",
            is_program_file: true,
        };
        let layers = self.brokers.layers("evenkeel", file)?;
        print_warnings(&layers, "");
        let kafka = layers.build()?;
        let content_mode = match self.ce {
            CloudEventsMode::Binary => ContentMode::Binary,
            CloudEventsMode::Structured => ContentMode::Structured,
        };
        Ok(Connection {
            kafka,
            content_mode,
            timeout: self.connect_timeout,
        })
    }
}

impl Connection {
    /// A publisher for `source` that validates against the shop's catalogue. It first waits for a
    /// broker's answer and looks up `topic`, so a wrong address or a missing topic is reported
    /// within seconds, before any input is read.
    ///
    /// # Errors
    /// If no broker answers in time, or if the topic does not exist.
    pub async fn publisher(&self, source: &str, topic: &str) -> anyhow::Result<Publisher> {
        Ok(self.publisher_to_cluster(source, topic).await?.0)
    }

    /// [`publisher`](Self::publisher) with the cluster's id. If the cluster has no id, its address.
    pub async fn publisher_to_cluster(
        &self,
        source: &str,
        topic: &str,
    ) -> anyhow::Result<(Publisher, String)> {
        let admin = Admin::connect(&self.kafka, self.timeout).await?;
        let found = admin.partition_counts(&[topic.to_owned()]).await?;
        if !found.contains_key(topic) {
            let topic = topic.to_owned();
            return Err(KafkaError::UnknownTopic { topic }.into());
        }
        let cluster = admin.cluster_id().await?;
        let cluster = cluster.unwrap_or_else(|| format!("at {}", self.kafka.brokers));
        let catalogue = shop_schemas::catalogue().context("the shop's schemas")?;
        let mut settings = PublisherSettings::new(source);
        settings.content_mode = self.content_mode;
        settings.catalogue = Some(Arc::new(catalogue));
        Ok((Publisher::new(&self.kafka, settings)?, cluster))
    }
}

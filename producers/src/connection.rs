//! The flags that say how to reach Kafka, and a publisher that is known to reach it.

use anyhow::Context;
use clap::{Args, ValueEnum};
use evenkeel::event::ContentMode;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::{KafkaConfig, KafkaError};
use evenkeel::publisher::{Publisher, PublisherSettings};
use std::sync::Arc;
use std::time::Duration;

/// How to reach Kafka, as given on the command line.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kafka")]
pub struct ConnectionArgs {
    /// Brokers to start from, as host:port,host:port [env: KAFKA_BOOTSTRAP_SERVERS] [default: localhost:9092]
    #[arg(short, long, global = true, visible_alias = "bootstrap-server")]
    brokers: Option<String>,
    /// A librdkafka property, for example -X security.protocol=SSL; may be repeated
    #[arg(short = 'X', global = true, value_name = "KEY=VALUE")]
    properties: Vec<String>,
    /// How an event stands in its record: attributes in headers, or all in one JSON document
    #[arg(long, global = true, value_enum, default_value_t)]
    ce: CloudEventsMode,
    /// Give up when no broker answered within this time
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
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

/// How to reach Kafka, built and checked; connects to nothing yet.
#[derive(Debug, Clone)]
pub struct Connection {
    kafka: KafkaConfig,
    content_mode: ContentMode,
    timeout: Duration,
}

impl ConnectionArgs {
    /// Flags over environment over defaults.
    pub fn build(self) -> Result<Connection, evenkeel::kafka::ConfigError> {
        let mut kafka = KafkaConfig::from_env()?;
        if let Some(brokers) = self.brokers {
            kafka.brokers = brokers;
        }
        for property in &self.properties {
            kafka.set(property)?;
        }
        kafka.validate()?;
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
    /// Bootstrap servers.
    pub fn brokers(&self) -> &str {
        &self.kafka.brokers
    }

    /// A publisher for `source` that validates against the shop's catalogue, after a broker has answered and `topic` was
    /// found. So a wrong address or a missing topic is named within seconds, before any input is read.
    pub async fn publisher(&self, source: &str, topic: &str) -> anyhow::Result<Publisher> {
        let admin = Admin::connect(&self.kafka, self.timeout).await?;
        let found = admin.partition_counts(&[topic.to_owned()]).await?;
        if !found.contains_key(topic) {
            let topic = topic.to_owned();
            return Err(KafkaError::UnknownTopic { topic }.into());
        }
        let catalogue = shop_schemas::catalogue().context("the shop's schemas")?;
        let mut settings = PublisherSettings::new(source);
        settings.content_mode = self.content_mode;
        settings.catalogue = Some(Arc::new(catalogue));
        Ok(Publisher::new(&self.kafka, settings)?)
    }
}

/// A length of time above zero, as in `60s`, `5m` or `1h 30m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let hint = "write it with a unit, for example 60s, 5m or 1h";
    let duration: jiff::SignedDuration =
        text.parse().map_err(|error| format!("{error}; {hint}"))?;
    Duration::try_from(duration)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("must be longer than zero; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_a_unit_and_must_be_longer_than_zero() {
        let check = |text: &str, expected: Option<u64>| {
            let seconds = parse_duration(text).ok().map(|time| time.as_secs());
            assert_eq!(seconds, expected, "{text}");
        };
        check("60s", Some(60));
        check("5m", Some(300));
        check("1h 30m", Some(5400));
        check("60", None);
        check("0s", None);
        check("-1s", None);
    }
}

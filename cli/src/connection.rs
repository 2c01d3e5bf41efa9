//! How the command line, the environment and a file become connection settings: flag, then environment, then file.

use crate::exit::Usage;
use anyhow::Context;
use clap::Args;
use evenkeel::kafka::{KafkaConfig, admin::Admin};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where Kafka is when nobody says anything.
const BROKERS_DEFAULT: &str = "localhost:9092";

/// How to reach Kafka.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// Bootstrap servers, comma separated [env: KAFKA_BOOTSTRAP_SERVERS, KAFKA_BROKERS].
    #[arg(
        short,
        long,
        visible_alias = "bootstrap-server",
        value_name = "HOST:PORT",
        global = true
    )]
    brokers: Option<String>,

    /// A librdkafka property, for example security.protocol=SASL_SSL; may be repeated.
    #[arg(short = 'X', value_name = "KEY=VALUE", global = true)]
    property: Vec<String>,

    /// File in TOML whose table `[kafka]` holds librdkafka properties.
    #[arg(long, value_name = "FILE", env = "EVENKEEL_CONFIG", global = true)]
    config: Option<PathBuf>,

    /// How long to wait for the cluster's answer, for example 10s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration, global = true)]
    timeout: Duration,
}

impl ConnectionArgs {
    /// The settings in force.
    pub(crate) fn kafka(&self) -> anyhow::Result<KafkaConfig> {
        let mut kafka = match &self.config {
            None => KafkaConfig::from_env()?,
            Some(path) => {
                let mut kafka = KafkaConfig::new(BROKERS_DEFAULT);
                let file = read_file(path)
                    .with_context(|| format!("reading the configuration {}", path.display()))?;
                for (key, value) in file {
                    kafka
                        .set(&format!("{key}={value}"))
                        .with_context(|| format!("in the configuration {}", path.display()))?;
                }
                kafka.apply_env()?;
                kafka
            }
        };
        if let Some(brokers) = &self.brokers {
            kafka.brokers.clone_from(brokers);
        }
        for property in &self.property {
            kafka.set(property)?;
        }
        kafka.validate()?;
        Ok(kafka)
    }

    /// How long to wait for an answer.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects an admin client.
    pub(crate) async fn admin(&self) -> anyhow::Result<Admin> {
        Ok(Admin::connect(&self.kafka()?, self.timeout).await?)
    }
}

/// `10s`, `1m 30s`, `500ms`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => text
            .parse::<jiff::SignedDuration>()
            .map_err(|e| e.to_string())
            .and_then(|span| Duration::try_from(span).map_err(|e| e.to_string())),
    };
    match parsed {
        Ok(duration) if duration.is_zero() => Err("must be more than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(reason) => Err(format!("not a time such as 10s or 500ms: {reason}")),
    }
}

/// The properties of the table `[kafka]`.
fn read_file(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    parse_file(&std::fs::read_to_string(path)?)
}

fn parse_file(text: &str) -> anyhow::Result<Vec<(String, String)>> {
    let document: toml::Table = text.parse()?;
    let kafka = match document.get("kafka") {
        None => return Ok(Vec::new()),
        Some(toml::Value::Table(kafka)) => kafka,
        Some(_) => return Err(Usage("[kafka] must be a table of properties".to_owned()).into()),
    };
    let mut properties = Vec::new();
    for (key, value) in kafka {
        flatten(key, value, &mut properties)?;
    }
    Ok(properties)
}

/// An unquoted `a.b = 1` is a table in TOML; as a property it is `a.b`.
fn flatten(
    key: &str,
    value: &toml::Value,
    properties: &mut Vec<(String, String)>,
) -> anyhow::Result<()> {
    let text = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Table(table) => {
            return table.iter().try_for_each(|(name, value)| {
                flatten(&format!("{key}.{name}"), value, properties)
            });
        }
        toml::Value::Array(_) | toml::Value::Datetime(_) => {
            return Err(Usage(format!("{key} must be a text, a number or a boolean")).into());
        }
    };
    properties.push((key.to_owned(), text));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_seconds_or_has_a_unit() {
        let check = |text, expected| assert_eq!(parse_duration(text).ok(), expected, "{text}");
        check("10", Some(Duration::from_secs(10)));
        check("500ms", Some(Duration::from_millis(500)));
        check("1m 30s", Some(Duration::from_secs(90)));
        check("0", None);
        check("-1s", None);
        check("soon", None);
    }

    #[test]
    fn properties_are_read_quoted_or_dotted() {
        let text = "[kafka]\n\"client.id\" = \"me\"\nsecurity.protocol = \"SSL\"\nlinger.ms = 5\n";
        let mut properties = parse_file(text).unwrap();
        properties.sort();
        let expected = [
            ("client.id", "me"),
            ("linger.ms", "5"),
            ("security.protocol", "SSL"),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(properties, expected);
        assert!(parse_file("[kafka]\na = []").is_err());
        assert!(parse_file("kafka = 1").is_err());
    }
}

//! A daemon's flags, and the settings they make together with the environment and the configuration file.
//!
//! Two stages: [`Options`] is text that clap understood, [`Settings`] is what the library takes. Knows no service but its
//! name.

use crate::file::ConfigFile;
use crate::purge;
use clap::{Args, ValueEnum};
use evenkeel::consumer::{Assignment, Bound, ConsumerSettings};
use evenkeel::inbox::Durability;
use evenkeel::kafka::{ConfigError, KafkaConfig};
use evenkeel::recovery::FloodGuardPolicy;
use jiff::{Span, SpanRelativeTo};
use serde::Deserialize;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// Where a local Kafka listens.
const BROKERS_DEFAULT: &str = "localhost:9092";

/// The flags that every daemon has.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// Bootstrap servers, comma separated [env: KAFKA_BOOTSTRAP_SERVERS] [default: localhost:9092]
    #[arg(short, long, alias = "bootstrap-server", value_name = "HOST:PORT,...")]
    pub brokers: Option<String>,
    /// SQLite file of the service, shared by its instances on this machine [default: SERVICE.db]
    #[arg(long, env = "SHOP_STORE", value_name = "PATH")]
    pub store: Option<PathBuf>,
    /// What a handled event survives [default: power-loss]
    #[arg(long, env = "SHOP_DURABILITY", value_name = "OF")]
    pub durability: Option<Survives>,
    /// Handlers running at the same time, over all partitions [default: 64]
    #[arg(long, env = "SHOP_CONCURRENCY", value_name = "N")]
    pub concurrency: Option<NonZeroUsize>,
    /// Serve /livez, /readyz and /metrics here [default: nowhere]
    #[arg(long, env = "SHOP_ADMIN", value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// How long a stop waits for running handlers and what they publish [default: 25s]
    #[arg(long, env = "SHOP_DRAIN_TIMEOUT", value_name = "TIME", value_parser = duration)]
    pub drain_timeout: Option<Duration>,
    /// How long a handled event is remembered; longer than topics keep it and dead letters wait [default: 45d]
    #[arg(long, env = "SHOP_INBOX_RETENTION", value_name = "TIME", value_parser = duration)]
    pub inbox_retention: Option<Duration>,
    /// Static membership: a name that this instance keeps across restarts
    #[arg(long, env = "SHOP_INSTANCE_ID", value_name = "NAME")]
    pub instance_id: Option<String>,
    /// How the group shares partitions out: `consumer` has the brokers do it (KIP-848, from Kafka 4.0) [default: classic]
    #[arg(long, env = "SHOP_GROUP_PROTOCOL", value_name = "PROTOCOL")]
    pub group_protocol: Option<GroupProtocol>,
    /// Configuration file (TOML); flags and variables win over it
    #[arg(long, env = "SHOP_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set a librdkafka property; may be repeated
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    pub properties: Vec<String>,
    /// Stop when everything that was there at the start is settled
    #[arg(long, conflicts_with = "idle")]
    pub until_end: bool,
    /// Stop when no record came for this long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub idle: Option<Duration>,
    /// Log as JSON lines
    #[arg(long)]
    pub log_json: bool,
    /// Do not check payloads against their schemas
    #[arg(long)]
    pub no_validate: bool,
    /// Go on writing dead letters however many there are; for when it is known why
    #[arg(long)]
    pub no_flood_guard: bool,
}

/// The protocol by which a group's members share its partitions. All members of a group have to use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupProtocol {
    /// The members assign; partitions that stay are not revoked.
    Classic,
    /// The brokers assign (KIP-848).
    Consumer,
}

/// What the store's commits survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Survives {
    /// A power cut: commits wait until the disk has them.
    PowerLoss,
    /// A killed process; a power cut may take what was handled last.
    ProcessCrash,
}

impl From<Survives> for Durability {
    fn from(survives: Survives) -> Self {
        match survives {
            Survives::PowerLoss => Self::PowerLoss,
            Survives::ProcessCrash => Self::ProcessCrash,
        }
    }
}

/// How a daemon runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// How the consumer behaves.
    pub consumer: ConsumerSettings,
    /// The service's SQLite file.
    pub store: PathBuf,
    /// What its commits survive.
    pub durability: Durability,
    /// How long the store remembers handled events.
    pub inbox_retention: Duration,
    /// Where the admin server listens; nowhere when none.
    pub admin: Option<SocketAddr>,
    /// Log as JSON lines.
    pub log_json: bool,
    /// Check payloads against their schemas.
    pub validate: bool,
}

impl Options {
    /// Builds the settings of `service`: a flag wins over a variable, a variable over the file, the file over the default.
    ///
    /// # Errors
    /// When the file or a value cannot be used; the message names it.
    pub fn settings(self, service: &str) -> Result<Settings, ConfigError> {
        let file = match &self.config {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        let kafka = kafka(&self, &file, service)?;
        let drain_timeout = time("drain_timeout", self.drain_timeout, file.drain_timeout)?;
        let inbox_retention = time(
            "inbox_retention",
            self.inbox_retention,
            file.inbox_retention,
        )?;
        let mut consumer = ConsumerSettings::new(service, topics(service));
        if let Some(concurrency) = self.concurrency.or(file.concurrency) {
            consumer.concurrency = concurrency.get();
        }
        if let Some(drain_timeout) = drain_timeout {
            consumer.drain_timeout = drain_timeout;
        }
        consumer.instance_id = self.instance_id.or(file.instance_id);
        if self.group_protocol.or(file.group_protocol) == Some(GroupProtocol::Consumer) {
            consumer.assignment = Assignment::Broker;
        }
        consumer.bound = match self.idle {
            Some(time) => Bound::Idle(time),
            None if self.until_end => Bound::UntilEnd,
            None => Bound::Endless,
        };
        if self.no_flood_guard {
            consumer.flood_guard = FloodGuardPolicy::OFF;
        }
        consumer.validate()?;
        Ok(Settings {
            kafka,
            consumer,
            store: self
                .store
                .or(file.store)
                .unwrap_or_else(|| PathBuf::from(format!("{service}.db"))),
            durability: self
                .durability
                .or(file.durability)
                .map_or_else(Durability::default, Into::into),
            inbox_retention: inbox_retention.unwrap_or(purge::RETENTION_DEFAULT),
            admin: self.admin.or(file.admin),
            log_json: self.log_json || file.log_json.unwrap_or(false),
            validate: !self.no_validate && file.validate.unwrap_or(true),
        })
    }
}

/// The topics that declare `service` among their consumers.
fn topics(service: &str) -> impl Iterator<Item = &'static str> {
    shop_schemas::topics()
        .iter()
        .filter(move |topic| topic.consumers.iter().any(|consumer| consumer == service))
        .map(|topic| topic.name.as_str())
}

fn kafka(options: &Options, file: &ConfigFile, service: &str) -> Result<KafkaConfig, ConfigError> {
    let brokers = file.brokers.as_deref().unwrap_or(BROKERS_DEFAULT);
    let mut kafka = KafkaConfig::new(brokers);
    kafka.client_id = service.to_owned();
    for (name, value) in &file.kafka {
        kafka.set(&format!("{name}={value}"))?;
    }
    kafka.apply_env()?;
    for assignment in &options.properties {
        kafka.set(assignment)?;
    }
    if let Some(brokers) = &options.brokers {
        kafka.brokers.clone_from(brokers);
    }
    kafka.validate()?;
    Ok(kafka)
}

/// The time that a flag gives, else the file under this name.
fn time(
    name: &str,
    flag: Option<Duration>,
    file: Option<String>,
) -> Result<Option<Duration>, ConfigError> {
    match (flag, file) {
        (None, Some(text)) => duration(&text)
            .map(Some)
            .map_err(|reason| ConfigError::new(name, reason)),
        (flag, _) => Ok(flag),
    }
}

/// Reads a time such as `5s`, `500ms`, `1m 30s` or `45d`, a day being 24 hours; it must not be zero or negative.
fn duration(text: &str) -> Result<Duration, String> {
    let time = text
        .parse()
        .and_then(|span: Span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .map_err(|error| format!("{text:?} is no time such as 5s, 500ms or 45d: {error}"))?;
    match Duration::try_from(time) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err(format!("{text:?} must be longer than nothing")),
    }
}

#[cfg(test)]
mod tests;

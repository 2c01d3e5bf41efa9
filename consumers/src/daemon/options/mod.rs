//! The flags of a daemon, and its settings from flags, environment and configuration file.
//!
//! There are two stages: [`Options`] is the parsed command line, [`Settings`] are the library's
//! types. Independent of the service, apart from its name.

mod choices;

pub use choices::{GroupProtocol, Survives};

use super::config_file::ConfigFile;
use super::inbox_purge;
use clap::Args;
use evenkeel::consumer::{Assignment, ConsumerSettings, StopWhen};
use evenkeel::inbox::Durability;
use evenkeel::kafka::{ConfigError, KafkaConfig};
use evenkeel::recovery::FloodGuardPolicy;
use evenkeel::telemetry::daemon::admin_address;
use evenkeel_program::connection::{BrokerArgs, ConfigFile as ProgramFile};
use evenkeel_program::duration::parse_duration;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// The flags that every daemon has.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// Bootstrap servers, and properties of the client
    #[command(flatten)]
    pub brokers: BrokerArgs<false>,
    /// SQLite file of the service, shared by its instances on this machine [default: SERVICE.db]
    #[arg(long, env = "SHOP_STORE", value_name = "PATH")]
    pub store: Option<PathBuf>,
    /// Failure that a committed effect survives [default: power-loss]
    #[arg(long, env = "SHOP_DURABILITY", value_name = "FAILURE")]
    pub durability: Option<Survives>,
    /// Maximum number of handlers that run at the same time, over all partitions [default: 64]
    #[arg(long, env = "SHOP_CONCURRENCY", value_name = "N")]
    pub concurrency: Option<NonZeroUsize>,
    /// Address of /livez, /readyz and /metrics: a port alone is on 127.0.0.1; 0.0.0.0:PORT is
    /// reachable from other machines [default: no server]
    #[arg(long, env = "SHOP_ADMIN", value_name = "[ADDR:]PORT", value_parser = admin_address)]
    pub admin: Option<SocketAddr>,
    /// Deadline of a stop for running handlers, what they publish, and the last commit [default:
    /// 25s]
    #[arg(long, env = "SHOP_DRAIN_TIMEOUT", value_name = "TIME", value_parser = parse_duration)]
    pub drain_timeout: Option<Duration>,
    /// How long the inbox keeps a handled event. Must be longer than the topics' retention plus the
    /// longest time that a dead letter waits for its replay [default: 45d]
    #[arg(long, env = "SHOP_INBOX_RETENTION", value_name = "TIME", value_parser = parse_duration)]
    pub inbox_retention: Option<Duration>,
    /// Static membership: a name that this instance keeps across restarts, so that a restart moves
    /// no partition [default: none]
    #[arg(long, env = "SHOP_INSTANCE_ID", value_name = "NAME")]
    pub instance_id: Option<String>,
    /// Who assigns the partitions of the group: `classic`, its members; `consumer`, the brokers
    /// (KIP-848, from Kafka 4.0 on) [default: classic]
    #[arg(long, env = "SHOP_GROUP_PROTOCOL", value_name = "PROTOCOL")]
    pub group_protocol: Option<GroupProtocol>,
    /// Configuration file: TOML, or .properties with the connection to Kafka. Flags and SHOP_
    /// variables take precedence over it, and KAFKA_ variables only if SHOP_CONFIG names the file
    #[arg(long, env = "SHOP_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Stop when every record that existed at the start is settled
    #[arg(long, conflicts_with = "idle")]
    pub until_end: bool,
    /// Stop when no record has arrived for this time, such as 30s
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub idle: Option<Duration>,
    /// Log as JSON lines
    #[arg(long)]
    pub log_json: bool,
    /// Do not validate payloads against their schemas
    #[arg(long)]
    pub no_validate: bool,
    /// Switch the flood guard off: write dead letters without limit, once their cause is known
    #[arg(long)]
    pub no_flood_guard: bool,
}

/// Settings of a daemon.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Kafka connection settings.
    pub kafka: KafkaConfig,
    /// Warnings about the settings, to be logged.
    pub warnings: Vec<String>,
    /// Settings of the consumer.
    pub consumer: ConsumerSettings,
    /// The service's SQLite file.
    pub store: PathBuf,
    /// The failure that the store's commits survive.
    pub durability: Durability,
    /// How long the store keeps inbox rows.
    pub inbox_retention: Duration,
    /// Address of the admin server. `None`: no server.
    pub admin: Option<SocketAddr>,
    /// Log as JSON lines.
    pub log_json: bool,
    /// Validate payloads against their schemas.
    pub validate: bool,
}

impl Options {
    /// Builds the settings of `service`. Precedence, highest first: flag, environment variable,
    /// file, default. Kafka settings are an exception: a file named on the command line takes
    /// precedence over variables.
    ///
    /// # Errors
    /// If the file or a value is invalid. The message names it.
    pub fn settings(self, service: &str) -> Result<Settings, ConfigError> {
        let file = match &self.config {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        let config = self.config.as_deref();
        let layers = self.brokers.layers(
            service,
            ProgramFile {
                path: config,
                variable: "SHOP_CONFIG",
                is_program_file: true,
            },
        )?;
        let kafka = layers.build()?;
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
        consumer.stop_when = match self.idle {
            Some(time) => StopWhen::Idle(time),
            None if self.until_end => StopWhen::UntilEnd,
            None => StopWhen::Endless,
        };
        if self.no_flood_guard {
            consumer.flood_guard = FloodGuardPolicy::OFF;
        }
        consumer.validate()?;
        Ok(Settings {
            warnings: layers.warnings(),
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
            inbox_retention: inbox_retention.unwrap_or(inbox_purge::RETENTION_DEFAULT),
            admin: self.admin.or(file.admin),
            log_json: self.log_json || file.log_json.unwrap_or(false),
            validate: !self.no_validate && file.validate.unwrap_or(true),
        })
    }
}

/// The topics that declare `service` as a consumer.
fn topics(service: &str) -> impl Iterator<Item = &'static str> {
    shop_schemas::topics()
        .iter()
        .filter(move |topic| topic.consumers.iter().any(|consumer| consumer == service))
        .map(|topic| topic.name.as_str())
}

/// The duration of a flag, else of the file's key of this name.
fn time(
    name: &str,
    flag: Option<Duration>,
    file: Option<String>,
) -> Result<Option<Duration>, ConfigError> {
    match (flag, file) {
        (None, Some(text)) => parse_duration(&text)
            .map(Some)
            .map_err(|reason| ConfigError::new(name, reason)),
        (flag, _) => Ok(flag),
    }
}

#[cfg(test)]
mod tests;

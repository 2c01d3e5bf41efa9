//! The command line.

use clap::{Parser, ValueEnum};
use evenkeel::testing::KafkaKind;
use evenkeel_program::duration::parse_duration_or_seconds;
use std::path::PathBuf;
use std::time::Duration;

/// Run the whole shop on one machine, and audit that every event had its effect once and in order.
///
/// Starts or finds a Kafka, starts every service and two gateways as processes, simulates orders,
/// half of them over HTTP, reads streams of events, waits until all are handled, and audits.
/// Everything that it started is stopped at the end, or at Ctrl-C.
///
/// Exit codes: 0 the audit passed; 1 it failed, or the demo could not run; 2 wrong usage; 130, 143
/// stopped by a signal.
#[derive(Debug, Parser)]
#[command(name = "shop-demo", bin_name = "cargo demo --", version)]
pub(crate) struct Args {
    /// Duration of the simulated orders, such as 30s or 2m; a bare number is seconds.
    #[arg(
        long = "for",
        value_name = "TIME",
        default_value = "60s",
        value_parser = parse_duration_or_seconds
    )]
    pub(crate) load: Duration,
    /// Orders per second; half of them are sent to the gateways over HTTP. It is lowered if the lag
    /// stays above 2 s of work, except under --chaos.
    #[arg(
        long,
        value_name = "ORDERS",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) rate: u32,
    /// Kafka to start; auto is that of KAFKA_BOOTSTRAP_SERVERS, else Docker, else Java, else the
    /// mock cluster.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) kafka: Kafka,
    /// Bootstrap servers of a running Kafka, instead of starting one.
    #[arg(
        long,
        short,
        visible_alias = "bootstrap-server",
        conflicts_with = "kafka"
    )]
    pub(crate) brokers: Option<String>,
    /// Inject faults: kill, freeze and stop services and gateways at random and start them again;
    /// freeze the broker, if the demo started it as a process or container; make the payment
    /// provider slow, hang, decline, fail for one customer or be down for a while.
    #[arg(long)]
    pub(crate) chaos: bool,
    /// Seed of orders and faults [default: random, and printed].
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Format of the report.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Folder in which stores, logs and the journal are kept; must be empty or new [default: kept
    /// only if the audit fails].
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

impl Args {
    /// Parses the command line. Ends the process with an error message if it is invalid.
    pub(crate) fn read() -> Self {
        Self::parse()
    }
}

/// Which Kafka to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Kafka {
    /// The first of the others that is available.
    #[default]
    Auto,
    /// Apache Kafka in a container.
    Docker,
    /// Apache Kafka as a Java process.
    Java,
    /// librdkafka's mock cluster.
    Mock,
}

impl From<Kafka> for KafkaKind {
    fn from(kafka: Kafka) -> Self {
        match kafka {
            Kafka::Auto => Self::Auto,
            Kafka::Docker => Self::Docker,
            Kafka::Java => Self::Java,
            Kafka::Mock => Self::Mock,
        }
    }
}

/// How the report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// A table and a sentence.
    #[default]
    Table,
    /// One JSON object, and nothing else on standard output.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}

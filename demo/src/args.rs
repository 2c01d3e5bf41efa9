//! The command line.

use clap::{Parser, ValueEnum};
use evenkeel::testing::KafkaKind;
use evenkeel_program::duration::parse_duration_or_seconds;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The whole shop on one machine: starts or finds a Kafka, starts every daemon as its own process,
/// simulates orders, and audits at the end that every event had its effect exactly once and in
/// order.
#[derive(Debug, Parser)]
#[command(name = "shop-demo", bin_name = "cargo demo --", version)]
pub(crate) struct Args {
    /// How long orders are simulated, such as 30s or 2m.
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = parse_duration_or_seconds)]
    pub(crate) load: Duration,
    /// Orders a second.
    #[arg(long, value_name = "ORDERS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
    /// Which Kafka to start; auto takes what KAFKA_BOOTSTRAP_SERVERS names, else Docker, else Java,
    /// else the mock cluster.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) kafka: Kafka,
    /// Bootstrap servers of a Kafka that runs already.
    #[arg(
        long,
        short,
        visible_alias = "bootstrap-server",
        conflicts_with = "kafka"
    )]
    pub(crate) brokers: Option<String>,
    /// Kills, freezes and stops daemons at random, and starts them again; freezes the broker, where
    /// the demo started it as a process or container; and has the payment provider be slow, hang,
    /// decline, fail for one customer or be down for a while.
    #[arg(long)]
    pub(crate) chaos: bool,
    /// Seed of the orders and of the chaos; without it, a random one, which is printed.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Keeps stores, logs and the journal in this directory, which must be empty or new; else they
    /// are kept only if the books do not balance.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

impl Args {
    /// Parses the command line. Ends the process with an error message if it is invalid.
    pub(crate) fn read() -> Self {
        Self::parse_from(without_separator(std::env::args_os()))
    }
}

/// The alias `cargo demo` ends in `--`, so that flags may follow directly. A second `--` before
/// them, as for `cargo run`, is ignored.
fn without_separator(args: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    args.enumerate()
        .filter(|(index, arg)| *index != 1 || arg != "--")
        .map(|(_, arg)| arg)
}

/// Which Kafka to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Kafka {
    /// The first of the others that is to be had.
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

    #[test]
    fn flags_follow_with_or_without_a_separator() {
        for line in [
            &["demo", "--for", "30s"][..],
            &["demo", "--", "--for", "30s"],
        ] {
            let args = without_separator(line.iter().map(OsString::from));
            let args = Args::try_parse_from(args).expect("a usable command line");
            assert_eq!(args.load, Duration::from_secs(30), "{line:?}");
        }
    }
}

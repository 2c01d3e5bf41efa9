//! `evenkeel dev`: a Kafka on this machine for development.
//!
//! Starting and stopping is in `evenkeel::testing`. Only with the feature `dev`: operators'
//! binaries do without it, and without the code that starts containers.
//!
//! `up` prints the variable to export on standard output and the next steps on standard error, so
//! that `eval "$(evenkeel dev up | tail -1)"` works.

use crate::output::stderr::say;
use crate::output::{AfterDone, Column, Listing, OutputArgs, Row, name, print, print_line, text};
use clap::{Args, Subcommand, ValueEnum};
use evenkeel::testing::{KafkaKind, dev};
use evenkeel_program::exit::Ending;
use serde::Serialize;

/// Start, stop and find a Kafka on this machine, for development.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    #[command(subcommand)]
    command: DevCommand,
}

/// The commands of `dev`.
#[derive(Debug, Subcommand)]
enum DevCommand {
    /// Start a Kafka that runs until `down`, or show the one that runs. Safe to repeat.
    Up(UpArgs),
    /// Stop the Kafka and delete its data.
    Down,
    /// Show whether a Kafka runs. Exit code 3 if none does.
    Status(OutputArgs),
}

/// How and where Kafka is started. Ignored if one runs already.
#[derive(Debug, Args)]
struct UpArgs {
    /// Where Kafka runs.
    #[arg(long, value_enum, default_value = "auto")]
    kafka: Kind,

    /// Port on 127.0.0.1.
    #[arg(short, long, default_value_t = 9092)]
    port: u16,

    #[command(flatten)]
    output: OutputArgs,
}

/// The ways to run a Kafka on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Docker, else Java.
    Auto,
    /// A container.
    Docker,
    /// A process of Java 17 with jars from Maven Central.
    Java,
}

/// The Kafka that runs. Without one, the listing has no row.
#[derive(Serialize)]
struct Status {
    /// Always true: without a Kafka, there is no row.
    running: bool,
    /// Bootstrap servers.
    brokers: String,
    /// Where and how Kafka runs, in words.
    description: String,
}

impl Row for Status {
    const COLUMNS: &'static [Column] = &[name("brokers"), text("description")];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![self.brokers.clone(), self.description.clone()]]
    }
}

impl From<dev::DevStatus> for Status {
    fn from(status: dev::DevStatus) -> Self {
        Self {
            running: true,
            brokers: status.brokers,
            description: status.description,
        }
    }
}

/// Runs one of the development commands.
pub(crate) async fn run(args: DevArgs) -> anyhow::Result<Ending> {
    match args.command {
        DevCommand::Up(args) => up(args).await,
        DevCommand::Down => down().await,
        DevCommand::Status(output) => status(output).await,
    }
}

/// Suggestions for the next steps.
const HINTS: [&str; 5] = [
    "with that variable set, every command finds it:",
    "  evenkeel topics apply --execute       create the shop's topics",
    "  evenkeel tail shop.orders             watch events come in",
    "  evenkeel publish shop.order-cancelled.v1 -d order_id=o-1 -d reason=test",
    "  evenkeel dev down                     stop it and delete its data",
];

/// Starts or finds the Kafka, and prints its address.
async fn up(args: UpArgs) -> anyhow::Result<Ending> {
    let kind = match args.kafka {
        Kind::Auto => KafkaKind::Auto,
        Kind::Docker => KafkaKind::Docker,
        Kind::Java => KafkaKind::Java,
    };
    let status = Status::from(dev::up(kind, args.port).await?);
    let runs = || "Kafka runs".to_owned();
    if !args.output.is_table() {
        Listing::print(args.output, [status]).after_done(runs)?;
        return Ok(Ending::Done);
    }
    let Status {
        brokers,
        description,
        ..
    } = status;
    print(&format!(
        "{description}\nexport KAFKA_BOOTSTRAP_SERVERS={brokers}\n"
    ))
    .after_done(runs)?;
    for hint in HINTS {
        say!("{hint}");
    }
    Ok(Ending::Done)
}

/// Stops the Kafka. None running is no error.
async fn down() -> anyhow::Result<Ending> {
    let text = match dev::down().await? {
        Some(status) => format!("stopped: {}", status.description),
        None => "nothing was running".to_owned(),
    };
    print_line(&text).after_done(|| "no Kafka runs".to_owned())?;
    Ok(Ending::Done)
}

/// Prints the Kafka that runs, if any.
async fn status(output: OutputArgs) -> anyhow::Result<Ending> {
    match dev::status().await? {
        Some(status) => {
            Listing::print(output, [Status::from(status)])?;
            Ok(Ending::Done)
        }
        None => {
            Listing::<_, Status>::print(output, [])?;
            say!("no Kafka runs; start one with: evenkeel dev up");
            Ok(Ending::FoundBad)
        }
    }
}

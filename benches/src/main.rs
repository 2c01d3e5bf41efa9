//! Measurements against raw librdkafka: `cargo run --release -p evenkeel-bench -- all`.
//!
//! - [`workloads`]: one file per workload: its data, its contestants, its aims
//! - [`spec`]: a workload, and the input of a turn; [`rounds`]: contestants take turns, each turn
//!   in a process of its own
//! - [`cluster`]: the Kafka and its data; [`order_event`]: the event
//! - [`child`]: a child process with a log
//! - [`measure`]: shared code of turns, the check of their results, processor time and memory;
//!   [`machine`]: the measured machine
//! - [`report`]: medians, spread, ratio and aims; [`charts`]: figures of them

mod charts;
mod child;
mod cluster;
mod machine;
mod measure;
mod order_event;
mod report;
mod rounds;
mod spec;
mod workload;
mod workloads;

use anyhow::bail;
use clap::{Parser, ValueEnum};
use cluster::Cluster;
use evenkeel_program::exit::{self, Ending, Usage};
use machine::Machine;
use report::Report;
use rounds::PreparedContestant;
use spec::{Data, Spec};
use std::path::PathBuf;
use std::process::ExitCode;
use workload::Workload;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure evenkeel beside raw librdkafka, in the same run.
///
/// Contestants take turns on one Apache Kafka, each turn in a process that checks its own result.
/// Writes its data to topics evenkeel-bench.*, and uses them again in the next run.
///
/// Exit codes: 0 measured; 1 failed, or a wrong result; 2 wrong usage; 3 a ratio below --ratio-min,
/// or a missed aim with --aims; 4 no broker can be reached; 5 no answer in time.
#[derive(Debug, Parser)]
#[command(name = "evenkeel-bench", version)]
struct Arguments {
    /// Workloads to measure, or `all`.
    #[arg(required_unless_present = "turn")]
    workloads: Vec<Choice>,
    /// Number of records to prepare; a multiple of --keys [default: by workload].
    #[arg(long)]
    records: Option<u64>,
    /// Bytes of a record's value, which is JSON [default: by workload].
    #[arg(long, value_parser = clap::value_parser!(u64).range(60..=1_000_000))]
    size: Option<u64>,
    /// Number of partitions [default: by workload].
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    partitions: Option<i32>,
    /// Number of keys [default: by workload].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    keys: Option<u64>,
    /// Contestant to measure, such as evenkeel-process-crash; may be repeated [default: all].
    #[arg(long = "contestant", value_name = "NAME")]
    contestants: Vec<String>,
    /// Contestant to leave out, such as rows-10m-postgres; may be repeated.
    #[arg(long, value_name = "NAME")]
    without: Vec<String>,
    /// Turns of each contestant [default: by workload].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    runs: Option<u64>,
    /// Bootstrap servers [default: KAFKA_BOOTSTRAP_SERVERS, else an Apache Kafka that is started].
    #[arg(long, short, visible_alias = "bootstrap-server")]
    brokers: Option<String>,
    /// A property of the client for every contestant; may be repeated. Not checked for the raw
    /// ones. The daemons of the shop get it as `-X`.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    properties: Vec<String>,
    /// Minimum ratio to raw; exit code 3 if one is less.
    #[arg(long, value_name = "SHARE")]
    ratio_min: Option<f64>,
    /// Exit code 3 if an aim is missed.
    #[arg(long)]
    aims: bool,
    /// Folder for the figures of `growth`, which are SVG files; not with other sizes or keys.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["size", "keys"])]
    figures: Option<PathBuf>,
    /// Format: a table or a JSON object per workload.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// Take one turn, in this process.
    #[arg(long, hide = true)]
    turn: Option<String>,
}

/// The help of `all`.
const ALL: &str =
    "Every workload but `peers`, which needs Maven and a JDK, and `growth`, which takes long";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    All,
    One(Workload),
}

impl ValueEnum for Choice {
    fn value_variants<'a>() -> &'a [Self] {
        const CHOICES: &[Choice] = &[
            Choice::All,
            Choice::One(Workload::Consume),
            Choice::One(Workload::Decode),
            Choice::One(Workload::Slow),
            Choice::One(Workload::Publish),
            Choice::One(Workload::Latency),
            Choice::One(Workload::Effects),
            Choice::One(Workload::SharedRows),
            Choice::One(Workload::Relay),
            Choice::One(Workload::OutboxPublish),
            Choice::One(Workload::Backlog),
            Choice::One(Workload::Keys),
            Choice::One(Workload::HotKey),
            Choice::One(Workload::Rebalance),
            Choice::One(Workload::Lifecycle),
            Choice::One(Workload::Parked),
            Choice::One(Workload::Gateway),
            Choice::One(Workload::GatewayOverload),
            Choice::One(Workload::GatewayOutage),
            Choice::One(Workload::GatewayStreams),
            Choice::One(Workload::Peers),
            Choice::One(Workload::Shop),
            Choice::One(Workload::Growth),
        ];
        CHOICES
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        match self {
            Self::All => Some(clap::builder::PossibleValue::new("all").help(ALL)),
            Self::One(workload) => workload.to_possible_value(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// A table per workload.
    #[default]
    Table,
    /// One JSON object per workload, one per line.
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.turn {
        Some(spec) => take_turn(spec).await,
        None => measure_workloads(&arguments).await,
    };
    exit::report(done, |error| format!("error: {}", exit::message(error)))
}

async fn take_turn(spec: &str) -> anyhow::Result<Ending> {
    let spec: Spec = serde_json::from_str(spec)?;
    let turn = spec.workload.turn(&spec).await?;
    println!("{}", serde_json::to_string(&turn)?);
    Ok(Ending::Done)
}

async fn measure_workloads(arguments: &Arguments) -> anyhow::Result<Ending> {
    let workloads = arguments.workloads()?;
    let cluster = Cluster::get(arguments.brokers.as_deref()).await?;
    eprintln!("Kafka: {}", cluster.description);
    let (mut valid, mut enough) = (true, true);
    for workload in workloads {
        let report = run_workload(workload, arguments, &cluster).await?;
        match arguments.output {
            Output::Table => println!("{}", report.to_table()),
            Output::Json => println!("{}", serde_json::to_string(&report)?),
        }
        if let Some(folder) = &arguments.figures {
            for figure in workload.figures(&report) {
                figure.write(folder)?;
            }
        }
        valid &= report.valid;
        let least = arguments.ratio_min.zip(report.ratio);
        enough &= least.is_none_or(|(least, ratio)| ratio >= least);
        enough &= !arguments.aims || report.aims_met();
    }
    Ok(match (valid, enough) {
        (false, _) => Ending::SomeFailed,
        (true, false) => Ending::FoundBad,
        (true, true) => Ending::Done,
    })
}

/// Prepares a workload's data, runs its rounds and creates the report.
async fn run_workload(
    workload: Workload,
    arguments: &Arguments,
    cluster: &Cluster,
) -> anyhow::Result<Report> {
    let plan = workload.plan();
    let plan = plan
        .only(&arguments.contestants)?
        .without(&arguments.without)?;
    eprintln!("{}: {}", workload.name(), plan.title);
    let mut contestants = Vec::with_capacity(plan.contestants.len());
    for contestant in &plan.contestants {
        let data = arguments.with_sizes(contestant.data.unwrap_or(workload.written_data()))?;
        let writes = contestant.data.is_none();
        let topic = if writes {
            String::new()
        } else {
            cluster.prepare(data).await?
        };
        let spec = Spec {
            workload,
            contestant: contestant.name.to_owned(),
            brokers: cluster.config.brokers.clone(),
            topic,
            data,
            properties: arguments.properties.clone(),
        };
        contestants.push(PreparedContestant { spec, writes });
    }
    let runs = arguments.runs.map_or(plan.runs, |runs| runs as usize);
    let results = rounds::run_rounds(cluster, &contestants, runs, plan.unit).await;
    let kafka = cluster.description.clone();
    Ok(Report::new(
        workload.name(),
        &plan,
        results,
        kafka,
        Machine::current(),
    ))
}

impl Arguments {
    /// The workloads, with those of `all`.
    fn workloads(&self) -> Result<Vec<Workload>, Usage> {
        let mut workloads = Vec::new();
        for choice in &self.workloads {
            match choice {
                Choice::All => {
                    let all = Workload::value_variants().iter();
                    workloads.extend(all.filter(|workload| workload.is_in_all()));
                }
                Choice::One(workload) => workloads.push(*workload),
            }
        }
        if self.figures.is_some() && !workloads.contains(&Workload::Growth) {
            return Err(Usage("--figures needs the workload growth".to_owned()));
        }
        Ok(workloads)
    }

    /// The data with the sizes that the flags set.
    fn with_sizes(&self, data: Data) -> anyhow::Result<Data> {
        let data = Data {
            records: self.records.unwrap_or(data.records),
            size: self.size.map_or(data.size, |size| size as usize),
            partitions: self.partitions.unwrap_or(data.partitions),
            keys: self.keys.map_or(data.keys, |keys| keys as usize),
            form: data.form,
        };
        if data.records == 0 || !data.records.is_multiple_of(data.keys as u64) {
            bail!(
                "{} records are no multiple of {} keys: every key has the same number of records",
                data.records,
                data.keys
            );
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_can_be_chosen() {
        let each = Workload::value_variants().iter().copied();
        let expected: Vec<Choice> = [Choice::All]
            .into_iter()
            .chain(each.map(Choice::One))
            .collect();
        assert_eq!(Choice::value_variants(), expected);
    }

    fn parsed(arguments: &str) -> Result<Arguments, clap::Error> {
        let arguments = arguments.split(' ');
        Arguments::try_parse_from(["evenkeel-bench"].into_iter().chain(arguments))
    }

    #[test]
    fn all_leaves_out_what_needs_more() {
        let workloads = |arguments| {
            let arguments = parsed(arguments).expect("valid arguments");
            arguments.workloads().expect("valid workloads")
        };
        let all = workloads("all");
        let is_left_out = |workload: &&Workload| !all.contains(workload);
        let left_out = Workload::value_variants().iter().filter(is_left_out);
        assert_eq!(
            left_out.collect::<Vec<_>>(),
            [&Workload::Peers, &Workload::Growth]
        );
        assert_eq!(workloads("growth"), [Workload::Growth]);
    }

    #[test]
    fn figures_need_growth_with_its_own_sizes() {
        let growth = parsed("growth --figures f --without rows-10m-sqlite").expect("valid");
        assert!(growth.workloads().is_ok());
        let others = parsed("all --figures f").expect("parsed");
        assert!(others.workloads().is_err());
        for sizes in ["--size 100", "--keys 10"] {
            assert!(
                parsed(&format!("growth --figures f {sizes}")).is_err(),
                "{sizes}"
            );
        }
    }
}

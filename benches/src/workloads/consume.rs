//! `consume`: everything on a topic from its beginning, each turn in a fresh group.
//!
//! `raw` is what a program without any framework does: a loop over `BaseConsumer::poll`, tuned as our consumer is, that
//! keeps neither ledger nor order and commits nothing. `evenkeel` is a consumer with its defaults and a handler that
//! does nothing but the check: order per key, ledger and commits are on.

use crate::check::Check;
use crate::cluster::{Cluster, Data};
use crate::contest::{self, hold};
use crate::report::Report;
use crate::usage::resident_max_kib;
use anyhow::{Context, bail};
use clap::ValueEnum;
use evenkeel::consumer::{Bound, Consumer, ConsumerSettings};
use evenkeel::event::Record;
use evenkeel::handler::{Outcome, Router};
use evenkeel::kafka::KafkaConfig;
use evenkeel::testing::unique;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Without a record for that long, a turn has failed.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    shape: Shape,
    /// Turns of each contestant.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Bootstrap servers; without them, KAFKA_BOOTSTRAP_SERVERS, or an Apache Kafka that is started.
    #[arg(long, short, visible_alias = "bootstrap-server")]
    brokers: Option<String>,
    /// Fails (exit code 3) if evenkeel's rate is less than this share of the raw loop's.
    #[arg(long, value_name = "SHARE")]
    ratio_min: Option<f64>,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// The data.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Shape {
    /// Records; a multiple of the keys.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Bytes of a record's value, which is JSON.
    #[arg(long, default_value_t = 328, value_parser = clap::value_parser!(u64).range(32..=1_000_000))]
    size: u64,
    /// Partitions.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    partitions: i32,
    /// Keys.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    keys: u64,
}

/// One turn of one contestant.
#[derive(Debug, clap::Args)]
pub(crate) struct Turn {
    contestant: Contestant,
    #[command(flatten)]
    shape: Shape,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    brokers: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Contestant {
    Raw,
    Evenkeel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// A table.
    #[default]
    Table,
    /// One JSON object.
    Json,
}

/// Measures and reports.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Shape {
        records,
        size,
        partitions,
        keys,
    } = args.shape;
    if records == 0 || records % keys != 0 {
        bail!(
            "--records must be a multiple of --keys, {keys}: every key has the same number of records"
        );
    }
    let cluster = Cluster::get(args.brokers.as_deref()).await?;
    eprintln!("Kafka: {}", cluster.description);
    let data = Data {
        records,
        size: size as usize,
        partitions,
        keys: keys as usize,
    };
    let topic = cluster.prepare(data).await?;
    eprintln!("data: {topic}");
    let arguments = |contestant: &str| {
        let shape = [
            ("--records", records.to_string()),
            ("--size", size.to_string()),
            ("--partitions", partitions.to_string()),
            ("--keys", keys.to_string()),
            ("--topic", topic.clone()),
            ("--brokers", cluster.config.brokers.clone()),
        ];
        let flags = shape
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value]);
        ["consume-turn".to_owned(), contestant.to_owned()]
            .into_iter()
            .chain(flags)
            .collect()
    };
    let scores = hold(&["raw", "evenkeel"], args.runs as usize, arguments).await?;
    let workload =
        format!("consume: {records} records of {size} bytes, {partitions} partitions, {keys} keys");
    let report = Report::new(workload, cluster.description, scores);
    match args.output {
        Output::Table => println!("{}", report.human()),
        Output::Json => println!("{}", serde_json::to_string(&report)?),
    }
    let enough = args.ratio_min.is_none_or(|least| report.ratio() >= least);
    Ok(ExitCode::from(if enough { 0 } else { 3 }))
}

/// Takes one turn and prints what it came to as JSON.
pub(crate) async fn take_turn(turn: Turn) -> anyhow::Result<ExitCode> {
    let Shape { records, keys, .. } = turn.shape;
    let check = Arc::new(Check::new(keys as usize, records / keys));
    match turn.contestant {
        Contestant::Raw => raw(&turn, &check)?,
        Contestant::Evenkeel => evenkeel(&turn, &check).await?,
    }
    let spent = check.finish()?;
    let result = contest::Turn {
        records_per_second: records as f64 / spent.wall.as_secs_f64(),
        processor_us_per_record: spent.processor.as_secs_f64() * 1e6 / records as f64,
        resident_max_mib: resident_max_kib()? as f64 / 1024.0,
    };
    println!("{}", serde_json::to_string(&result)?);
    Ok(ExitCode::SUCCESS)
}

fn raw(turn: &Turn, check: &Check) -> anyhow::Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &turn.brokers)
        .set("group.id", unique("bench-raw"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "10")
        .create()?;
    consumer.subscribe(&[&turn.topic])?;
    let mut silent_since = None;
    loop {
        let Some(record) = consumer.poll(Duration::from_millis(100)) else {
            if silent_since.get_or_insert_with(Instant::now).elapsed() > SILENCE_MAX {
                bail!("no record came for {} s", SILENCE_MAX.as_secs());
            }
            continue;
        };
        silent_since = None;
        let record = record.context("cannot read")?;
        if check.see(record.key(), record.payload()) {
            break;
        }
    }
    consumer.unsubscribe();
    Ok(())
}

async fn evenkeel(turn: &Turn, check: &Arc<Check>) -> anyhow::Result<()> {
    let mut settings = ConsumerSettings::new(unique("bench-evenkeel"), [turn.topic.clone()]);
    settings.bound = Bound::UntilEnd;
    let seen = Arc::clone(check);
    let router = Router::new().raw(move |record: Record| {
        seen.see(record.key(), record.value());
        std::future::ready(Outcome::Done)
    });
    let kafka = KafkaConfig::new(&turn.brokers);
    let report = Consumer::new(kafka, settings, router)?
        .run(CancellationToken::new())
        .await?;
    if report.settled != turn.shape.records || !report.clean {
        bail!("wrong answer: {report:?}");
    }
    Ok(())
}

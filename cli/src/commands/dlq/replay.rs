//! `evenkeel dlq replay`: publishes dead letters again, each once.
//!
//! The replay is in `evenkeel_ops::dead_letters::replay`: it plans the routes, keeps the order of
//! keys, and records in the topic `replays.TOPIC` what it has published. This file reads the file
//! of `--from-file`, prints the plan or the outcome, and chooses the exit code.

use super::select::{FilterArgs, TopicArgs};
use crate::arguments::connection::ConnectionArgs;
use crate::arguments::operator;
use crate::input_lines::{self, Line};
use crate::output::observer::Stderr;
use crate::output::progress::Progress;
use crate::output::stderr::say;
use crate::output::{AfterDone, Column, Listing, OutputArgs, Row, name, number};
use crate::record_json;
use clap::Args;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::LogRecord;
use evenkeel_ops::Cluster;
use evenkeel_ops::dead_letters::replay::{
    Limits, Replay, ReplayOutcome, ReplaySettings, Route, Source, Target,
};
use evenkeel_program::exit::{Ending, Usage};
use evenkeel_program::stop::Stop;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

/// Replay dead letters, each once; shows the plan until --execute is given.
///
/// Re-delivers them to the group that dead-lettered them, through its retry topic, or through the
/// source topic if the group has no retry topic. The plan shows the destination.
///
/// Key, value and headers stay, the event's id among them, and so does the order of each key. The
/// failure headers are removed; headers that name the operator and count the replays are added. The
/// topic replays.TOPIC records what was replayed, so a replay that was stopped or killed is resumed
/// by running it again.
///
/// Dead letters written after the start are left for the next run. A dead letter that cannot be
/// published is reported, and later dead letters of its key wait for the next run. A dead letter
/// that was too large for its topic refers to the record that failed: that record is replayed if it
/// still exists, and reported otherwise.
///
/// Exit codes: 0 all were replayed; 1 some failed or were held back.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    topics: TopicArgs,

    /// Replay the dead letters of this file instead, as written by export and possibly edited; - is
    /// standard input. They are marked as edited.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["topics", "group"])]
    from_file: Option<PathBuf>,

    /// Destination: retry is the retry topic of the group that dead-lettered the record, which no
    /// other group reads; source is the topic on which it failed, which all its groups read;
    /// retry-or-source is retry if the group has a retry topic, else source.
    #[arg(
        long,
        value_name = "retry|source|TOPIC",
        default_value = "retry-or-source",
        value_parser = Target::from_str
    )]
    to: Target,

    /// Replay them. Without this flag, nothing is changed.
    #[arg(long)]
    pub(super) execute: bool,

    /// Maximum number of records per second [default: no limit].
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// Stop after this many dead letters [default: all].
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,

    /// Replay also dead letters that were replayed before. If it is stopped, the next run starts
    /// from the beginning.
    #[arg(long)]
    again: bool,

    /// The operator, for the headers and the replay log [default: the SASL user, else the user's
    /// name on this machine].
    #[arg(long, value_name = "NAME")]
    by: Option<String>,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    filter: FilterArgs,
}

impl ReplayArgs {
    /// Rejects meaningless arguments.
    pub(super) fn check(&self) -> Result<(), Usage> {
        if self.topics.is_empty() && self.from_file.is_none() {
            let text = "name dead-letter topics, --group or --from-file; see: evenkeel dlq list";
            return Err(Usage(text.to_owned()));
        }
        Ok(())
    }
}

impl Row for Route {
    const COLUMNS: &'static [Column] = &[
        name("topic"),
        name("to"),
        number("dead-letters"),
        number("replayed-before"),
        number("replayed"),
        number("failed"),
        number("held-back"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.topic.clone(),
            self.to.clone(),
            self.to_replay.to_string(),
            self.replayed_before.to_string(),
            self.replayed.to_string(),
            self.failed.to_string(),
            self.held_back.to_string(),
        ]]
    }
}

/// The records of a file, by topic. The file is read completely first: an invalid line means that
/// nothing is published.
async fn read_records(path: PathBuf) -> anyhow::Result<BTreeMap<String, Vec<LogRecord>>> {
    let mut input = input_lines::read(input_lines::open(Some(path))?);
    let mut records: BTreeMap<String, Vec<LogRecord>> = BTreeMap::new();
    while let Some(line) = input.recv().await {
        let Line { number, content } = line?;
        let record = content.and_then(|text| record_json::read(&text));
        let record = record.map_err(|reason| {
            anyhow::anyhow!(
                "line {number}: {reason}; nothing was published; correct the line and run it again"
            )
        })?;
        records
            .entry(record.topic.to_string())
            .or_default()
            .push(record);
    }
    Ok(records)
}

/// Prints the plan, or replays with `--execute` and prints the outcome of each route.
pub(super) async fn run(
    args: ReplayArgs,
    connection: &ConnectionArgs,
    cluster: Cluster,
    admin: &Admin,
    stop: Stop,
) -> anyhow::Result<Ending> {
    // Before anything is read, so that a missing operator name is reported immediately.
    let by = operator::name(args.by.as_deref(), connection);
    let source = match args.from_file {
        Some(file) => Source::records(read_records(file).await?),
        None => Source::topics(args.topics.resolve(admin).await?),
    };
    let settings = ReplaySettings::default()
        .with_filter(args.filter.of(&args.topics))
        .with_target(args.to)
        .with_again(args.again)
        .with_execute(args.execute);
    let planned = Replay::plan(&cluster, admin, source, settings, stop.token(), &Stderr);
    let Some(mut replay) = planned.await? else {
        return Ok(stop.ending());
    };
    let limits = Limits::default()
        .with_rate(args.rate)
        .with_records(args.limit.unwrap_or(u64::MAX));
    let to_replay = replay.to_replay().min(limits.records);
    if args.execute {
        replay.check()?;
        let progress = Progress::start(to_replay, "dead letters replayed");
        let outcome = replay
            .execute(&by?, limits, stop.token(), &progress)
            .await?;
        drop(progress);
        let done = summary(&outcome);
        say!("{done}");
        Listing::print(args.output, replay.routes(true)).after_done(|| done)?;
        return ending(outcome, &stop);
    }
    Listing::print(args.output, replay.routes(false))?;
    replay.check()?;
    say!(
        "{to_replay} of {} dead letters would be replayed; nothing was changed; replay them with \
         --execute",
        replay.admitted()
    );
    Ok(Ending::Done)
}

/// The outcome, in one line.
fn summary(outcome: &ReplayOutcome) -> String {
    let stopped = if outcome.is_stopped { ", stopped" } else { "" };
    format!(
        "replayed {}, failed {}, held back {}{stopped}",
        outcome.replayed, outcome.failed, outcome.held_back
    )
}

/// The exit code of a replay. A signal counts before failures, because the rest was not tried.
fn ending(outcome: ReplayOutcome, stop: &Stop) -> anyhow::Result<Ending> {
    if let Some(error) = outcome.error {
        return Err(error.into());
    }
    Ok(match outcome.is_stopped {
        true => stop.ending(),
        false if outcome.failed + outcome.held_back > 0 => Ending::SomeFailed,
        false => Ending::Done,
    })
}

//! `evenkeel dlq replay`: publishes dead letters again, each once.

use super::select::{FilterArgs, TopicArgs};
use crate::arguments::connection::ConnectionArgs;
use crate::arguments::operator;
use crate::lines::{self, Line};
use crate::output::observer::Stderr;
use crate::output::progress::Progress;
use crate::output::stderr::say;
use crate::output::{AfterDone, Column, Listing, OutputArgs, Row, name, number};
use crate::record_json;
use clap::Args;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::is_topic_name;
use evenkeel::kafka::reader::LogRecord;
use evenkeel_ops::Cluster;
use evenkeel_ops::dead_letters::replay::{
    Limits, Replay, ReplayOutcome, ReplaySettings, Route, Source, Target,
};
use evenkeel_program::exit::{Ending, Usage};
use evenkeel_program::stop::Stop;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Publish letters again, each once; shows what it would do until --execute is given.
///
/// A record goes back with its key, value and headers, the event's id among them, in the order of
/// its key. What says why it failed is taken off, and who replayed it and how often is added. A
/// topic replays.TOPIC remembers what was replayed: a run that was stopped or killed is resumed by
/// calling it again. It ends where the letters ended when it began. A letter that cannot be
/// published is reported, and the later letters of its key wait for the next run. A letter that was
/// too large for its topic refers to the record that failed, which is replayed if its topic still
/// has it, and reported if not. Without --to a record goes to the retry topic of the group that
/// gave it up, or to its source where the group has none: the dry run says which.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    topics: TopicArgs,

    /// Replay the letters of this file instead, lines that export wrote and that may have been
    /// edited; - is standard input. They are marked as edited.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["topics", "group"])]
    from_file: Option<PathBuf>,

    /// Where to: retry is the retry topic of the group that gave a record up, which no other group
    /// reads; source is the topic that it failed on, whose groups all read it.
    #[arg(
        long,
        value_name = "retry|source|TOPIC",
        default_value = "retry-or-source",
        value_parser = target
    )]
    to: Target,

    /// Do it, instead of showing it.
    #[arg(long)]
    pub(super) execute: bool,

    /// Records a second at most.
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// Stop after this many letters.
    #[arg(short = 'n', long, value_name = "LETTERS")]
    limit: Option<u64>,

    /// Replay also what was replayed before; if it is stopped, it begins anew the next time.
    #[arg(long)]
    again: bool,

    /// Who replays, as records and marks say it; the user's name when left out.
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
            let text = "name dead-letter topics, --group or --from-file; see what there is with: evenkeel dlq list";
            return Err(Usage(text.to_owned()));
        }
        Ok(())
    }
}

impl Row for Route {
    const COLUMNS: &'static [Column] = &[
        name("topic"),
        name("to"),
        number("letters"),
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

/// Parses a target.
fn target(text: &str) -> Result<Target, String> {
    match text {
        "retry-or-source" => Ok(Target::RetryOrSource),
        "retry" => Ok(Target::Retry),
        "source" => Ok(Target::Source),
        topic if is_topic_name(topic) => Ok(Target::Topic(topic.to_owned())),
        other => Err(format!("{other:?} is no topic's name")),
    }
}

/// The records of a file, by topic. The file is read completely first: an invalid line means that
/// nothing is published.
async fn records_of(path: PathBuf) -> anyhow::Result<BTreeMap<String, Vec<LogRecord>>> {
    let mut input = lines::read(lines::open(Some(path))?);
    let mut records: BTreeMap<String, Vec<LogRecord>> = BTreeMap::new();
    while let Some(line) = input.recv().await {
        let Line { number, content } = line?;
        let record = content.and_then(|text| record_json::read(&text));
        let record = record.map_err(|reason| {
            anyhow::anyhow!(
                "line {number}: {reason}; nothing was published, correct it and try again"
            )
        })?;
        records
            .entry(record.topic.to_string())
            .or_default()
            .push(record);
    }
    Ok(records)
}

/// Prints the plan, and replays with `--execute`.
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
        Some(file) => Source::records(records_of(file).await?),
        None => Source::topics(args.topics.resolve(admin).await?),
    };
    let settings = ReplaySettings {
        filter: args.filter.of(&args.topics),
        target: args.to,
        again: args.again,
        execute: args.execute,
    };
    let planned = Replay::plan(&cluster, admin, source, settings, stop.token(), &Stderr);
    let Some(mut replay) = planned.await? else {
        return Ok(stop.ending());
    };
    let limits = Limits {
        rate: args.rate,
        records: args.limit.unwrap_or(u64::MAX),
    };
    let to_replay = replay.to_replay().min(limits.records);
    if args.execute {
        replay.check()?;
        let progress = Progress::start(to_replay, "letters replayed");
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
        "{to_replay} of {} letters would be replayed; nothing was changed, --execute does it",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_retry_source_or_a_topic_name() {
        let check = |text: &str, expected| assert_eq!(target(text).ok(), expected, "{text}");
        check("source", Some(Target::Source));
        check("retry", Some(Target::Retry));
        check("retry-or-source", Some(Target::RetryOrSource));
        check("orders", Some(Target::Topic("orders".to_owned())));
        check("a b", None);
        check("", None);
    }
}

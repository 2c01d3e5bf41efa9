//! `evenkeel dlq list`: dead letters by cause, with number and time range.
//!
//! Messages that differ only in numbers and ids are one cause; `evenkeel_ops::dead_letters::causes`
//! replaces them. The column EXAMPLE has the position of one dead letter, to be passed to `dlq
//! show`.

use super::select::{FilterArgs, TopicArgs};
use crate::arguments::check_flag::CheckArgs;
use crate::output::stderr::say;
use crate::output::{Column, Listing, OutputArgs, Row, id, name, number, or_dash, seconds, text};
use clap::Args;
use evenkeel::kafka::admin::Admin;
use evenkeel_ops::Cluster;
use evenkeel_ops::dead_letters::causes::{CauseGroup, causes};
use evenkeel_program::exit::Ending;
use evenkeel_program::stop::Stop;

/// List dead letters by cause: topic, class, stage and message, with count and times.
///
/// Numbers and ids in messages are replaced, so that equal failures form one row. Without topics or
/// a group, reads every topic whose name begins with dlq. Changes nothing.
///
/// Exit codes: 0 listed; 3 with --check, if a listed dead letter was not replayed.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    topics: TopicArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    check: CheckArgs,

    #[command(flatten)]
    filter: FilterArgs,
}

impl Row for CauseGroup {
    const COLUMNS: &'static [Column] = &[
        name("topic"),
        name("class"),
        name("stage"),
        number("count"),
        number("replayed"),
        name("first-failure"),
        name("last-failure"),
        id("example"),
        text("message"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.cause.topic.clone(),
            or_dash(self.cause.class.as_deref()),
            or_dash(self.cause.stage.as_deref()),
            self.count.to_string(),
            self.replayed.to_string(),
            or_dash(self.first.map(seconds)),
            or_dash(self.last.map(seconds)),
            self.example.clone(),
            self.cause.message.clone(),
        ]]
    }
}

/// Reads the dead letters, and prints a row per cause. Reading stops at a signal; nothing is
/// printed then.
pub(super) async fn run(
    args: ListArgs,
    cluster: Cluster,
    admin: &Admin,
    stop: Stop,
) -> anyhow::Result<Ending> {
    let topics = args.topics.resolve(admin).await?;
    let filter = args.filter.of(&args.topics);
    let causes = causes(&cluster, admin, topics, filter, stop.token()).await?;
    let Some(causes) = causes else {
        return Ok(stop.ending());
    };
    let waiting = causes.not_replayed();
    Listing::print(args.output, causes.groups)?;
    for (topic, records) in causes.others {
        say!(
            "{topic}: {records} records carry no failure headers; they are not dead letters and \
             not listed"
        );
    }
    let wrong = match waiting {
        0 => Vec::new(),
        count => vec![format!("{count} dead letters were not replayed")],
    };
    Ok(args.check.ending_for(&wrong))
}

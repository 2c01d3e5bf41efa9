//! `evenkeel groups topics`: creates and repairs the group's own topics, as its service does.
//!
//! The settings and the comparison are in `evenkeel::consumer::GroupTopics`, which a consumer uses
//! at its start. So a topic that this command created is one that the service accepts. For clusters
//! on which services may not create topics.

use crate::arguments::connection::ConnectionArgs;
use crate::arguments::group_args::GroupArg;
use crate::output::observer::Stderr;
use crate::output::stderr::say;
use crate::output::{AfterDone, Column, Listing, OutputArgs, Row, name, number, text};
use clap::Args;
use evenkeel::consumer::{GroupTopicKind, GroupTopicState, GroupTopics, TopicFault};
use evenkeel::recovery::DeadLetterTopic;
use evenkeel_ops::groups::own_topics::{irreparable_defect, sources};
use evenkeel_program::duration::parse_duration_or_seconds;
use evenkeel_program::exit::Ending;
use serde::Serialize;
use std::time::Duration;

/// Check a group's retry, dead-letter and control topics, and repair them with --execute.
///
/// Creates and changes topics exactly as the group's service does: with the partitions and replicas
/// of the source topics, and with settings under which Kafka deletes nothing. Adds missing
/// partitions and changes settings that differ; leaves everything else as it is. Safe to repeat.
///
/// Exit codes: 0 nothing is wrong, or everything was repaired; 3 something is still wrong.
#[derive(Debug, Args)]
pub(super) struct TopicsArgs {
    #[command(flatten)]
    group: GroupArg,

    /// A source topic of the group; may be repeated [default: the topics that it has committed to
    /// or is assigned].
    #[arg(short, long, value_name = "TOPIC")]
    topic: Vec<String>,

    /// The one dead-letter topic of the group [default: dlq.GROUP.TOPIC for each source].
    #[arg(long, value_name = "NAME")]
    dead_letter_topic: Option<String>,

    /// Accept a dead-letter topic that keeps dead letters for at least this time, such as 30d; 0s
    /// accepts any retention [default: only unlimited retention].
    #[arg(long, value_name = "TIME", value_parser = parse_retention)]
    dead_letters_kept_min: Option<Duration>,

    /// Create and repair the topics. Without this flag, nothing is changed.
    #[arg(long)]
    execute: bool,

    #[command(flatten)]
    output: OutputArgs,
}

/// Parses a retention. Unlike other durations it may be zero, which accepts any retention.
fn parse_retention(text: &str) -> Result<Duration, String> {
    let is_zero = text.parse().is_ok_and(|span: jiff::Span| span.is_zero());
    match is_zero || text == "0" {
        true => Ok(Duration::ZERO),
        false => parse_duration_or_seconds(text),
    }
}

/// One topic and its required changes.
#[derive(Serialize)]
struct TopicRow {
    /// Name of the topic.
    topic: String,
    /// Retry, dead-letter or control topic.
    kind: GroupTopicKind,
    /// Whether the topic exists and may be seen.
    state: GroupTopicState,
    /// Its number of partitions, 0 if it does not exist.
    partitions: usize,
    /// The number of partitions that it should have.
    partitions_wanted: usize,
    /// Settings by which Kafka would delete records, or reject them.
    faults: Vec<TopicFault>,
    /// Whether the changes were made. False in a dry run.
    done: bool,
    /// What is to be done, and what no setting repairs, in words. Empty if nothing is wrong.
    detail: String,
}

impl Row for TopicRow {
    const COLUMNS: &'static [Column] = &[
        name("topic"),
        name("kind"),
        number("partitions"),
        name("done"),
        text("detail"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.topic.clone(),
            self.kind.as_str().to_owned(),
            self.partitions.to_string(),
            match (self.done, self.detail.is_empty()) {
                (true, _) => "yes",
                (false, true) => "-",
                (false, false) => "no",
            }
            .to_owned(),
            self.detail.clone(),
        ]]
    }
}

/// Prints the plan, and makes the changes with `--execute`. Faults that no setting repairs, such as
/// a topic of another purpose, are listed and change the exit code in both cases.
pub(super) async fn run(connection: &ConnectionArgs, args: TopicsArgs) -> anyhow::Result<Ending> {
    let admin = match args.execute {
        true => connection.admin_to_change().await?,
        false => connection.admin().await?,
    };
    let sources = match args.topic.is_empty() {
        true => sources(&admin, args.group.name(), &Stderr).await?,
        false => args.topic.clone(),
    };
    let mut own = GroupTopics::new(args.group.name(), sources);
    own.dead_letters_kept_min = args.dead_letters_kept_min;
    if let Some(name) = &args.dead_letter_topic {
        own.dead_letter_topic = DeadLetterTopic::One(name.clone());
    }
    let topics = own.describe(&admin).await?;
    let mut rows = Vec::new();
    let mut is_sound = true;
    for topic in topics {
        let to_do = topic.pending_changes();
        let done = args.execute && to_do.is_some();
        if done {
            topic.repair(&admin).await?;
        }
        let remains = irreparable_defect(&topic);
        is_sound &= (done || to_do.is_none()) && remains.is_none();
        rows.push(TopicRow {
            detail: [to_do, remains]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("; "),
            topic: topic.name,
            kind: topic.kind,
            state: topic.state,
            partitions: topic.partitions,
            partitions_wanted: topic.partitions_wanted,
            faults: topic.faults,
            done,
        });
    }
    let has_to_do = rows.iter().any(|row| !row.detail.is_empty() && !row.done);
    let done = match args.execute {
        true => "all possible repairs were made",
        false => "nothing was changed",
    };
    Listing::print(args.output, rows).after_done(|| done.to_owned())?;
    if has_to_do && !args.execute && args.output.is_table() {
        say!("nothing was changed; repair the topics with --execute");
    }
    Ok(match is_sound {
        true => Ending::Done,
        false => Ending::FoundBad,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_may_be_zero() {
        let check = |text: &str, expected: Option<u64>| {
            let read = parse_retention(text).ok();
            assert_eq!(read, expected.map(Duration::from_secs), "{text}");
        };
        check("0s", Some(0));
        check("0", Some(0));
        check("30", Some(30));
        check("1d", Some(86_400));
        check("-1s", None);
        check("soon", None);
    }
}

//! `evenkeel groups topics`: the topics that a group has for itself, made and mended as its service would.

use super::{lag_of, unknown};
use crate::connection::ConnectionArgs;
use crate::exit::Ending;
use crate::output::{Listing, OutputArgs, OutputFormat, Row};
use clap::Args;
use evenkeel::consumer::{OwnTopic, OwnTopicKind, OwnTopicState, OwnTopics, TopicFault};
use evenkeel::control::control_topic;
use evenkeel::kafka::admin::Admin;
use evenkeel::recovery::DeadLetterTopic;
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// Show what is wrong with a group's retry, dead-letter and control topics; make and mend them with --execute.
///
/// They are made exactly as the group's service makes them: with the partitions and replicas of their sources, and with
/// settings by which Kafka deletes nothing. Partitions are added and settings changed where they differ; nothing else of a
/// topic is touched. The exit code is 3 while something is wrong.
#[derive(Debug, Args)]
pub(super) struct TopicsArgs {
    /// The group.
    group: String,

    /// A topic that the group reads; those that it has committed to or is assigned when left out.
    #[arg(short, long, value_name = "TOPIC")]
    topic: Vec<String>,

    /// The one dead-letter topic of the group, where it does not have one for each source.
    #[arg(long, value_name = "NAME")]
    dead_letter_topic: Option<String>,

    /// Accept a dead-letter topic that keeps letters for at least so long; 0s accepts any.
    #[arg(long, value_name = "TIME", value_parser = crate::connection::parse_duration)]
    dead_letters_kept_min: Option<Duration>,

    /// Do it, instead of showing it.
    #[arg(long)]
    execute: bool,

    #[command(flatten)]
    output: OutputArgs,
}

/// One topic, and what it needs.
#[derive(Serialize)]
struct Shown {
    topic: String,
    kind: OwnTopicKind,
    state: OwnTopicState,
    partitions: usize,
    partitions_wanted: usize,
    faults: Vec<TopicFault>,
    /// Whether it was done; false in a dry run.
    done: bool,
    detail: String,
}

impl Row for Shown {
    const COLUMNS: &'static [&'static str] = &["topic", "kind", "partitions", "done", "detail"];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.topic.clone(),
            self.kind.as_str().to_owned(),
            self.partitions.to_string(),
            if self.done { "yes" } else { "no" }.to_owned(),
            self.detail.clone(),
        ]]
    }
}

/// Looks, and acts when asked to.
pub(super) async fn run(connection: &ConnectionArgs, args: TopicsArgs) -> anyhow::Result<Ending> {
    let admin = connection.admin().await?;
    let sources = match args.topic.is_empty() {
        true => sources(&admin, &args).await?,
        false => args.topic.clone(),
    };
    let mut own = OwnTopics::new(&args.group, sources);
    own.dead_letters_kept_min = args.dead_letters_kept_min;
    if let Some(name) = &args.dead_letter_topic {
        own.dead_letter_topic = DeadLetterTopic::One(name.clone());
    }
    let topics = own.look(&admin).await?;
    let mut rows = Vec::new();
    let mut is_sound = true;
    for topic in topics {
        let to_do = topic.to_do();
        let done = args.execute && to_do.is_some();
        if done {
            topic.make(&admin).await?;
        }
        let remains = unmendable(&topic);
        is_sound &= (done || to_do.is_none()) && remains.is_none();
        rows.push(Shown {
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
    Listing::print(args.output.output, rows)?;
    if has_to_do && !args.execute && args.output.output == OutputFormat::Table {
        anstream::eprintln!("evenkeel: nothing was done; act with --execute");
    }
    Ok(match is_sound {
        true => Ending::Done,
        false => Ending::FoundBad,
    })
}

/// What is wrong with a topic that no setting or partition mends.
fn unmendable(topic: &OwnTopic) -> Option<String> {
    if topic.state == OwnTopicState::Hidden {
        return Some("this client may not see it; it takes an ACL for DESCRIBE".to_owned());
    }
    if topic.kind == OwnTopicKind::Control && topic.partitions > 1 {
        let partitions = topic.partitions;
        return Some(format!(
            "it has {partitions} partitions and must have one: delete it, and make it anew"
        ));
    }
    if topic.state == OwnTopicState::Present && !topic.shows_settings {
        return Some("its settings are not shown; it takes an ACL for DESCRIBE_CONFIGS".to_owned());
    }
    let faults = topic.faults.iter().filter(|fault| !fault.can_be_mended());
    let faults: Vec<String> = faults.map(ToString::to_string).collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}

/// The topics that the group reads.
async fn sources(admin: &Admin, args: &TopicsArgs) -> anyhow::Result<Vec<String>> {
    let group = &args.group;
    let Some(description) = admin.describe_group(group).await? else {
        return Err(unknown(group));
    };
    let read = lag_of(admin, &description, &[]).await?;
    let read: BTreeSet<String> = read.into_iter().map(|at| at.topic).collect();
    let prefix = format!("retry.{group}.");
    let is_own = |topic: &String| {
        let source = topic.strip_prefix(&prefix);
        source.is_some_and(|source| read.contains(source)) || *topic == control_topic(group)
    };
    let sources: Vec<String> = read
        .iter()
        .filter(|topic| !is_own(topic))
        .cloned()
        .collect();
    if sources.is_empty() {
        anyhow::bail!(
            "{group} has not committed to any topic yet; name those that it reads with --topic"
        );
    }
    Ok(sources)
}

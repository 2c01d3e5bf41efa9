//! `evenkeel topics`: lists, describes and creates topics, and applies declarations to a cluster.
//!
//! `create` makes one topic from flags; [`apply`] creates and changes topics from files. Neither
//! deletes a topic or removes partitions. A shorter retention lets Kafka delete records, as it does
//! everywhere.

mod apply;

use crate::arguments::connection::ConnectionArgs;
use crate::output::observer::Stderr;
use crate::output::stderr::say;
use crate::output::{AfterDone, Column, Listing, OutputArgs, Row, name, number, print_line, text};
use clap::{Args, Subcommand};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::{NewTopic, PartitionDescription, TopicDescription};
use evenkeel_ops::visibility;
use evenkeel_program::exit::{Ending, Usage};
use serde::Serialize;
use std::collections::BTreeMap;

/// List, describe and create topics, and apply topic declarations.
#[derive(Debug, Args)]
pub(crate) struct TopicsArgs {
    #[command(subcommand)]
    command: TopicsCommand,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// The commands of `topics`.
#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// List the topics with their number of partitions. Changes nothing.
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Show partitions, offsets and settings of topics. Changes nothing.
    Describe(DescribeArgs),
    /// Create a topic. Fails if it exists, unless --if-not-exists is given; never changes an
    /// existing topic.
    Create(CreateArgs),
    Apply(apply::ApplyArgs),
}

/// The topics to describe.
#[derive(Debug, Args)]
struct DescribeArgs {
    /// Topics to describe.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,

    #[command(flatten)]
    output: OutputArgs,
}

/// The topic to create.
#[derive(Debug, Args)]
struct CreateArgs {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    name: String,

    /// Number of partitions.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,

    /// Replication factor [default: the broker's].
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
    replication: Option<i32>,

    /// A topic setting, for example retention.ms=86400000; may be repeated.
    #[arg(
        short = 'c',
        long = "setting",
        visible_alias = "topic-config",
        value_name = "NAME=VALUE",
        value_parser = parse_setting
    )]
    settings: Vec<(String, String)>,

    /// Succeed if the topic already exists.
    #[arg(long)]
    if_not_exists: bool,

    #[command(flatten)]
    output: OutputArgs,
}

/// `NAME=VALUE`. The value may be empty.
fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write a setting as NAME=VALUE".to_owned()),
    }
}

/// Runs one of the topic commands.
pub(crate) async fn run(args: TopicsArgs) -> anyhow::Result<Ending> {
    let connection = args.connection;
    match args.command {
        TopicsCommand::List(output) => list(&connection, output).await,
        TopicsCommand::Describe(args) => describe(&connection, args).await,
        TopicsCommand::Create(args) => create(&connection, args).await,
        TopicsCommand::Apply(args) => apply::run(&connection, args).await,
    }
}

/// A topic as it is listed.
#[derive(Serialize)]
struct TopicRow {
    /// Name of the topic.
    topic: String,
    /// Its number of partitions.
    partitions: usize,
}

impl Row for TopicRow {
    const COLUMNS: &'static [Column] = &[name("topic"), number("partitions")];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![self.topic.clone(), self.partitions.to_string()]]
    }
}

/// Lists the topics. A notice says so if some may be hidden from the user.
async fn list(connection: &ConnectionArgs, output: OutputArgs) -> anyhow::Result<Ending> {
    let admin = connection.admin().await?;
    let names = admin.topics().await?;
    visibility::check_topics(&admin, "", names.len(), &Stderr).await?;
    let counts = admin.partition_counts(&names).await?;
    let rows = counts
        .into_iter()
        .map(|(topic, partitions)| TopicRow { topic, partitions });
    Listing::print(output, rows)?;
    Ok(Ending::Done)
}

/// A topic, with the same JSON key as in every command.
#[derive(Serialize)]
struct Described {
    topic: String,
    /// Its partitions, with replicas and offsets.
    partitions: Vec<PartitionDescription>,
    /// Its settings by name. Empty if they may not be read.
    config: BTreeMap<String, String>,
}

impl From<TopicDescription> for Described {
    fn from(described: TopicDescription) -> Self {
        Self {
            topic: described.name,
            partitions: described.partitions,
            config: described.config,
        }
    }
}

impl Row for Described {
    const COLUMNS: &'static [Column] = &[
        name("topic"),
        number("partition"),
        number("leader"),
        name("replicas"),
        name("in-sync"),
        number("first"),
        number("end"),
        number("records"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let brokers = |ids: &[i32]| {
            let ids: Vec<String> = ids.iter().map(i32::to_string).collect();
            ids.join(",")
        };
        let row = |partition: &PartitionDescription| {
            vec![
                self.topic.clone(),
                partition.partition.to_string(),
                partition.leader.to_string(),
                brokers(&partition.replicas),
                brokers(&partition.in_sync),
                partition.low.to_string(),
                partition.high.to_string(),
                (partition.high - partition.low).to_string(),
            ]
        };
        self.partitions.iter().map(row).collect()
    }
}

/// A setting of a described topic. A table lists it below the partitions; JSON has it in the
/// topic's object.
#[derive(Serialize)]
struct Setting {
    topic: String,
    name: String,
    value: String,
}

impl Row for Setting {
    const COLUMNS: &'static [Column] = &[name("topic"), name("setting"), text("value")];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.topic.clone(),
            self.name.clone(),
            self.value.clone(),
        ]]
    }
}

/// Describes the topics. A topic that does not exist is an error, after the others were printed.
async fn describe(connection: &ConnectionArgs, args: DescribeArgs) -> anyhow::Result<Ending> {
    let admin = connection.admin().await?;
    let (mut described, mut failure) = (Vec::new(), None);
    for topic in &args.topics {
        match admin.describe_topic(topic).await {
            Ok(topic) => described.push(topic),
            // The others are printed first.
            Err(error @ KafkaError::UnknownTopic { .. }) => failure = failure.or(Some(error)),
            Err(error) => return Err(error.into()),
        }
    }
    if described.is_empty()
        && let Some(error) = failure
    {
        return Err(error.into());
    }
    let settings: Vec<Setting> = described
        .iter()
        .flat_map(|topic| {
            topic.config.iter().map(|(name, value)| Setting {
                topic: topic.name.clone(),
                name: name.clone(),
                value: value.clone(),
            })
        })
        .collect();
    let refused: Vec<String> = described
        .iter()
        .filter_map(|topic| topic.config_refused.clone())
        .collect();
    let output = args.output;
    Listing::print(output, described.into_iter().map(Described::from))?;
    if output.is_table() && !settings.is_empty() {
        print_line("")?;
        Listing::print(output, settings)?;
    }
    for refused in &refused {
        say!("{refused}");
    }
    match failure {
        Some(error) => Err(error.into()),
        None if !refused.is_empty() => Ok(Ending::SomeFailed),
        None => Ok(Ending::Done),
    }
}

/// The result for a topic.
#[derive(Serialize)]
struct Created {
    /// Name of the topic.
    topic: String,
    /// Whether this command created it. False if it existed.
    created: bool,
}

impl Row for Created {
    const COLUMNS: &'static [Column] = &[name("topic"), name("result")];

    fn cells(&self) -> Vec<Vec<String>> {
        let result = if self.created { "created" } else { "exists" };
        vec![vec![self.topic.clone(), result.to_owned()]]
    }
}

/// Creates the topic. One that exists is an error unless `--if-not-exists` is given, and is never
/// compared with the flags.
async fn create(connection: &ConnectionArgs, args: CreateArgs) -> anyhow::Result<Ending> {
    let mut config = BTreeMap::new();
    for (name, value) in args.settings {
        if config.insert(name.clone(), value).is_some() {
            return Err(Usage(format!("the setting {name} is given twice")).into());
        }
    }
    let topic = NewTopic::new(args.name)
        .with_partitions(args.partitions)
        .with_replication(args.replication.unwrap_or(-1))
        .with_config(config);
    let admin = connection.admin_to_change().await?;
    let (created, existing) = admin.create_topics(std::slice::from_ref(&topic)).await?;
    if !existing.is_empty() && !args.if_not_exists {
        anyhow::bail!(
            "the topic {} exists already; see: evenkeel topics describe {}",
            topic.name,
            topic.name
        );
    }
    let row = Created {
        topic: topic.name,
        created: !created.is_empty(),
    };
    let done = format!("the topic {} exists", row.topic);
    Listing::print(args.output, [row]).after_done(|| done)?;
    Ok(Ending::Done)
}

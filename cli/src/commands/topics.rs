//! `evenkeel topics`: list, describe and create topics, and bring a cluster to what the declarations say.

mod apply;

use crate::connection::ConnectionArgs;
use crate::exit::{Ending, Usage};
use crate::output::{Listing, OutputArgs, OutputFormat, Row};
use clap::{Args, Subcommand};
use evenkeel::kafka::admin::{NewTopic, TopicDescription};
use serde::Serialize;
use std::collections::BTreeMap;

/// List, describe, create and declare topics.
#[derive(Debug, Args)]
pub(crate) struct TopicsArgs {
    #[command(subcommand)]
    command: TopicsCommand,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// The topics and their partition counts.
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Partitions, offsets and settings of topics.
    Describe(DescribeArgs),
    /// Create a topic.
    Create(CreateArgs),
    Apply(apply::ApplyArgs),
}

#[derive(Debug, Args)]
struct DescribeArgs {
    /// Topics to describe.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    name: String,

    /// Number of partitions.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,

    /// Replication factor; the broker's default when left out.
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
    replication: Option<i32>,

    /// A topic setting, for example retention.ms=86400000; may be repeated.
    #[arg(short = 'c', long = "setting", visible_alias = "topic-config", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,

    /// Succeed when the topic exists already.
    #[arg(long)]
    if_not_exists: bool,

    #[command(flatten)]
    output: OutputArgs,
}

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
        TopicsCommand::List(output) => list(&connection, output.output).await,
        TopicsCommand::Describe(args) => describe(&connection, args).await,
        TopicsCommand::Create(args) => create(&connection, args).await,
        TopicsCommand::Apply(args) => apply::run(&connection, args).await,
    }
}

#[derive(Serialize)]
struct Listed {
    topic: String,
    partitions: usize,
}

impl Row for Listed {
    const COLUMNS: &'static [&'static str] = &["topic", "partitions"];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![self.topic.clone(), self.partitions.to_string()]]
    }
}

async fn list(connection: &ConnectionArgs, output: OutputFormat) -> anyhow::Result<Ending> {
    let admin = connection.admin().await?;
    let names = admin.topics().await?;
    let counts = admin.partition_counts(&names).await?;
    let rows = counts
        .into_iter()
        .map(|(topic, partitions)| Listed { topic, partitions });
    Listing::print(output, rows)?;
    Ok(Ending::Done)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Described(TopicDescription);

impl Row for Described {
    const COLUMNS: &'static [&'static str] = &[
        "topic",
        "partition",
        "leader",
        "replicas",
        "in sync",
        "first offset",
        "end offset",
        "records",
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let brokers = |ids: &[i32]| {
            let ids: Vec<String> = ids.iter().map(i32::to_string).collect();
            ids.join(",")
        };
        let row = |partition: &evenkeel::kafka::admin::PartitionDescription| {
            vec![
                self.0.name.clone(),
                partition.partition.to_string(),
                partition.leader.to_string(),
                brokers(&partition.replicas),
                brokers(&partition.in_sync),
                partition.low.to_string(),
                partition.high.to_string(),
                (partition.high - partition.low).to_string(),
            ]
        };
        self.0.partitions.iter().map(row).collect()
    }
}

/// A setting of a described topic, listed below the partitions in a table only: JSON has it in the topic's object.
#[derive(Serialize)]
struct Setting {
    topic: String,
    name: String,
    value: String,
}

impl Row for Setting {
    const COLUMNS: &'static [&'static str] = &["topic", "setting", "value"];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.topic.clone(),
            self.name.clone(),
            self.value.clone(),
        ]]
    }
}

async fn describe(connection: &ConnectionArgs, args: DescribeArgs) -> anyhow::Result<Ending> {
    let admin = connection.admin().await?;
    let mut described = Vec::new();
    for topic in &args.topics {
        described.push(admin.describe_topic(topic).await?);
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
    let output = args.output.output;
    Listing::print(output, described.into_iter().map(Described))?;
    if output == OutputFormat::Table && !settings.is_empty() {
        anstream::println!();
        Listing::print(output, settings)?;
    }
    Ok(Ending::Done)
}

/// What became of a topic.
#[derive(Serialize)]
struct Created {
    topic: String,
    created: bool,
}

impl Row for Created {
    const COLUMNS: &'static [&'static str] = &["topic", "result"];

    fn cells(&self) -> Vec<Vec<String>> {
        let result = if self.created { "created" } else { "exists" };
        vec![vec![self.topic.clone(), result.to_owned()]]
    }
}

async fn create(connection: &ConnectionArgs, args: CreateArgs) -> anyhow::Result<Ending> {
    let mut config = BTreeMap::new();
    for (name, value) in args.settings {
        if config.insert(name.clone(), value).is_some() {
            return Err(Usage(format!("the setting {name} is given twice")).into());
        }
    }
    let topic = NewTopic {
        name: args.name,
        partitions: args.partitions,
        replication: args.replication.unwrap_or(-1),
        config,
    };
    let admin = connection.admin().await?;
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
    Listing::print(args.output.output, [row])?;
    Ok(Ending::Done)
}

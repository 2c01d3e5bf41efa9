//! `evenkeel groups`: who reads what, and how far behind.

mod lag;

use crate::connection::ConnectionArgs;
use crate::exit::Ending;
use crate::output::{Listing, OutputArgs, OutputFormat, Row};
use clap::{Args, Subcommand};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::{Admin, GroupDescription, MemberDescription, PartitionLag};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// List and describe consumer groups, and show their lag.
#[derive(Debug, Args)]
pub(crate) struct GroupsArgs {
    #[command(subcommand)]
    command: GroupsCommand,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
enum GroupsCommand {
    /// The groups, their state and their number of members.
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Members, assignments and offsets of groups.
    Describe(DescribeArgs),
    Lag(lag::LagArgs),
}

#[derive(Debug, Args)]
struct DescribeArgs {
    /// Groups to describe.
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,

    #[command(flatten)]
    output: OutputArgs,
}

/// Runs one of the group commands.
pub(crate) async fn run(args: GroupsArgs) -> anyhow::Result<Ending> {
    let connection = args.connection;
    match args.command {
        GroupsCommand::List(output) => list(&connection, output.output).await,
        GroupsCommand::Describe(args) => describe(&connection, args).await,
        GroupsCommand::Lag(args) => lag::run(&connection, args).await,
    }
}

#[derive(Serialize)]
struct Listed {
    group: String,
    state: String,
    protocol: String,
    members: usize,
}

impl Row for Listed {
    const COLUMNS: &'static [&'static str] = &["group", "state", "protocol", "members"];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.group.clone(),
            self.state.clone(),
            self.protocol.clone(),
            self.members.to_string(),
        ]]
    }
}

async fn list(connection: &ConnectionArgs, output: OutputFormat) -> anyhow::Result<Ending> {
    let groups = connection.admin().await?.groups().await?;
    let rows = groups.into_iter().map(|group| Listed {
        members: group.members.len(),
        group: group.group,
        state: group.state,
        protocol: group.protocol,
    });
    Listing::print(output, rows)?;
    Ok(Ending::Done)
}

/// A group with its offsets; in a table one row per partition and member, with the columns of Kafka's own tool.
#[derive(Serialize)]
struct Described {
    #[serde(flatten)]
    group: GroupDescription,
    offsets: Vec<PartitionLag>,
}

impl Row for Described {
    const COLUMNS: &'static [&'static str] = &[
        "group",
        "topic",
        "partition",
        "current-offset",
        "log-end-offset",
        "lag",
        "consumer-id",
        "host",
        "client-id",
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let mut owners: BTreeMap<(&str, i32), &MemberDescription> = BTreeMap::new();
        for member in &self.group.members {
            for (topic, partitions) in &member.assignment {
                for partition in partitions {
                    owners.insert((topic, *partition), member);
                }
            }
        }
        let absent = || "-".to_owned();
        let mut rows: Vec<Vec<String>> = Vec::new();
        for at in &self.offsets {
            let owner = owners.remove(&(at.topic.as_str(), at.partition));
            rows.push(vec![
                self.group.group.clone(),
                at.topic.clone(),
                at.partition.to_string(),
                at.committed
                    .map_or_else(absent, |offset| offset.to_string()),
                at.high.to_string(),
                at.lag.to_string(),
                owner.map_or_else(absent, |member| member.member_id.clone()),
                owner.map_or_else(absent, |member| member.host.clone()),
                owner.map_or_else(absent, |member| member.client_id.clone()),
            ]);
        }
        // Members without a partition stand by: they count, too.
        let idle = |member: &&MemberDescription| member.assignment.values().all(Vec::is_empty);
        for member in self.group.members.iter().filter(idle) {
            rows.push(vec![
                self.group.group.clone(),
                absent(),
                absent(),
                absent(),
                absent(),
                absent(),
                member.member_id.clone(),
                member.host.clone(),
                member.client_id.clone(),
            ]);
        }
        rows
    }
}

async fn describe(connection: &ConnectionArgs, args: DescribeArgs) -> anyhow::Result<Ending> {
    let admin = connection.admin().await?;
    let mut rows = Vec::new();
    for name in &args.groups {
        let Some(group) = admin.describe_group(name).await? else {
            return Err(unknown(name));
        };
        let offsets = lag_of(&admin, &group, &[]).await?;
        rows.push(Described { group, offsets });
    }
    Listing::print(args.output.output, rows)?;
    Ok(Ending::Done)
}

/// How far the group is on `topics`, or on every topic that it has committed to or is assigned to.
async fn lag_of(
    admin: &Admin,
    group: &GroupDescription,
    topics: &[String],
) -> Result<Vec<PartitionLag>, KafkaError> {
    let mut lag = admin.group_lag(&group.group, topics).await?;
    let uncommitted: BTreeSet<String> = group
        .members
        .iter()
        .flat_map(|member| member.assignment.keys())
        .filter(|topic| topics.is_empty() && lag.iter().all(|at| at.topic != **topic))
        .cloned()
        .collect();
    if !uncommitted.is_empty() {
        let uncommitted: Vec<String> = uncommitted.into_iter().collect();
        lag.extend(admin.group_lag(&group.group, &uncommitted).await?);
    }
    Ok(lag)
}

fn unknown(group: &str) -> anyhow::Error {
    anyhow::anyhow!("there is no group {group}; see: evenkeel groups list")
}

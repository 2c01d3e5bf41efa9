//! `evenkeel groups`: who reads what and how far behind, and commands to those who do.
//!
//! - [`pause`], [`skip`], [`retry_now`], [`rate`], [`accept_loss`]: a command each · [`order`]: how it is given and answered
//! - [`topics`]: the group's own topics
//! - [`target`]: what it is about · [`log`]: the control topic, read · [`history`]: what was commanded

mod accept_loss;
mod history;
mod lag;
mod log;
pub(super) mod order;
mod pause;
mod rate;
mod retry_now;
mod skip;
mod target;
mod topics;

use crate::connection::ConnectionArgs;
use crate::exit::{Ending, Usage};
use crate::output::{Listing, OutputArgs, OutputFormat, Row};
use clap::{Args, Subcommand};
use evenkeel::control::{Command, ControlState, Scope, Status};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::{Admin, GroupDescription, MemberDescription, PartitionLag};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// List and describe consumer groups, show their lag, and command those that run.
///
/// Commands go to members that are built with evenkeel, through the topic control.GROUP, and are answered by them. Who may
/// write that topic commands the group.
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
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
    Skip(skip::SkipArgs),
    RetryNow(retry_now::RetryNowArgs),
    Rate(rate::RateArgs),
    AcceptLoss(accept_loss::AcceptLossArgs),
    Topics(topics::TopicsArgs),
    History(history::HistoryArgs),
}

impl GroupsCommand {
    /// Refuses what means nothing, before anything is asked of the cluster.
    fn check(&self) -> Result<(), Usage> {
        match self {
            Self::List(_)
            | Self::Describe(_)
            | Self::Lag(_)
            | Self::Topics(_)
            | Self::History(_) => Ok(()),
            Self::AcceptLoss(args) => args.check(),
            Self::Pause(args) => args.check(),
            Self::Resume(args) => args.check(),
            Self::Skip(args) => args.check(),
            Self::RetryNow(args) => args.check(),
            Self::Rate(args) => args.check(),
        }
    }
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
    args.command.check()?;
    let connection = args.connection;
    match args.command {
        GroupsCommand::List(output) => list(&connection, output.output).await,
        GroupsCommand::Describe(args) => describe(&connection, args).await,
        GroupsCommand::Lag(args) => lag::run(&connection, args).await,
        GroupsCommand::Pause(args) => pause::run(&connection, args).await,
        GroupsCommand::Resume(args) => pause::run_resume(&connection, args).await,
        GroupsCommand::Skip(args) => skip::run(&connection, args).await,
        GroupsCommand::RetryNow(args) => retry_now::run(&connection, args).await,
        GroupsCommand::Rate(args) => rate::run(&connection, args).await,
        GroupsCommand::AcceptLoss(args) => accept_loss::run(&connection, args).await,
        GroupsCommand::Topics(args) => topics::run(&connection, args).await,
        GroupsCommand::History(args) => history::run(&connection, args).await,
    }
}

#[derive(Serialize)]
struct Listed {
    group: String,
    state: String,
    protocol: String,
    /// None where they cannot be asked for.
    members: Option<usize>,
}

impl Row for Listed {
    const COLUMNS: &'static [&'static str] = &["group", "state", "protocol", "members"];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.group.clone(),
            self.state.clone(),
            self.protocol.clone(),
            self.members
                .map_or_else(|| "-".to_owned(), |members| members.to_string()),
        ]]
    }
}

async fn list(connection: &ConnectionArgs, output: OutputFormat) -> anyhow::Result<Ending> {
    let groups = connection.admin().await?.groups().await?;
    let rows = groups.into_iter().map(|group| Listed {
        members: group.are_members_known.then_some(group.members.len()),
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
    /// What operators have paused.
    paused: Vec<InForce>,
    /// The rate that they have set.
    rate: Option<InForce>,
    /// What members wait for because it is down.
    down: Vec<Status>,
    #[serde(skip)]
    control: ControlState,
}

/// A command that holds.
#[derive(Serialize)]
struct InForce {
    scope: Scope,
    #[serde(skip_serializing_if = "Option::is_none")]
    records_per_second: Option<u32>,
    by: String,
    why: String,
    at: jiff::Timestamp,
}

impl InForce {
    fn new(command: &Command, records_per_second: Option<u32>) -> Self {
        Self {
            scope: command.action.scope(),
            records_per_second,
            by: command.by.clone(),
            why: command.why.clone(),
            at: command.at,
        }
    }
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
        "paused",
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
                self.control
                    .pause_of(&at.topic, at.partition)
                    .map_or_else(absent, |command| {
                        format!("by {}: {}", command.by, command.why)
                    }),
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
                absent(),
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
        if !group.are_members_known {
            anstream::eprintln!(
                "evenkeel: {name} is no group of consumers, such as a share group: its state and members are not told"
            );
        }
        let offsets = lag_of(&admin, &group, &[]).await?;
        for unreadable in offsets.iter().filter_map(|at| at.unreadable.as_ref()) {
            anstream::eprintln!("evenkeel: {name}: {unreadable}");
        }
        let control = log::state(connection, &admin, name).await?;
        let rate = control.rate();
        if let Some((rate, command)) = rate {
            anstream::eprintln!(
                "evenkeel: {name}: at most {rate} records a second and member, by {}: {}",
                command.by,
                command.why
            );
        }
        let down = down_of(&control, &group);
        for status in &down {
            anstream::eprintln!(
                "evenkeel: {name}: {} is down for {} since {}: {}",
                status.dependency,
                status.member,
                status.at,
                status.reason
            );
        }
        rows.push(Described {
            paused: control
                .paused()
                .map(|(_, command)| InForce::new(command, None))
                .collect(),
            rate: rate.map(|(rate, command)| InForce::new(command, Some(rate.get()))),
            down,
            group,
            offsets,
            control,
        });
    }
    Listing::print(args.output.output, rows)?;
    Ok(Ending::Done)
}

/// What its members wait for. A member that was killed could not take back what it said; where the brokers tell no members, all
/// that was said is shown.
fn down_of(control: &ControlState, group: &GroupDescription) -> Vec<Status> {
    let is_member = |status: &&Status| {
        let mut members = group.members.iter();
        group.members.is_empty() || members.any(|member| member.member_id == status.member)
    };
    control.down().filter(is_member).cloned().collect()
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

//! `evenkeel groups describe`: members, assignments, offsets and pauses of groups.
//!
//! A row is a partition, with its owner if it has one; members without a partition follow. Without
//! `--check`, dependencies that are down and unreadable partitions are printed as information, and
//! do not change the exit code.

use super::pauses;
use crate::arguments::check_flag::CheckArgs;
use crate::arguments::connection::ConnectionArgs;
use crate::arguments::group_args::GroupsArg;
use crate::hints::all_groups_exist;
use crate::output::observer::Stderr;
use crate::output::stderr::say;
use crate::output::{Column, Listing, OutputArgs, Row, id, name, number, or_dash, text};
use clap::Args;
use evenkeel::control::{ControlState, MemberInfo, Status};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::{GroupDescription, MemberDescription, PartitionLag};
use evenkeel_ops::groups::health::{self, Restriction};
use evenkeel_ops::groups::lag::lag_of;
use evenkeel_ops::groups::{control_log, members};
use evenkeel_program::exit::{Ending, Usage};
use serde::Serialize;
use std::collections::BTreeMap;

/// Show members, assignments, offsets and pauses of groups, by partition.
///
/// Dependencies that are down, unreadable partitions and a rate limit are named on standard error.
/// Changes nothing.
///
/// Exit codes: 0 shown; 1 a group does not exist, or a control topic may not be read; 3 with
/// --check, if anything is paused, a dependency is down, a partition cannot be read, or records
/// wait for a group without members.
#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    #[command(flatten)]
    groups: GroupsArg,

    #[command(flatten)]
    check: CheckArgs,

    #[command(flatten)]
    output: OutputArgs,
}

impl DescribeArgs {
    /// Requires a group: a description of all groups would be too long to read.
    pub(super) fn check(&self) -> Result<(), Usage> {
        match self.groups.names().is_empty() {
            true => Err(Usage("name a group; see: evenkeel groups list".to_owned())),
            false => Ok(()),
        }
    }
}

/// A group with its offsets. In a table, one row per partition and member.
#[derive(Serialize)]
struct Described {
    #[serde(flatten)]
    group: GroupDescription,
    /// The partitions with their lag.
    offsets: Vec<PartitionLag>,
    /// The pauses in force.
    paused: Vec<Restriction>,
    /// The rate limit in force.
    rate: Option<Restriction>,
    /// The dependencies that are down.
    down: Vec<Status>,
    /// The processes of the members, as published by the members.
    processes: Vec<MemberInfo>,
    /// The state of the control topic, for the cells of the table.
    #[serde(skip)]
    control: ControlState,
}

impl Row for Described {
    const COLUMNS: &'static [Column] = &[
        name("group"),
        name("topic"),
        number("partition"),
        number("committed"),
        number("end"),
        number("lag"),
        id("member"),
        name("host"),
        name("client-id"),
        text("paused"),
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
        // The process if it is known, in the form that dead letters use.
        let host = |member: &MemberDescription| match self.control.member(&member.member_id) {
            Some(info) => format!("{}/{}", info.host, info.pid),
            None => member.host.clone(),
        };
        let mut rows: Vec<Vec<String>> = Vec::new();
        for at in &self.offsets {
            let owner = owners.remove(&(at.topic.as_str(), at.partition));
            rows.push(vec![
                self.group.group.clone(),
                at.topic.clone(),
                at.partition.to_string(),
                or_dash(at.committed),
                at.high.to_string(),
                at.lag.to_string(),
                owner.map_or_else(absent, |member| member.member_id.clone()),
                owner.map_or_else(absent, &host),
                owner.map_or_else(absent, |member| member.client_id.clone()),
                pauses::partition_cell(
                    self.control
                        .pause_of(&at.topic, at.partition)
                        .map(Restriction::pause)
                        .as_ref(),
                ),
            ]);
        }
        // Members without a partition are standbys and are listed too.
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
                host(member),
                member.client_id.clone(),
                absent(),
            ]);
        }
        rows
    }
}

/// Describes the groups. A group that does not exist is an error, after the others were printed.
pub(super) async fn run(connection: &ConnectionArgs, args: DescribeArgs) -> anyhow::Result<Ending> {
    let admin = connection.admin().await?;
    let cluster = connection.cluster()?;
    let (mut rows, mut wrong, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    let mut refused = false;
    for name in &args.groups.names() {
        let Some(group) = admin.describe_group(name).await? else {
            missing.push(name.clone());
            continue;
        };
        if !group.are_members_known {
            say!(
                "{name} is not a consumer group but, for example, a share group: its state and \
                 members are unknown"
            );
        }
        let offsets = lag_of(&admin, &group, &[], &Stderr).await?;
        let control = match control_log::state(&cluster, &admin, name).await {
            Ok(control) => control,
            Err(error @ KafkaError::Refused { .. }) => {
                say!("{name}: the commands in force are unknown: {error}");
                refused = true;
                ControlState::default()
            }
            Err(error) => return Err(error.into()),
        };
        match args.check.check {
            true => wrong.extend(health::problems(&group, &control, &offsets)),
            false => print_outages(&group, &control, &offsets),
        }
        let rate = control.rate();
        if let Some((rate, command)) = rate {
            say!(
                "{name}: at most {rate} records per second and member, by {}: {}",
                command.by,
                command.why
            );
        }
        rows.push(Described {
            paused: health::pauses(&control),
            rate: rate.map(|(rate, command)| Restriction::rate(rate.get(), command)),
            down: health::outages(&control, &group),
            processes: members::processes(&control, &group),
            group,
            offsets,
            control,
        });
    }
    if !rows.is_empty() {
        Listing::print(args.output, rows)?;
    }
    let checked = args.check.ending_for(&wrong);
    all_groups_exist(&admin, &missing).await?;
    Ok(match refused {
        true => Ending::SomeFailed,
        false => checked,
    })
}

/// Prints what the table does not contain: outages, and unreadable partitions.
fn print_outages(group: &GroupDescription, control: &ControlState, lag: &[PartitionLag]) {
    let down = health::outages(control, group);
    let down = down
        .iter()
        .map(|status| health::outage_in_words(control, status));
    let unreadable = lag.iter().filter_map(|at| at.unreadable.clone());
    for line in down.chain(unreadable) {
        say!("{}: {line}", group.group);
    }
}

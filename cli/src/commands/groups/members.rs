//! `evenkeel groups members`: the process of each member.
//!
//! Brokers know a member by its id, client id and address. Which process it is, it publishes itself
//! in `control.GROUP`, so members of other clients have dashes there.

use crate::arguments::connection::ConnectionArgs;
use crate::arguments::group_args::GroupArg;
use crate::output::{Column, Listing, OutputArgs, Row, id, name, number, seconds, text};
use clap::Args;
use evenkeel::control::MemberInfo;
use evenkeel::kafka::admin::MemberDescription;
use evenkeel_ops::UnknownGroup;
use evenkeel_ops::groups::control_log;
use evenkeel_program::exit::Ending;
use serde::Serialize;

/// List the members of a group with their processes: host, process id, release and admin address.
///
/// Members that are built with evenkeel publish this in the topic control.GROUP. Of other members
/// the brokers report only client id and address. Changes nothing.
#[derive(Debug, Args)]
pub(super) struct MembersArgs {
    #[command(flatten)]
    group: GroupArg,

    #[command(flatten)]
    output: OutputArgs,
}

/// A member with the attributes from the brokers and from itself.
#[derive(Serialize)]
struct MemberRow {
    /// Id of the member, by which the brokers know it.
    member_id: String,
    /// The member's `client.id`.
    client_id: String,
    /// Address of the member's client.
    client_host: String,
    /// Number of assigned partitions, over all topics.
    partitions: usize,
    /// The process, as published by the member itself. `None` for other clients.
    process: Option<MemberInfo>,
}

impl MemberRow {
    /// Joins what the brokers know about a member with what it published.
    fn new(member: &MemberDescription, process: Option<&MemberInfo>) -> Self {
        Self {
            member_id: member.member_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.host.clone(),
            partitions: member.assignment.values().map(Vec::len).sum(),
            process: process.cloned(),
        }
    }
}

impl Row for MemberRow {
    const COLUMNS: &'static [Column] = &[
        id("member-id"),
        name("client-id"),
        name("instance-id"),
        id("host"),
        number("pid"),
        id("admin"),
        text("version"),
        name("since"),
        number("partitions"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let cell = |attribute: fn(&MemberInfo) -> Option<String>| {
            let value = self.process.as_ref().and_then(attribute);
            value.unwrap_or_else(|| "-".to_owned())
        };
        let host = self.process.as_ref().map(|process| process.host.clone());
        vec![vec![
            self.member_id.clone(),
            self.client_id.clone(),
            cell(|process| process.instance_id.clone()),
            host.unwrap_or_else(|| self.client_host.clone()),
            cell(|process| Some(process.pid.to_string())),
            cell(|process| process.admin.clone()),
            cell(|process| Some(process.version.clone())),
            cell(|process| Some(seconds(process.at))),
            self.partitions.to_string(),
        ]]
    }
}

/// Lists the members.
pub(super) async fn run(connection: &ConnectionArgs, args: MembersArgs) -> anyhow::Result<Ending> {
    let admin = connection.admin().await?;
    let Some(group) = admin.describe_group(args.group.name()).await? else {
        return Err(UnknownGroup::new(&admin, args.group.name()).await.into());
    };
    let cluster = connection.cluster()?;
    let control = control_log::state(&cluster, &admin, args.group.name()).await?;
    let rows = group
        .members
        .iter()
        .map(|member| MemberRow::new(member, control.member(&member.member_id)));
    Listing::print(args.output, rows)?;
    Ok(Ending::Done)
}

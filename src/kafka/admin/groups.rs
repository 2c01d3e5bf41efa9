//! Groups: list and describe.

use super::connection::Connection;
use super::{GroupDescription, MemberDescription, assignment};
use crate::kafka::KafkaError;
use rdkafka::consumer::Consumer;
use rdkafka::groups::{GroupInfo, GroupMemberInfo};

/// All groups, or the one asked for if it exists; sorted by name.
pub(super) fn describe(
    connection: &Connection,
    group: Option<&str>,
) -> Result<Vec<GroupDescription>, KafkaError> {
    let what = "listing groups";
    connection.beyond_mock(what)?;
    let groups = connection
        .client()
        .fetch_group_list(group, connection.left(what)?)
        .map_err(|error| connection.unanswered(what, error))?;
    let mut groups: Vec<_> = groups.groups().iter().map(describe_group).collect();
    groups.sort_unstable_by(|one, other| one.group.cmp(&other.group));
    Ok(groups)
}

fn describe_group(group: &GroupInfo) -> GroupDescription {
    let protocol = match (group.protocol_type(), group.protocol()) {
        (kind, "") => kind.to_owned(),
        (kind, assignor) => format!("{kind}/{assignor}"),
    };
    let consumers = group.protocol_type() == "consumer";
    let members = group.members().iter();
    GroupDescription {
        group: group.name().to_owned(),
        state: group.state().to_owned(),
        protocol,
        members: members
            .map(|member| describe_member(member, consumers))
            .collect(),
    }
}

fn describe_member(member: &GroupMemberInfo, of_consumers: bool) -> MemberDescription {
    let bytes = member.assignment().filter(|_| of_consumers);
    MemberDescription {
        member_id: member.id().to_owned(),
        client_id: member.client_id().to_owned(),
        host: member.client_host().trim_start_matches('/').to_owned(),
        assignment: bytes.and_then(assignment::parse).unwrap_or_default(),
    }
}

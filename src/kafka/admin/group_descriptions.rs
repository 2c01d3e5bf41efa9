//! Groups: list and describe.
//!
//! Two protocols are needed. The classic requests list all groups but describe only those of the
//! classic protocol; the newer request (KIP-848) describes groups of both protocols but needs their
//! names. So groups are listed and described by the classic requests first, and the newer one is
//! used for those that the classic one reports as `Dead`.

use super::connection::Connection;
use super::{GroupDescription, MemberDescription, assignment};
use crate::kafka::KafkaError;
use crate::kafka::native::groups::{DescribedGroup, describe_groups};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use rdkafka::groups::{GroupInfo, GroupMemberInfo};
use std::time::Duration;

/// The wait before a coordinator that loads or moves is asked again.
const COORDINATOR_RETRY: Duration = Duration::from_millis(200);

/// The classic protocol's state of a group that it does not know.
const DEAD: &str = "Dead";

/// The shown state if no request of the client returns it.
const UNKNOWN: &str = "Unknown";

/// All groups, or the named one if it exists, sorted by name.
///
/// They are listed and described by the classic protocol. A listed group that this protocol reports
/// as "dead" belongs to another one, and is described by the newer consumer protocol. If that does
/// not know the group either, it is no group of consumers, such as a share group.
pub(super) fn describe(
    connection: &Connection,
    group: Option<&str>,
) -> Result<Vec<GroupDescription>, KafkaError> {
    let what = "listing groups";
    connection.reject_on_mock(what)?;
    let groups = loop {
        match connection
            .client()
            .fetch_group_list(group, connection.remaining(what)?)
        {
            Ok(groups) => break groups,
            Err(error)
                if is_coordinator_moving(&error)
                    && connection.remaining(what)? > COORDINATOR_RETRY =>
            {
                std::thread::sleep(COORDINATOR_RETRY);
            }
            Err(error) => return Err(connection.unanswered(what, error)),
        }
    };
    let mut groups: Vec<_> = groups.groups().iter().map(describe_group).collect();
    if let (true, Some(group)) = (groups.is_empty(), group) {
        refuse_hidden(connection, group)?;
    }
    describe_others(connection, &mut groups)?;
    groups.sort_unstable_by(|one, other| one.group.cmp(&other.group));
    Ok(groups)
}

/// Whether a coordinator loads or moves, which takes seconds.
fn is_coordinator_moving(error: &ClientError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::CoordinatorLoadInProgress | Code::CoordinatorNotAvailable | Code::NotCoordinator
        )
    )
}

/// Returns an error for a group that the client may not see: the list of groups omits it without
/// notice.
fn refuse_hidden(connection: &Connection, group: &str) -> Result<(), KafkaError> {
    if !is_hidden(connection, group)? {
        return Ok(());
    }
    let refused = KafkaError::Refused {
        what: format!("looking up the group {group}"),
        cause: "this client may not see whether it exists".to_owned(),
    };
    Err(refused.requires_permission(&format!("DESCRIBE on the group {group}")))
}

/// Whether the client may see every group, according to the answer for a name that no group can
/// have.
pub(super) fn sees_all(connection: &Connection) -> Result<bool, KafkaError> {
    connection.reject_on_mock("checking permissions")?;
    let made_up = format!("evenkeel-{:016x}", rand::random::<u64>());
    Ok(!is_hidden(connection, &made_up)?)
}

/// Whether the coordinator refuses to describe the group. The answer for a group that does not
/// exist is a refusal only if the client may not see it either.
fn is_hidden(connection: &Connection, group: &str) -> Result<bool, KafkaError> {
    let what = "describing a group";
    let asked = [group.to_owned()];
    let refusal = match describe_groups(connection.client(), &asked, connection.remaining(what)?) {
        Ok(described) => described.into_iter().find_map(|found| found.error),
        Err(code) => Some(code),
    };
    Ok(refusal == Some(Code::GroupAuthorizationFailed))
}

/// Describes the groups that the classic protocol does not know.
fn describe_others(
    connection: &Connection,
    groups: &mut [GroupDescription],
) -> Result<(), KafkaError> {
    let names: Vec<String> = groups
        .iter()
        .filter(|group| group.state == DEAD)
        .map(|group| group.group.clone())
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let what = "describing groups";
    let described = match describe_groups(connection.client(), &names, connection.remaining(what)?)
    {
        Ok(described) => described,
        // Brokers without the newer protocol have none of its groups.
        Err(Code::UnsupportedFeature | Code::UnsupportedVersion) => Vec::new(),
        Err(code) => {
            let error = ClientError::GroupListFetch(code);
            return Err(connection.unanswered(what, error));
        }
    };
    for group in groups.iter_mut().filter(|group| group.state == DEAD) {
        let found = described.iter().find(|found| found.group == group.group);
        describe_other(group, found);
    }
    Ok(())
}

/// Adds the newer protocol's description of a group.
fn describe_other(group: &mut GroupDescription, found: Option<&DescribedGroup>) {
    let is_known = |found: &&DescribedGroup| {
        found.error.is_none() && found.state.as_deref().is_some_and(|state| state != DEAD)
    };
    let Some(found) = found.filter(is_known) else {
        group.state = UNKNOWN.to_owned();
        group.protocol = "other".to_owned();
        group.are_members_known = false;
        return;
    };
    group.state = found.state.clone().unwrap_or_else(|| UNKNOWN.to_owned());
    let protocol = match found.is_broker_assigned {
        true => "consumer (KIP-848)",
        false => "consumer",
    };
    group.protocol = match found.assignor.as_str() {
        "" => protocol.to_owned(),
        assignor => format!("{protocol}/{assignor}"),
    };
    let members = found.members.iter().cloned();
    group.members = members
        .map(|member| MemberDescription {
            member_id: member.member_id,
            client_id: member.client_id,
            host: member.host.trim_start_matches('/').to_owned(),
            assignment: member.assignment,
        })
        .collect();
}

/// The classic protocol's description of a group.
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
        are_members_known: true,
    }
}

/// A member. Its assignment is parsed only in a group of consumers: other protocols, such as that
/// of Kafka Connect, encode theirs differently.
fn describe_member(member: &GroupMemberInfo, of_consumers: bool) -> MemberDescription {
    let bytes = member.assignment().filter(|_| of_consumers);
    MemberDescription {
        member_id: member.id().to_owned(),
        client_id: member.client_id().to_owned(),
        host: member.client_host().trim_start_matches('/').to_owned(),
        assignment: bytes.and_then(assignment::parse).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead() -> GroupDescription {
        GroupDescription {
            group: "g".to_owned(),
            state: DEAD.to_owned(),
            protocol: String::new(),
            members: Vec::new(),
            are_members_known: true,
        }
    }

    fn found(state: &str, is_broker_assigned: bool) -> DescribedGroup {
        DescribedGroup {
            group: "g".to_owned(),
            state: Some(state.to_owned()),
            is_broker_assigned,
            assignor: "uniform".to_owned(),
            members: Vec::new(),
            error: None,
        }
    }

    #[test]
    fn an_undescribed_group_is_unknown_and_never_dead() {
        for found in [
            None,
            Some(found(DEAD, false)),
            Some(DescribedGroup {
                error: Some(Code::Fail),
                ..found("Stable", true)
            }),
        ] {
            let mut group = dead();
            describe_other(&mut group, found.as_ref());
            assert_eq!((&*group.state, &*group.protocol), (UNKNOWN, "other"));
            assert!(!group.are_members_known);
        }
        let mut group = dead();
        describe_other(&mut group, Some(&found("Stable", true)));
        assert_eq!(group.protocol, "consumer (KIP-848)/uniform");
        assert_eq!((&*group.state, group.are_members_known), ("Stable", true));
    }
}

//! The group's own topics: their source topics, and defects that cannot be repaired.

use super::GroupError;
use super::lag::lag_of;
use crate::{Observer, UnknownGroup};
use evenkeel::consumer::{GroupTopic, GroupTopicKind, GroupTopicState};
use evenkeel::control::control_topic;
use evenkeel::kafka::admin::Admin;
use std::collections::BTreeSet;

/// The defect of a topic that neither settings nor partitions can repair, with the remedy. `None`
/// if it has none. What settings and partitions can repair is in [`GroupTopic::faults`].
pub fn irreparable_defect(topic: &GroupTopic) -> Option<String> {
    if topic.state == GroupTopicState::Hidden {
        return Some("this client may not see it; it takes an ACL for DESCRIBE".to_owned());
    }
    if topic.kind == GroupTopicKind::Control && topic.partitions > 1 {
        let partitions = topic.partitions;
        return Some(format!(
            "it has {partitions} partitions and must have one: delete it and create it again"
        ));
    }
    if topic.state == GroupTopicState::Present && !topic.shows_settings {
        return Some(
            "this client may not read its settings; it takes an ACL for DESCRIBE_CONFIGS"
                .to_owned(),
        );
    }
    let faults = topic.faults.iter().filter(|fault| !fault.is_repairable());
    let faults: Vec<String> = faults.map(ToString::to_string).collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}

/// The topics that the group reads, sorted, without its own topics: those to which it has committed
/// or that its members are assigned. A retry topic is left out only if the group reads its source.
///
/// # Errors
/// [`GroupError::UnknownGroup`] or [`GroupError::NothingCommitted`]. Also if a request to the
/// cluster fails.
pub async fn sources(
    admin: &Admin,
    group: &str,
    observer: &dyn Observer,
) -> Result<Vec<String>, GroupError> {
    let Some(description) = admin.describe_group(group).await? else {
        return Err(UnknownGroup::new(admin, group).await.into());
    };
    let read = lag_of(admin, &description, &[], observer).await?;
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
        let group = group.to_owned();
        return Err(GroupError::NothingCommitted { group });
    }
    Ok(sources)
}

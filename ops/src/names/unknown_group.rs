//! The error of a consumer group that does not exist.

use super::similar_names::nearest;
use evenkeel::kafka::admin::Admin;
use std::fmt;

/// A group that does not exist, and groups with similar names.
///
/// Kafka knows a group while it has members or committed offsets. A group that never ran, or whose
/// offsets expired, is unknown; so is one that the client may not see. A retry does not help before
/// a member has run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownGroup {
    /// Name of the group.
    pub group: String,
    /// Groups with similar names, the most similar first.
    pub similar: Vec<String>,
}

impl UnknownGroup {
    /// Creates the error and searches for similar names. `similar` is empty if the cluster does not
    /// list its groups, for whatever reason: a failed search must not hide the error itself.
    pub async fn new(admin: &Admin, group: &str) -> Self {
        let groups = admin.groups().await.unwrap_or_default();
        let names: Vec<String> = groups.into_iter().map(|group| group.group).collect();
        let similar = nearest(group, &names);
        Self {
            group: group.to_owned(),
            similar: similar.into_iter().map(str::to_owned).collect(),
        }
    }
}

impl fmt::Display for UnknownGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, similar } = self;
        match similar.is_empty() {
            true => write!(f, "there is no group {group}; see: evenkeel groups list"),
            false => write!(
                f,
                "there is no group {group}; did you mean {}?",
                similar.join(" or ")
            ),
        }
    }
}

impl std::error::Error for UnknownGroup {}

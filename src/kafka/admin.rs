//! Topics and groups: list, describe, create; offsets and lag.

use super::{KafkaConfig, KafkaError};
use std::collections::BTreeMap;
use std::time::Duration;

/// An admin client. Methods block the calling task only on awaits; no method takes longer than `timeout`.
pub struct Admin {}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// Partition count.
    pub partitions: i32,
    /// Replication factor; -1 is the broker's default.
    pub replication: i32,
    /// Topic configuration.
    pub config: BTreeMap<String, String>,
}

/// A topic as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TopicDescription {
    /// Name.
    pub name: String,
    /// Partitions by number.
    pub partitions: Vec<PartitionDescription>,
    /// Settings that differ from the broker's defaults; empty where the cluster does not tell.
    pub config: BTreeMap<String, String>,
}

/// A partition as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartitionDescription {
    /// Number.
    pub partition: i32,
    /// Leader broker id, -1 for none.
    pub leader: i32,
    /// Replica broker ids.
    pub replicas: Vec<i32>,
    /// In-sync replica broker ids.
    pub in_sync: Vec<i32>,
    /// First offset still there.
    pub low: i64,
    /// Offset after the last record.
    pub high: i64,
}

/// A group as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GroupDescription {
    /// Name.
    pub group: String,
    /// State such as `Stable` or `Empty`.
    pub state: String,
    /// Protocol type and assignor where known.
    pub protocol: String,
    /// Members.
    pub members: Vec<MemberDescription>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MemberDescription {
    /// Member id.
    pub member_id: String,
    /// Client id.
    pub client_id: String,
    /// Host it connects from.
    pub host: String,
    /// Assigned partitions by topic.
    pub assignment: BTreeMap<String, Vec<i32>>,
}

/// How far a group is on one partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartitionLag {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Committed next offset; none if never committed.
    pub committed: Option<i64>,
    /// First offset still there.
    pub low: i64,
    /// Offset after the last record.
    pub high: i64,
    /// Records still to be settled.
    pub lag: i64,
    /// Age in milliseconds of the oldest record still to be settled; none when there is none or it is unknown.
    pub age_ms: Option<i64>,
}

impl Admin {
    /// Connects; fails with [`KafkaError::Unreachable`] when no broker answers in time.
    pub async fn connect(_config: &KafkaConfig, _timeout: Duration) -> Result<Self, KafkaError> {
        todo!()
    }
    /// The topics' names, sorted, without internal ones.
    pub async fn topics(&self) -> Result<Vec<String>, KafkaError> {
        todo!()
    }
    /// Partition count by topic for those that exist.
    pub async fn partition_counts(
        &self,
        _topics: &[String],
    ) -> Result<BTreeMap<String, usize>, KafkaError> {
        todo!()
    }
    /// Describes one topic.
    pub async fn describe_topic(&self, _topic: &str) -> Result<TopicDescription, KafkaError> {
        todo!()
    }
    /// Creates topics; those that exist are left alone and named in the second list.
    pub async fn create_topics(
        &self,
        _topics: &[NewTopic],
    ) -> Result<(Vec<String>, Vec<String>), KafkaError> {
        todo!()
    }
    /// Changes settings of a topic and leaves its others as they are.
    pub async fn alter_topic(
        &self,
        _topic: &str,
        _settings: &BTreeMap<String, String>,
    ) -> Result<(), KafkaError> {
        todo!()
    }
    /// The groups' names, sorted.
    pub async fn groups(&self) -> Result<Vec<GroupDescription>, KafkaError> {
        todo!()
    }
    /// Describes one group; none if unknown.
    pub async fn describe_group(
        &self,
        _group: &str,
    ) -> Result<Option<GroupDescription>, KafkaError> {
        todo!()
    }
    /// Committed offsets and lag of `group` on every partition of `topics` (all topics when empty).
    pub async fn group_lag(
        &self,
        _group: &str,
        _topics: &[String],
    ) -> Result<Vec<PartitionLag>, KafkaError> {
        todo!()
    }
}

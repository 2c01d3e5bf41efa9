//! Descriptions of topics, partitions, groups and lag.

use std::collections::BTreeMap;

/// A topic to create, for [`Admin::create_topics`](super::Admin::create_topics).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// The name of the topic.
    pub name: String,
    /// The number of partitions. -1 for the brokers' default.
    pub partitions: i32,
    /// The replication factor. -1 for the brokers' default.
    pub replication: i32,
    /// Topic settings by name. The brokers' defaults hold for the others.
    pub config: BTreeMap<String, String>,
}

/// Whether a topic exists, as far as this client may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicPresence {
    /// The topic exists.
    Present {
        /// The number of its partitions.
        partitions: usize,
        /// The number of replicas of its first partition.
        replicas: usize,
    },
    /// The topic does not exist.
    Absent,
    /// This client has no permission to see the topic, which may or may not exist.
    Hidden,
}

/// The description of a topic.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TopicDescription {
    /// The name of the topic.
    pub name: String,
    /// The partitions, sorted by number.
    pub partitions: Vec<PartitionDescription>,
    /// Settings that differ from the brokers' defaults. Empty if the cluster does not show them.
    pub config: BTreeMap<String, String>,
    /// Why the settings are unknown: the client may not see them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_refused: Option<String>,
}

/// The description of a partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartitionDescription {
    /// The number of the partition.
    pub partition: i32,
    /// Broker id of the leader. -1 if there is none.
    pub leader: i32,
    /// Broker ids of the replicas.
    pub replicas: Vec<i32>,
    /// Broker ids of the in-sync replicas.
    pub in_sync: Vec<i32>,
    /// The first available offset. -1 if there is no leader to ask.
    pub low: i64,
    /// The offset after the last record. -1 if there is no leader to ask.
    pub high: i64,
}

/// The description of a group.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GroupDescription {
    /// The name of the group.
    pub group: String,
    /// The state, such as `Stable` or `Empty`. `Unknown` for a kind of group that the client cannot
    /// describe.
    pub state: String,
    /// Protocol type and assignor, if known: `consumer/cooperative-sticky`, `consumer
    /// (KIP-848)/uniform`, or `other` for a group that is not one of consumers, such as a share
    /// group.
    pub protocol: String,
    /// The members of the group. Empty if they are unknown.
    pub members: Vec<MemberDescription>,
    /// Whether the members are known: the client has no request for those of share groups and other
    /// newer kinds.
    pub are_members_known: bool,
}

/// The description of a group's member.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MemberDescription {
    /// The member id.
    pub member_id: String,
    /// The client id.
    pub client_id: String,
    /// The host that it connects from.
    pub host: String,
    /// Assigned partitions by topic. Empty if its protocol is not that of consumers.
    pub assignment: BTreeMap<String, Vec<i32>>,
}

/// The progress of a group on one partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartitionLag {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The committed next offset. None if the group has never committed.
    pub committed: Option<i64>,
    /// The first available offset.
    pub low: i64,
    /// The offset after the last record.
    pub high: i64,
    /// The number of unsettled records, by offsets: records removed by compaction count until the
    /// group is past them.
    pub lag: i64,
    /// The age of the oldest unsettled record in milliseconds. None if there is no such record or
    /// its age is unknown.
    pub age_ms: Option<i64>,
    /// Why that record cannot be read, if it cannot.
    pub unreadable: Option<String>,
}

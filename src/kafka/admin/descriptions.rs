//! Descriptions of topics, partitions, groups and lag.
//!
//! The descriptions are plain data. They serialise as the tool prints them with `--output json`, so
//! the names of their fields are part of the tool's interface.

use std::collections::BTreeMap;

/// A topic to create, for [`Admin::create_topics`](super::Admin::create_topics).
///
/// ```
/// use evenkeel::kafka::admin::NewTopic;
///
/// let topic = NewTopic::new("shop.orders")
///     .with_partitions(12)
///     .with_replication(3)
///     .with_setting("min.insync.replicas", "2");
/// assert_eq!((topic.partitions, topic.replication), (12, 3));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewTopic {
    /// The name of the topic: see [`is_topic_name`](crate::kafka::is_topic_name).
    pub name: String,
    /// The number of partitions. Default -1: the brokers' `num.partitions`. It bounds how many
    /// members of a group can share the topic. Partitions can be added later, which moves keys.
    pub partitions: i32,
    /// The replication factor. Default -1: the brokers' `default.replication.factor`. It cannot
    /// exceed the number of brokers.
    pub replication: i32,
    /// Topic settings by name, such as `retention.ms`. The brokers' defaults hold for the others.
    /// Default: none. The brokers refuse the topic if they do not know a setting.
    pub config: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic of this name with the brokers' defaults.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            partitions: -1,
            replication: -1,
            config: BTreeMap::new(),
        }
    }

    /// Sets the number of [`partitions`](Self::partitions).
    #[must_use]
    pub fn with_partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Sets the [`replication`](Self::replication) factor.
    #[must_use]
    pub fn with_replication(mut self, replication: i32) -> Self {
        self.replication = replication;
        self
    }

    /// Replaces the topic's settings ([`config`](Self::config)).
    #[must_use]
    pub fn with_config(mut self, config: BTreeMap<String, String>) -> Self {
        self.config = config;
        self
    }

    /// Adds one setting to [`config`](Self::config), or replaces its value.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.insert(name.into(), value.into());
        self
    }
}

/// Whether a topic exists, as far as this client may see.
///
/// Exhaustive on purpose: whoever acts on a missing topic has to decide about a hidden one.
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
    /// This client has no permission to see the topic, which may or may not exist. It needs an ACL
    /// for DESCRIBE on the topic.
    Hidden,
}

/// The description of a topic, from [`Admin::describe_topic`](super::Admin::describe_topic).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
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

impl TopicDescription {
    /// A topic without partitions and settings. For tests of code that reads descriptions.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            partitions: Vec::new(),
            config: BTreeMap::new(),
            config_refused: None,
        }
    }
}

/// The description of a partition.
///
/// A partition with fewer [`in_sync`](Self::in_sync) replicas than [`replicas`](Self::replicas) has
/// lost redundancy. With fewer than the topic's `min.insync.replicas` it refuses publishes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
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

impl PartitionDescription {
    /// An empty partition without leader and replicas. For tests of code that reads descriptions.
    pub fn new(partition: i32) -> Self {
        Self {
            partition,
            leader: -1,
            replicas: Vec::new(),
            in_sync: Vec::new(),
            low: 0,
            high: 0,
        }
    }
}

/// The description of a group, from [`Admin::groups`](super::Admin::groups) or
/// [`Admin::describe_group`](super::Admin::describe_group).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct GroupDescription {
    /// The name of the group.
    pub group: String,
    /// The state in Kafka's words: `Stable`, `Empty`, or a state of a rebalance such as
    /// `PreparingRebalance`. `Unknown` for a kind of group that the client cannot describe.
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

impl GroupDescription {
    /// A group in this state that is known to have no members. For tests of code that reads
    /// descriptions.
    pub fn new(group: impl Into<String>, state: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            state: state.into(),
            protocol: String::new(),
            members: Vec::new(),
            are_members_known: true,
        }
    }
}

/// The description of a group's member.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
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

/// The progress of a group on one partition, from [`Admin::group_lag`](super::Admin::group_lag).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct PartitionLag {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The committed next offset. None if the group has never committed, or Kafka has deleted the
    /// commit (`offsets.retention.minutes`).
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
    /// Why that record cannot be read, if it cannot: its batch is unreadable, or it did not arrive
    /// in time. Monitoring should treat it like a great age.
    pub unreadable: Option<String>,
}

impl PartitionLag {
    /// An empty partition without a commit. For tests of code that reads lags.
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
            committed: None,
            low: 0,
            high: 0,
            lag: 0,
            age_ms: None,
            unreadable: None,
        }
    }
}

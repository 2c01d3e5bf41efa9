//! Topics and groups: list, describe, create; offsets and lag; deleting records.
//!
//! Owns what operators and start-up checks ask a cluster. Joins no group and commits nothing. Every method runs the
//! client's blocking calls on a thread that may block, and takes no longer than the timeout given to
//! [`Admin::connect`].

mod assignment;
mod connection;
mod groups;
mod lag;
mod records;
mod settings;
mod topics;

#[cfg(test)]
mod tests;

use super::{KafkaConfig, KafkaError};
#[cfg(test)]
pub(crate) use settings::Setting;
pub(crate) use settings::Settings;

use connection::Connection;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// An admin client. Methods block the calling task only on awaits; no method takes longer than `timeout`.
///
/// Cheap to clone. Dropping the last clone ends the clients on a thread of its own.
#[derive(Clone)]
pub struct Admin {
    connection: Arc<Connection>,
}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// Partition count; -1 is the broker's default.
    pub partitions: i32,
    /// Replication factor; -1 is the broker's default.
    pub replication: i32,
    /// Topic configuration.
    pub config: BTreeMap<String, String>,
}

/// Whether a topic exists, as far as a client may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicPresence {
    /// It exists.
    Present {
        /// How many partitions it has.
        partitions: usize,
        /// How many replicas its first partition has.
        replicas: usize,
    },
    /// It does not exist.
    Absent,
    /// This client may not see it, so that nobody can tell it whether the topic exists.
    Hidden,
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
    /// First offset still there, -1 where there is no leader to ask.
    pub low: i64,
    /// Offset after the last record, -1 where there is no leader to ask.
    pub high: i64,
}

/// A group as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GroupDescription {
    /// Name.
    pub group: String,
    /// State such as `Stable` or `Empty`; `Unknown` for a group whose kind the client cannot ask for.
    pub state: String,
    /// Protocol type and assignor where known: `consumer/cooperative-sticky`, `consumer (KIP-848)/uniform`, or `other` for a group
    /// that is none of consumers, such as a share group.
    pub protocol: String,
    /// Members.
    pub members: Vec<MemberDescription>,
    /// Whether the members could be asked for: the client knows no request for those of share groups and other newer kinds.
    pub are_members_known: bool,
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
    /// Assigned partitions by topic; empty where its protocol is not the consumers' own.
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
    /// Records still to be settled, by offsets: those that compaction took away count until the group is past them.
    pub lag: i64,
    /// Age in milliseconds of the oldest record still to be settled; none when there is none or it is unknown.
    pub age_ms: Option<i64>,
    /// Why that record cannot be read, if it cannot.
    pub unreadable: Option<String>,
}

impl Admin {
    /// Connects; fails with [`KafkaError::Unreachable`] when no broker answers in time.
    ///
    /// # Errors
    /// Also [`KafkaError::Refused`], as soon as a broker does not accept the credentials.
    pub async fn connect(config: &KafkaConfig, timeout: Duration) -> Result<Self, KafkaError> {
        let config = config.clone();
        let open = move || Connection::open(config, timeout);
        let connection = connection::blocking("connecting", open).await?;
        Ok(Self {
            connection: Arc::new(connection),
        })
    }

    /// The topics' names, sorted, without internal ones.
    pub async fn topics(&self) -> Result<Vec<String>, KafkaError> {
        self.run("listing topics", topics::list).await
    }

    /// Whether these topics exist. Each is asked for by name, so that one that is hidden is not taken for one that is missing.
    pub async fn presence(
        &self,
        topics: &[String],
    ) -> Result<BTreeMap<String, TopicPresence>, KafkaError> {
        let topics = topics.to_vec();
        self.run("looking topics up", move |connection| {
            topics::presence(connection, &topics)
        })
        .await
    }

    /// Partition count by topic for those that exist.
    ///
    /// # Errors
    /// [`KafkaError::Refused`] for a topic that this client may not see.
    pub async fn partition_counts(
        &self,
        topics: &[String],
    ) -> Result<BTreeMap<String, usize>, KafkaError> {
        let topics = topics.to_vec();
        self.run("counting partitions", move |connection| {
            topics::partition_counts(connection, &topics)
        })
        .await
    }

    /// Describes one topic.
    ///
    /// # Errors
    /// [`KafkaError::UnknownTopic`] if there is none of this name.
    pub async fn describe_topic(&self, topic: &str) -> Result<TopicDescription, KafkaError> {
        let topic = topic.to_owned();
        self.run("describing a topic", move |connection| {
            topics::describe(connection, &topic)
        })
        .await
    }

    /// Creates topics; those that exist are left alone and named in the second list.
    ///
    /// Returns when the created topics can be written to.
    ///
    /// # Errors
    /// The first topic that cannot be created; others of the list may have been, so that calling again is safe.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
    ) -> Result<(Vec<String>, Vec<String>), KafkaError> {
        let topics = topics.to_vec();
        self.run("creating topics", move |connection| {
            topics::create(connection, &topics)
        })
        .await
    }

    /// Gives a topic more partitions, as many as `partitions` in all.
    ///
    /// Keys of records that are published without a partition may move to others by that.
    ///
    /// # Errors
    /// A topic that does not exist, or has as many already.
    pub async fn grow_topic(&self, topic: &str, partitions: usize) -> Result<(), KafkaError> {
        let topic = topic.to_owned();
        self.run("adding partitions", move |connection| {
            topics::grow(connection, &topic, partitions)
        })
        .await
    }

    /// The settings in force for several topics, by one request. Topics whose settings the brokers do not show are left out.
    pub(crate) async fn settings(
        &self,
        topics: &[String],
    ) -> Result<BTreeMap<String, Settings>, KafkaError> {
        let topics = topics.to_vec();
        self.run("reading the settings of topics", move |connection| {
            settings::of_topics(connection, &topics)
        })
        .await
    }

    /// Changes settings of a topic and leaves its others as they are.
    ///
    /// The present settings are read and written back with the changes, so two who change one topic in the same moment
    /// may undo each other.
    ///
    /// # Errors
    /// [`KafkaError::UnknownTopic`], or a setting that the brokers do not accept.
    pub async fn alter_topic(
        &self,
        topic: &str,
        settings: &BTreeMap<String, String>,
    ) -> Result<(), KafkaError> {
        let (topic, settings) = (topic.to_owned(), settings.clone());
        self.run("changing a topic's settings", move |connection| {
            topics::alter(connection, &topic, &settings)
        })
        .await
    }

    /// Deletes the records of a topic before these offsets, by partition; returns the first offsets still there.
    ///
    /// Only the beginning of a partition can be deleted, and it cannot be had back. Partitions are asked for together, but
    /// each is deleted by its own leader: after an error others may be deleted, and calling again is safe.
    ///
    /// # Errors
    /// [`KafkaError::UnknownTopic`], an offset beyond the end, or a topic that is only compacted.
    pub async fn delete_records(
        &self,
        topic: &str,
        before: &BTreeMap<i32, i64>,
    ) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let (topic, before) = (topic.to_owned(), before.clone());
        self.run("deleting records", move |connection| {
            records::delete_before(connection, &topic, &before)
        })
        .await
    }

    /// All groups, sorted by name.
    pub async fn groups(&self) -> Result<Vec<GroupDescription>, KafkaError> {
        self.run("listing groups", |connection| {
            groups::describe(connection, None)
        })
        .await
    }

    /// Describes one group; none if unknown.
    pub async fn describe_group(
        &self,
        group: &str,
    ) -> Result<Option<GroupDescription>, KafkaError> {
        let group = group.to_owned();
        self.run("describing a group", move |connection| {
            Ok(groups::describe(connection, Some(&group))?.pop())
        })
        .await
    }

    /// Committed offsets and lag of `group` on every partition of `topics`, sorted. When `topics` is empty, of every
    /// topic on which the group has committed anything.
    ///
    /// The age comes from the record at the committed offset, which is read without joining the group. Where that takes
    /// too long it is left out.
    ///
    /// # Errors
    /// [`KafkaError::UnknownTopic`] for a topic of the list that does not exist.
    pub async fn group_lag(
        &self,
        group: &str,
        topics: &[String],
    ) -> Result<Vec<PartitionLag>, KafkaError> {
        let (group, topics) = (group.to_owned(), topics.to_vec());
        self.run("reading lag", move |connection| {
            lag::of_group(connection, &group, &topics)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        ask: impl FnOnce(&Connection) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let connection = self.connection.begin();
        connection::blocking(what, move || ask(&connection)).await
    }
}

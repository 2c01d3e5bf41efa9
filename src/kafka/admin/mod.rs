//! Administration of topics and groups: list, describe, create, offsets and lag, deletion of
//! records.
//!
//! Owns the requests of operators and start-up checks. Joins no group and commits nothing. Every
//! method runs the client's blocking calls on a thread that may block, and takes no longer than the
//! timeout passed to [`Admin::connect`].
//!
//! # Hidden topics and groups
//! Brokers leave out hidden topics and groups without a notice. A list that seems complete may
//! therefore be incomplete. Methods that take a name request it by name, and distinguish *absent*
//! from *hidden*. For lists, [`Admin::sees_all_topics`] and [`Admin::sees_all_groups`] return
//! whether something may be missing.
//!
//! # Cancellation
//! Dropping the future of a method abandons the answer only: the request itself runs to its end or
//! its deadline on its thread. A creation or a deletion may thus still take effect.

mod assignment;
mod committed;
mod connection;
mod descriptions;
mod group_descriptions;
mod group_offsets;
mod offset_client;
mod records;
mod settings;
mod topics;

#[cfg(test)]
mod tests;

pub use descriptions::{
    GroupDescription, MemberDescription, NewTopic, PartitionDescription, PartitionLag,
    TopicDescription, TopicPresence,
};
#[cfg(test)]
pub(crate) use settings::Setting;
pub(crate) use settings::Settings;

use super::native::Committed;
use super::{KafkaConfig, KafkaError};
use connection::Connection;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// An admin client. Its methods block no task, and none takes longer than the timeout passed to
/// [`Admin::connect`].
///
/// Cheap to clone. Dropping the last clone ends the clients on a thread of its own. Call it from a
/// tokio runtime: it uses the runtime's threads for blocking calls.
///
/// Every method returns [`KafkaError::Timeout`] if the answer takes too long,
/// [`KafkaError::Unreachable`] if no broker answers, [`KafkaError::Refused`] if this client lacks
/// the permission, and [`KafkaError::Unsupported`] if the brokers do not know the request. The
/// `# Errors` sections name only the errors that are special to a method. Every method may be
/// called again after an error.
///
/// ```no_run
/// use evenkeel::kafka::KafkaConfig;
/// use evenkeel::kafka::admin::Admin;
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let kafka = KafkaConfig::new("localhost:9092");
/// let admin = Admin::connect(&kafka, Duration::from_secs(10)).await?;
/// for partition in admin.group_lag("payments", &[]).await? {
///     println!("{}/{}: {}", partition.topic, partition.partition, partition.lag);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Admin {
    /// The handles, shared by all clones. Each request takes a deadline of its own from it.
    connection: Arc<Connection>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin")
            .field("brokers", &self.brokers())
            .finish_non_exhaustive()
    }
}

impl Admin {
    /// Connects to the brokers. `timeout` bounds this call and every later request, each on its
    /// own. A timeout above 24 days counts as 24 days.
    ///
    /// The call requests metadata once, so that a wrong address or a rejected login is an error
    /// here and not in the first request.
    ///
    /// # Errors
    /// Returns [`KafkaError::Config`] if a setting cannot be used, [`KafkaError::Unreachable`] if
    /// no broker answers in time, [`KafkaError::Refused`] as soon as a broker rejects the
    /// credentials, and [`KafkaError::Tls`] as soon as TLS fails with the only bootstrap server.
    /// With several of them, a fault in TLS may be that of one server, so the others are tried
    /// until the timeout.
    pub async fn connect(config: &KafkaConfig, timeout: Duration) -> Result<Self, KafkaError> {
        let config = config.clone();
        let open = move || Connection::open(config, timeout);
        let connection = connection::blocking("connecting", open).await?;
        Ok(Self {
            connection: Arc::new(connection),
        })
    }

    /// The bootstrap servers, without user information.
    pub fn brokers(&self) -> String {
        self.connection.brokers()
    }

    /// The cluster's id. None if the brokers do not tell it in time.
    ///
    /// # Errors
    /// Returns [`KafkaError::Timeout`] if no time is left for the request.
    pub async fn cluster_id(&self) -> Result<Option<String>, KafkaError> {
        self.run("requesting the cluster id", |connection| {
            connection.cluster_id()
        })
        .await
    }

    /// The principal of this client, as far as its settings tell: `User:NAME`, or `this client` if
    /// a certificate or a token determines it. For messages about missing permissions.
    pub fn principal(&self) -> String {
        self.connection.config().principal()
    }

    /// Whether this client may see every topic whose name begins with `prefix`. If not, lists of
    /// topics omit the hidden ones.
    ///
    /// It requests a random name with this prefix, which cannot exist. Brokers answer "unknown"
    /// only to a client that may see the topic. An empty prefix stands for all topics.
    pub async fn sees_all_topics(&self, prefix: &str) -> Result<bool, KafkaError> {
        let prefix = prefix.to_owned();
        self.run("checking permissions", move |connection| {
            topics::sees_all(connection, &prefix)
        })
        .await
    }

    /// Whether this client may see every group. If not, lists of groups omit the hidden ones. It
    /// requests a random group, as [`Self::sees_all_topics`] does for topics.
    pub async fn sees_all_groups(&self) -> Result<bool, KafkaError> {
        self.run("checking permissions", group_descriptions::sees_all)
            .await
    }

    /// The names of the topics, sorted, without internal ones (those that begin with `__`) and
    /// those that this client may not see.
    pub async fn topics(&self) -> Result<Vec<String>, KafkaError> {
        self.run("listing topics", topics::list).await
    }

    /// Whether these topics exist, by name. A topic that the list of all topics lacks is requested
    /// by name, so that a hidden topic is not taken for a missing one.
    ///
    /// A name that no topic can have is [`TopicPresence::Absent`]. A topic that is being created at
    /// this moment is awaited until it has partitions.
    ///
    /// ```no_run
    /// use evenkeel::kafka::admin::{Admin, TopicPresence};
    ///
    /// # async fn example(admin: Admin) -> Result<(), evenkeel::kafka::KafkaError> {
    /// let topic = "shop.orders".to_owned();
    /// match admin.presence(std::slice::from_ref(&topic)).await?[&topic] {
    ///     TopicPresence::Present { partitions, .. } => println!("{partitions} partitions"),
    ///     TopicPresence::Absent => println!("it does not exist"),
    ///     TopicPresence::Hidden => println!("grant an ACL for DESCRIBE on it"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn presence(
        &self,
        topics: &[String],
    ) -> Result<BTreeMap<String, TopicPresence>, KafkaError> {
        let topics = topics.to_vec();
        self.run("looking up topics", move |connection| {
            topics::presence(connection, &topics)
        })
        .await
    }

    /// The number of partitions by topic, for those that exist. A missing topic is left out of the
    /// result.
    ///
    /// # Errors
    /// Returns [`KafkaError::Refused`] for a topic that this client may not see.
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

    /// Describes one topic: its partitions with their first and last offsets, and its own settings.
    /// It makes one request for each partition.
    ///
    /// Settings that this client may not see are no error:
    /// [`config_refused`](TopicDescription::config_refused) has the reason then.
    ///
    /// # Errors
    /// Returns [`KafkaError::UnknownTopic`] if the topic does not exist, and
    /// [`KafkaError::Refused`] if this client may not see it.
    pub async fn describe_topic(&self, topic: &str) -> Result<TopicDescription, KafkaError> {
        let topic = topic.to_owned();
        self.run("describing a topic", move |connection| {
            topics::describe(connection, &topic)
        })
        .await
    }

    /// Creates topics. Existing ones are not changed. Returns the names of the created topics and
    /// of the existing ones.
    ///
    /// Returns when every partition of these topics has a leader, so that they can be written to.
    ///
    /// ```no_run
    /// use evenkeel::kafka::admin::{Admin, NewTopic};
    ///
    /// # async fn example(admin: Admin) -> Result<(), evenkeel::kafka::KafkaError> {
    /// let orders = NewTopic::new("shop.orders")
    ///     .with_partitions(12)
    ///     .with_setting("retention.ms", "604800000");
    /// let (created, existing) = admin.create_topics(&[orders]).await?;
    /// println!("created {created:?}, unchanged {existing:?}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns the error of the first topic that cannot be created. Others of the list may have
    /// been created, so calling again is safe.
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

    /// Adds partitions to a topic, up to a total of `partitions`.
    ///
    /// Keys of records that are published without a partition may move to other partitions: the
    /// earlier and the later records of such a key have no order until the earlier ones are
    /// handled. Returns when the new partitions have leaders.
    ///
    /// # Errors
    /// Returns an error if the topic does not exist or has this many partitions already. It cannot
    /// be made smaller.
    ///
    /// ```no_run
    /// # use evenkeel::kafka::{KafkaError, admin::Admin};
    /// # async fn example(admin: Admin) -> Result<(), KafkaError> {
    /// let topic = "shop.orders".to_owned();
    /// let present = admin.partition_counts(std::slice::from_ref(&topic)).await?;
    /// if present.get(&topic).is_some_and(|partitions| *partitions < 24) {
    ///     admin.grow_topic(&topic, 24).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn grow_topic(&self, topic: &str, partitions: usize) -> Result<(), KafkaError> {
        let topic = topic.to_owned();
        self.run("adding partitions", move |connection| {
            topics::add_partitions(connection, &topic, partitions)
        })
        .await
    }

    /// The effective settings of several topics, by one request. Omits topics whose settings the
    /// brokers do not show.
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

    /// Changes settings of a topic and keeps its others.
    ///
    /// The present settings are read and written back with the changes, so that two concurrent
    /// changes of one topic may undo each other. Returns when the brokers show the new values, for
    /// which they have five seconds.
    ///
    /// # Errors
    /// Returns [`KafkaError::UnknownTopic`], or an error for a setting that the brokers do not
    /// accept.
    ///
    /// ```no_run
    /// # use evenkeel::kafka::{KafkaError, admin::Admin};
    /// # async fn example(admin: Admin) -> Result<(), KafkaError> {
    /// let week = [("retention.ms".to_owned(), "604800000".to_owned())];
    /// admin.alter_topic("shop.orders", &week.into()).await?;
    /// # Ok(())
    /// # }
    /// ```
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

    /// Deletes the records of a topic before these offsets, by partition. Returns the first
    /// available offsets.
    ///
    /// Only the beginning of a partition can be deleted, and the deletion is final. The partitions
    /// are requested together, but each is deleted by its own leader: after an error others may be
    /// deleted, and calling again is safe. An empty map deletes nothing.
    ///
    /// ```no_run
    /// # use evenkeel::kafka::{KafkaError, admin::Admin};
    /// # async fn example(admin: Admin) -> Result<(), KafkaError> {
    /// // Deletes the records 0 to 99 of partition 3.
    /// let first = admin.delete_records("shop.orders", &[(3, 100)].into()).await?;
    /// assert_eq!(first[&3], 100);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns [`KafkaError::UnknownTopic`], or an error for an offset beyond the end or a topic
    /// that is only compacted.
    pub async fn delete_records(
        &self,
        topic: &str,
        before: &BTreeMap<i32, i64>,
    ) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let (topic, before) = (topic.to_owned(), before.clone());
        self.run("deleting records", move |connection| {
            records::delete_records_before(connection, &topic, &before)
        })
        .await
    }

    /// Describes all groups that this client may see, sorted by name. They include groups of the
    /// newer consumer protocol (KIP-848), and groups that are not of consumers.
    pub async fn groups(&self) -> Result<Vec<GroupDescription>, KafkaError> {
        self.run("listing groups", |connection| {
            group_descriptions::describe(connection, None)
        })
        .await
    }

    /// Describes one group. None if it does not exist. A group whose members have all left exists
    /// as long as Kafka keeps its committed offsets.
    ///
    /// # Errors
    /// Returns [`KafkaError::Refused`] for a group that this client may not see.
    ///
    /// ```no_run
    /// # use evenkeel::kafka::{KafkaError, admin::Admin};
    /// # async fn example(admin: Admin) -> Result<(), KafkaError> {
    /// match admin.describe_group("payments").await? {
    ///     Some(group) => println!("{}: {} members", group.state, group.members.len()),
    ///     None => println!("it does not exist"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn describe_group(
        &self,
        group: &str,
    ) -> Result<Option<GroupDescription>, KafkaError> {
        let group = group.to_owned();
        self.run("describing a group", move |connection| {
            Ok(group_descriptions::describe(connection, Some(&group))?.pop())
        })
        .await
    }

    /// Committed offsets and lag of `group` for every partition of `topics`, sorted. If `topics` is
    /// empty, for every topic for which the group has a commit.
    ///
    /// The age is that of the record at the committed offset, which is read without joining the
    /// group. Reading has half of the time that the request has left. If it takes longer, the age
    /// is None and [`unreadable`](PartitionLag::unreadable) has the reason.
    ///
    /// # Errors
    /// Returns [`KafkaError::UnknownTopic`] for a topic of the list that does not exist.
    pub async fn group_lag(
        &self,
        group: &str,
        topics: &[String],
    ) -> Result<Vec<PartitionLag>, KafkaError> {
        let (group, topics) = (group.to_owned(), topics.to_vec());
        self.run("reading lag", move |connection| {
            group_offsets::of_group(connection, &group, &topics)
        })
        .await
    }

    /// The committed offsets of `group` for these partitions, with their metadata. One client asks
    /// for all groups. While a transaction has pending offsets of a partition, the request is
    /// repeated; if they stay pending, the partition has an error.
    pub(crate) async fn committed(
        &self,
        group: &str,
        topic: &str,
        partitions: &[i32],
    ) -> Result<Vec<Committed>, KafkaError> {
        let (group, topic) = (group.to_owned(), topic.to_owned());
        let partitions = partitions.to_vec();
        self.run("reading the group's offsets", move |connection| {
            committed::of_group(connection, &group, &topic, &partitions)
        })
        .await
    }

    /// The ids of those topics for which the brokers return one. A topic that is deleted and created
    /// again has another id. A topic without an id is left out: brokers before 2.8, a missing
    /// permission, or no answer within 3 seconds.
    ///
    /// # Errors
    /// If the time of the request is over.
    pub async fn topic_ids(
        &self,
        topics: &[String],
    ) -> Result<BTreeMap<String, [u8; 16]>, KafkaError> {
        let topics = topics.to_vec();
        self.run(topics::READING_IDS, move |connection| {
            topics::ids(connection, &topics)
        })
        .await
    }

    /// Runs a blocking request on a thread that may block, with a deadline that starts now. `what`
    /// names the request in errors.
    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        ask: impl FnOnce(&Connection) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let connection = self.connection.begin();
        connection::blocking(what, move || connection.serve(ask)).await
    }
}

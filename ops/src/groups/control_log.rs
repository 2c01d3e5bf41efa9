//! The control topic of a group, read from its beginning.
//!
//! The topic is compacted and small: reading it whole takes one round trip or a few. Pauses and
//! limits in force follow from all entries together, so there is no shorter way.

use super::GroupError;
use crate::{Cluster, Observer, UnknownGroup, blocking};
use evenkeel::control::{ControlState, Entry, History, control_topic};
use evenkeel::kafka::admin::{Admin, GroupDescription};
use evenkeel::kafka::reader::Reader;
use evenkeel::kafka::{KafkaConfig, KafkaError};
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// How long one poll for an entry takes.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// The content of a control topic, and a reader for later entries.
///
/// ```no_run
/// use evenkeel::kafka::admin::Admin;
/// use evenkeel_ops::Cluster;
/// use evenkeel_ops::groups::GroupError;
/// use evenkeel_ops::groups::control_log::open_existing;
///
/// # async fn example(cluster: Cluster, admin: Admin) -> Result<(), GroupError> {
/// let log = open_existing(&cluster, &admin, "payments").await?;
/// for (scope, command) in log.state.paused() {
///     println!("{scope:?} is paused by {}: {}", command.by, command.why);
/// }
/// # Ok(())
/// # }
/// ```
pub struct ControlLog {
    reader: Reader,
    /// The commands in force.
    pub state: ControlState,
    /// All commands with their answers.
    pub history: History,
}

impl fmt::Debug for ControlLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ControlLog");
        debug.field("state", &self.state).finish_non_exhaustive()
    }
}

impl ControlLog {
    /// Reads the topic to its end. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// If a request to the cluster fails. [`KafkaError::Timeout`] if no entry arrives within the
    /// cluster's timeout before the end is reached.
    pub async fn open(
        cluster: &Cluster,
        admin: &Admin,
        group: &str,
    ) -> Result<Option<Self>, KafkaError> {
        let topic = control_topic(group);
        if !evenkeel::kafka::is_topic_name(&topic) {
            return Ok(None);
        }
        let present = admin.partition_counts(std::slice::from_ref(&topic)).await?;
        if present.is_empty() {
            return Ok(None);
        }
        let cluster = cluster.clone();
        let open = move || Self::read(&cluster.kafka, &topic, cluster.timeout);
        Ok(Some(blocking::run(open).await?))
    }

    fn read(kafka: &KafkaConfig, topic: &str, timeout: Duration) -> Result<Self, KafkaError> {
        let mut log = Self {
            reader: Reader::follow(kafka, [topic], timeout)?,
            state: ControlState::default(),
            history: History::default(),
        };
        let mut deadline = Instant::now() + timeout;
        while !log.reader.has_caught_up() {
            if log.next(POLL_TIMEOUT)? {
                deadline = Instant::now() + timeout;
            } else if Instant::now() >= deadline {
                return Err(KafkaError::Timeout {
                    what: format!("reading {topic}"),
                    seconds: timeout.as_secs(),
                });
            }
        }
        Ok(log)
    }

    /// Waits up to `wait` for the next entry and applies it to `state` and `history`. Returns
    /// whether one arrived. Blocks the calling thread. An entry that cannot be read counts as
    /// arrived and changes nothing.
    ///
    /// # Errors
    /// If a request to the cluster fails. The log may be read further after a temporary error.
    pub fn next(&mut self, wait: Duration) -> Result<bool, KafkaError> {
        let Some(record) = self.reader.next(wait)? else {
            return Ok(false);
        };
        // Skips entries that it cannot read, as members do.
        if let Ok(entry) = Entry::read(record.key.as_deref(), record.value.as_deref()) {
            let key = record.key.unwrap_or_default();
            self.history
                .apply(&String::from_utf8_lossy(&key), entry.clone());
            let _ = self.state.apply(entry, false);
        }
        Ok(true)
    }
}

/// [`ControlLog::open`] for a group that must have a control topic.
///
/// # Errors
/// [`GroupError::UnknownGroup`] or [`GroupError::NoControlTopic`] if it does not exist. Also if a
/// request to the cluster fails.
pub async fn open_existing(
    cluster: &Cluster,
    admin: &Admin,
    group: &str,
) -> Result<ControlLog, GroupError> {
    if let Some(log) = ControlLog::open(cluster, admin, group).await? {
        return Ok(log);
    }
    match admin.describe_group(group).await? {
        Some(_) => Err(GroupError::NoControlTopic {
            topic: control_topic(group),
        }),
        None => Err(UnknownGroup::new(admin, group).await.into()),
    }
}

/// The pauses, rate limits and outages of a group. Empty if the group has no control topic. Does
/// not tell a group without pauses from one without a control topic; [`open_existing`] does.
///
/// # Errors
/// If a request to the cluster fails.
pub async fn state(
    cluster: &Cluster,
    admin: &Admin,
    group: &str,
) -> Result<ControlState, KafkaError> {
    let log = ControlLog::open(cluster, admin, group).await?;
    Ok(log.map(|log| log.state).unwrap_or_default())
}

/// The states of many groups.
#[derive(Debug)]
#[non_exhaustive]
pub struct States {
    /// State by group, for groups with a control topic.
    pub of: BTreeMap<String, ControlState>,
    /// Whether some control topics cannot be seen or read. The pauses of those groups are unknown:
    /// a check that found no pause has not passed.
    pub is_partial: bool,
}

/// [`state`] of many groups, read together. Omits groups without a control topic. The observer
/// receives a notice about topics that cannot be read.
///
/// # Errors
/// If a request to the cluster fails.
pub async fn states(
    cluster: &Cluster,
    admin: &Admin,
    groups: &[GroupDescription],
    observer: &dyn Observer,
) -> Result<States, KafkaError> {
    let existing = admin.topics().await?;
    let mut topics: BTreeMap<String, String> = groups
        .iter()
        .map(|group| (control_topic(&group.group), group.group.clone()))
        .collect();
    let group_count = topics.len();
    topics.retain(|topic, _| existing.contains(topic));
    let mut is_partial = topics.len() < group_count && !admin.sees_all_topics("control.").await?;
    if is_partial {
        observer.notice(
            "some control topics may be hidden, and with them pauses of their groups: seeing them \
             takes an ACL for DESCRIBE on the topics control.*",
        );
    }
    let mut of = BTreeMap::new();
    if !topics.is_empty() {
        let cluster = cluster.clone();
        let read = move || read_permitted(&cluster.kafka, topics, cluster.timeout);
        let (read, refused) = blocking::run(read).await?;
        of = read;
        for error in refused {
            observer.notice(&format!(
                "a control topic cannot be read, so the pauses of its group are unknown: {error}"
            ));
            is_partial = true;
        }
    }
    Ok(States { of, is_partial })
}

/// Reads all control topics that the client may read. Uses one reader if it may read all. Blocks.
#[allow(clippy::type_complexity, reason = "states, and what was refused")]
fn read_permitted(
    kafka: &KafkaConfig,
    topics: BTreeMap<String, String>,
    timeout: Duration,
) -> Result<(BTreeMap<String, ControlState>, Vec<KafkaError>), KafkaError> {
    match read_all(kafka, &topics, timeout) {
        Err(KafkaError::Refused { .. }) => {}
        states => return Ok((states?, Vec::new())),
    }
    let (mut states, mut refused) = (BTreeMap::new(), Vec::new());
    for (topic, group) in topics {
        match read_all(kafka, &BTreeMap::from([(topic, group)]), timeout) {
            Ok(one) => states.extend(one),
            Err(error @ KafkaError::Refused { .. }) => refused.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok((states, refused))
}

/// Reads control topics to their ends. Blocks.
fn read_all(
    kafka: &KafkaConfig,
    topics: &BTreeMap<String, String>,
    timeout: Duration,
) -> Result<BTreeMap<String, ControlState>, KafkaError> {
    let mut states: BTreeMap<String, ControlState> = BTreeMap::new();
    let mut reader = Reader::follow(kafka, topics.keys().cloned(), timeout)?;
    let mut deadline = Instant::now() + timeout;
    while !reader.has_caught_up() {
        if let Some(record) = reader.next(POLL_TIMEOUT)? {
            deadline = Instant::now() + timeout;
            let entry = Entry::read(record.key.as_deref(), record.value.as_deref());
            if let (Ok(entry), Some(group)) = (entry, topics.get(&*record.topic)) {
                let _ = states.entry(group.clone()).or_default().apply(entry, false);
            }
        } else if Instant::now() >= deadline {
            return Err(KafkaError::Timeout {
                what: "reading the control topics".to_owned(),
                seconds: timeout.as_secs(),
            });
        }
    }
    Ok(states)
}

//! Compares a group's own topics with their required configuration (missing, too few partitions,
//! unsafe settings), and repairs them.
//!
//! The consumer and the operator's tool both use this, so that a topic is the same whoever created
//! it.
//!
//! Only additions are made without an operator: creation and partitions. A changed setting may be
//! intended, so that only [`GroupTopic::repair`], which a person calls, changes settings.

use crate::consumer::group_topics::faults::faults;
use crate::consumer::group_topics::kinds::{GroupTopicKind, TopicFault};
use crate::consumer::group_topics::spec::{Source, Spec, required_spec};
use crate::control::control_topic;
use crate::kafka::KafkaError;
use crate::kafka::admin::{Admin, NewTopic, Settings, TopicPresence};
use crate::kafka::error::code_of;
use crate::recovery::{DeadLetterTopic, retry_topic};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::BTreeMap;
use std::time::Duration;

/// Which own topics a group needs.
///
/// It contains names only. [`GroupTopics::describe`] compares them with a cluster, and
/// [`GroupTopic::repair`] applies the difference. A member does the same at its start and at
/// [`own_topics_interval`](crate::consumer::ConsumerSettings::own_topics_interval), except for
/// changed settings. Use it for deployments in which services may not create topics.
///
/// ```no_run
/// use evenkeel::consumer::GroupTopics;
/// use evenkeel::kafka::KafkaConfig;
/// use evenkeel::kafka::admin::Admin;
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let admin = Admin::connect(&KafkaConfig::from_env()?, Duration::from_secs(10)).await?;
/// for topic in GroupTopics::new("payments", ["shop.orders"]).describe(&admin).await? {
///     if let Some(changes) = topic.pending_changes() {
///         println!("{}: {changes}", topic.name);
///         topic.repair(&admin).await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupTopics {
    /// The consumer group, as in
    /// [`ConsumerSettings::group`](crate::consumer::ConsumerSettings::group).
    pub group: String,
    /// The topics that it reads.
    pub sources: Vec<String>,
    /// Where its dead letters are written. Must be the same as in the settings of the members.
    pub dead_letter_topic: DeadLetterTopic,
    /// How long dead letters must be kept at least. None means for ever.
    pub dead_letters_kept_min: Option<Duration>,
}

/// Whether a topic exists, as far as this client may see.
///
/// | state | what it means for the group | next step |
/// |---|---|---|
/// | missing | no parking, or no dead letters, or no commands | create it: [`GroupTopic::repair`] |
/// | present | compare partitions and faults | [`GroupTopic::pending_changes`] |
/// | hidden | unknown | an ACL for `DESCRIBE` |
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GroupTopicState {
    /// The topic does not exist. Without a retry topic no record can be parked; without a
    /// dead-letter topic, a record that fails for good stops its key.
    Missing,
    /// The topic exists.
    Present,
    /// This client has no permission to see the topic, which may exist. It is never created.
    Hidden,
}

/// One of a group's own topics, with its actual and its required configuration.
///
/// Returned by [`GroupTopics::describe`]. It is a snapshot: the topic may have changed since.
///
/// A check for a deployment, which changes nothing:
///
/// ```no_run
/// use evenkeel::consumer::{GroupTopicState, GroupTopics};
/// use evenkeel::kafka::KafkaConfig;
/// use evenkeel::kafka::admin::Admin;
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let admin = Admin::connect(&KafkaConfig::from_env()?, Duration::from_secs(10)).await?;
/// let topics = GroupTopics::new("payments", ["shop.orders"]).describe(&admin).await?;
/// for topic in topics.iter().filter(|topic| topic.state == GroupTopicState::Present) {
///     for fault in &topic.faults {
///         println!("{}: {fault}", topic.name);
///     }
/// }
/// assert!(topics.iter().all(|topic| topic.is_complete()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupTopic {
    /// The name of the topic.
    pub name: String,
    /// The purpose of the topic.
    pub kind: GroupTopicKind,
    /// Whether it exists.
    pub state: GroupTopicState,
    /// The number of its partitions. 0 if it is missing or hidden.
    pub partitions: usize,
    /// The number of partitions that it needs at least: as many as its largest source, and one for
    /// a control topic. A dead-letter topic of several sources is partitioned by key and keeps its
    /// number.
    pub partitions_wanted: usize,
    /// The faults of its settings.
    pub faults: Vec<TopicFault>,
    /// Whether the brokers show its settings to this client. If not, its faults are unknown.
    pub shows_settings: bool,
    spec: Spec,
}

impl GroupTopics {
    /// The own topics of a group with one dead-letter topic per source, which keeps dead letters
    /// for ever.
    ///
    /// ```
    /// use evenkeel::consumer::GroupTopics;
    /// use evenkeel::recovery::DeadLetterTopic;
    /// use std::time::Duration;
    ///
    /// let topics = GroupTopics::new("payments", ["shop.orders"])
    ///     .with_dead_letter_topic(DeadLetterTopic::One("payments.rejected".to_owned()))
    ///     .with_dead_letters_kept_min(Duration::from_secs(30 * 24 * 3_600));
    /// assert_eq!(topics.sources, ["shop.orders"]);
    /// ```
    pub fn new<T: Into<String>>(
        group: impl Into<String>,
        sources: impl IntoIterator<Item = T>,
    ) -> Self {
        Self {
            group: group.into(),
            sources: sources.into_iter().map(Into::into).collect(),
            dead_letter_topic: DeadLetterTopic::PerTopic,
            dead_letters_kept_min: None,
        }
    }

    /// Sets where the group's dead letters are written.
    #[must_use]
    pub fn with_dead_letter_topic(mut self, dead_letter_topic: DeadLetterTopic) -> Self {
        self.dead_letter_topic = dead_letter_topic;
        self
    }

    /// Sets how long dead letters must be kept at least. None means for ever.
    #[must_use]
    pub fn with_dead_letters_kept_min(
        mut self,
        dead_letters_kept_min: impl Into<Option<Duration>>,
    ) -> Self {
        self.dead_letters_kept_min = dead_letters_kept_min.into();
        self
    }

    /// The own topics by name, with their kind and their sources.
    fn names(&self) -> BTreeMap<String, (GroupTopicKind, Vec<&String>)> {
        let mut names: BTreeMap<String, (GroupTopicKind, Vec<&String>)> = BTreeMap::new();
        for source in &self.sources {
            let of_source = [
                (GroupTopicKind::Retry, retry_topic(&self.group, source)),
                (
                    GroupTopicKind::DeadLetters,
                    self.dead_letter_topic.of(&self.group, source),
                ),
                (GroupTopicKind::Control, control_topic(&self.group)),
            ];
            for (kind, name) in of_source {
                let (_, sources) = names.entry(name).or_insert((kind, Vec::new()));
                sources.push(source);
            }
        }
        names
    }

    /// Describes all of them, in two or three requests whatever the number of partitions.
    ///
    /// # Errors
    /// [`KafkaError::UnknownTopic`] if a source does not exist.
    ///
    /// # Examples
    /// See [`GroupTopics`].
    pub async fn describe(&self, admin: &Admin) -> Result<Vec<GroupTopic>, KafkaError> {
        // Returns an error if a source is hidden.
        admin.partition_counts(&self.sources).await?;
        let names = self.names();
        let all: Vec<String> = names.keys().chain(&self.sources).cloned().collect();
        let presences = admin.presence(&all).await?;
        let settings = shown_settings(admin, &presences).await?;
        let mut sources = BTreeMap::new();
        for name in &self.sources {
            let Some(TopicPresence::Present {
                partitions,
                replicas,
            }) = presences.get(name)
            else {
                return Err(KafkaError::UnknownTopic {
                    topic: name.clone(),
                });
            };
            let source = Source {
                partitions: *partitions,
                replicas: *replicas,
                settings: settings.get(name).cloned().unwrap_or_default(),
            };
            sources.insert(name, source);
        }
        let topics = names.into_iter().map(|(name, (kind, of))| {
            let of: Vec<&Source> = of.iter().filter_map(|name| sources.get(name)).collect();
            let spec = required_spec(kind, &of);
            let shown = settings.get(&name);
            self.compare(name.clone(), kind, spec, presences.get(&name), shown)
        });
        Ok(topics.collect())
    }

    /// Compares one topic with its specification.
    fn compare(
        &self,
        name: String,
        kind: GroupTopicKind,
        spec: Spec,
        presence: Option<&TopicPresence>,
        settings: Option<&Settings>,
    ) -> GroupTopic {
        let (state, partitions, replicas) = match presence {
            Some(TopicPresence::Present {
                partitions,
                replicas,
            }) => (GroupTopicState::Present, *partitions, *replicas),
            Some(TopicPresence::Hidden) => (GroupTopicState::Hidden, 0, 0),
            Some(TopicPresence::Absent) | None => (GroupTopicState::Missing, 0, 0),
        };
        let is_placed_by_key = kind == GroupTopicKind::DeadLetters
            && self.dead_letter_topic != DeadLetterTopic::PerTopic;
        let partitions_wanted = match state {
            // More partitions would only move keys to other ones.
            GroupTopicState::Present if is_placed_by_key => partitions,
            _ => spec.partitions,
        };
        let kept_min = self.dead_letters_kept_min;
        let faults = settings.map(|settings| faults(kind, &spec, settings, replicas, kept_min));
        GroupTopic {
            name,
            kind,
            state,
            partitions,
            partitions_wanted,
            shows_settings: faults.is_some(),
            faults: faults.unwrap_or_default(),
            spec,
        }
    }
}

/// The settings that the brokers show to this client.
async fn shown_settings(
    admin: &Admin,
    presences: &BTreeMap<String, TopicPresence>,
) -> Result<BTreeMap<String, Settings>, KafkaError> {
    let is_present = |presence: &TopicPresence| matches!(presence, TopicPresence::Present { .. });
    let present = presences.iter().filter(|(_, found)| is_present(found));
    let present: Vec<String> = present.map(|(name, _)| name.clone()).collect();
    match admin.settings(&present).await {
        Err(KafkaError::Unsupported { .. } | KafkaError::Refused { .. }) => Ok(BTreeMap::new()),
        shown => shown,
    }
}

impl GroupTopic {
    /// Whether it exists (or is hidden) and has a partition for every partition of its sources.
    /// Ignores its settings: see [`faults`](Self::faults).
    pub fn is_complete(&self) -> bool {
        self.state != GroupTopicState::Missing && !self.lacks_partitions()
    }

    /// Whether it has fewer partitions than its sources need. A control topic never has too few.
    fn lacks_partitions(&self) -> bool {
        let can_grow = self.kind != GroupTopicKind::Control;
        can_grow
            && self.state == GroupTopicState::Present
            && self.partitions < self.partitions_wanted
    }

    /// Describes the changes that [`GroupTopic::repair`] would apply, such as `create it with 12
    /// partitions`. None if there are none, and for a hidden topic.
    pub fn pending_changes(&self) -> Option<String> {
        match self.state {
            GroupTopicState::Hidden => None,
            GroupTopicState::Missing => Some(format!(
                "create it with {} partitions",
                self.partitions_wanted
            )),
            GroupTopicState::Present => {
                let grow = self.lacks_partitions().then(|| {
                    format!(
                        "add partitions, from {} to {}",
                        self.partitions, self.partitions_wanted
                    )
                });
                let set = self.faults.iter().filter(|fault| fault.is_repairable());
                let set = set.map(|fault| {
                    let whose = if fault.is_default {
                        " (the brokers' default)"
                    } else {
                        ""
                    };
                    format!(
                        "{} from {}{whose} to {}",
                        fault.setting, fault.value, fault.wanted
                    )
                });
                let all: Vec<String> = grow.into_iter().chain(set).collect();
                (!all.is_empty()).then(|| all.join("; "))
            }
        }
    }

    /// Creates the topic, adds partitions or changes unsafe settings, as its service would. Does
    /// nothing for a hidden topic. A repeated call is harmless.
    ///
    /// If the brokers refuse some settings of a new topic, it is created with the essential ones
    /// only (retention, policy, record size).
    ///
    /// # Errors
    /// Returns the brokers' error if they refuse a change. Partitions may have been added before
    /// settings were refused.
    pub async fn repair(&self, admin: &Admin) -> Result<(), KafkaError> {
        match self.state {
            GroupTopicState::Hidden => Ok(()),
            GroupTopicState::Missing => create(admin, &[self]).await,
            GroupTopicState::Present => {
                if self.lacks_partitions() {
                    admin.grow_topic(&self.name, self.partitions_wanted).await?;
                }
                let changes = self.faults.iter().filter(|fault| fault.is_repairable());
                let changes = changes.map(|fault| (fault.setting.clone(), fault.wanted.clone()));
                let changes: BTreeMap<String, String> = changes.collect();
                match changes.is_empty() {
                    true => Ok(()),
                    false => admin.alter_topic(&self.name, &changes).await,
                }
            }
        }
    }

    /// The topic as it is created: with all settings, or with the essential ones only.
    fn new_topic(&self, has_all_settings: bool) -> NewTopic {
        let spec = &self.spec;
        let mut config = spec.essential.clone();
        if has_all_settings {
            config.extend(spec.further.clone());
        }
        NewTopic {
            name: self.name.clone(),
            partitions: i32::try_from(self.partitions_wanted).unwrap_or(i32::MAX),
            replication: if has_all_settings {
                spec.replication
            } else {
                -1
            },
            config,
        }
    }
}

/// The command with which an operator repairs a group's own topics.
///
/// Reasons in the health and errors quote it, so that it must work as it is.
pub(crate) fn repair_command(group: &str) -> String {
    format!("evenkeel groups topics {group} --execute")
}

/// Creates the missing ones of these topics, and adds partitions to those that have too few. It
/// does not change the settings of existing topics. Tries all of them, and returns the first error.
pub(crate) async fn create_missing(admin: &Admin, topics: &[GroupTopic]) -> Result<(), KafkaError> {
    let missing = topics
        .iter()
        .filter(|topic| topic.state == GroupTopicState::Missing);
    let missing: Vec<&GroupTopic> = missing.collect();
    let mut result = create(admin, &missing).await;
    for topic in topics.iter().filter(|topic| topic.lacks_partitions()) {
        let grown = admin.grow_topic(&topic.name, topic.partitions_wanted).await;
        result = result.and(grown);
    }
    result
}

/// Creates these topics. A topic that exists by now is no error: another member was first.
async fn create(admin: &Admin, topics: &[&GroupTopic]) -> Result<(), KafkaError> {
    let new = |has_all_settings| -> Vec<NewTopic> {
        let topics = topics.iter();
        topics
            .map(|topic| topic.new_topic(has_all_settings))
            .collect()
    };
    match admin.create_topics(&new(true)).await {
        // Not every cluster accepts all settings, or has as many brokers as replicas are required.
        Err(error) if is_about_settings(&error) => {
            tracing::debug!(%error, "topics are created with fewer settings");
            admin.create_topics(&new(false)).await.map(drop)
        }
        created => created.map(drop),
    }
}

/// Whether the brokers refuse a topic for its settings or its number of replicas.
fn is_about_settings(error: &KafkaError) -> bool {
    let KafkaError::Client { source, .. } = error else {
        return false;
    };
    matches!(
        code_of(source),
        Some(Code::InvalidConfig | Code::PolicyViolation | Code::InvalidReplicationFactor)
    )
}

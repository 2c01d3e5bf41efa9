//! The topics of a group beside what they have to be: what is missing, too small or unsafe, and how it is mended.
//!
//! The consumer and the operator's tool both come here, so that a topic is the same whoever made it.

use super::spec::{Source, Spec, faults, spec};
use super::{OwnTopicKind, TopicFault};
use crate::control::control_topic;
use crate::kafka::KafkaError;
use crate::kafka::admin::{Admin, NewTopic, Settings, TopicPresence};
use crate::recovery::{DeadLetterTopic, retry_topic};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::BTreeMap;
use std::time::Duration;

/// Which topics a group has for itself.
#[derive(Debug, Clone)]
pub struct OwnTopics {
    /// The group.
    pub group: String,
    /// The topics that it reads.
    pub sources: Vec<String>,
    /// Where its dead letters go.
    pub dead_letter_topic: DeadLetterTopic,
    /// How long dead letters are to be kept at least; none for ever.
    pub dead_letters_kept_min: Option<Duration>,
}

/// Whether a topic exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OwnTopicState {
    /// It does not exist.
    Missing,
    /// It exists.
    Present,
    /// This client may not see it.
    Hidden,
}

/// One of a group's own topics, as it is and as it has to be.
#[derive(Debug, Clone)]
pub struct OwnTopic {
    /// Name.
    pub name: String,
    /// What it is for.
    pub kind: OwnTopicKind,
    /// Whether it exists.
    pub state: OwnTopicState,
    /// How many partitions it has; 0 where it is missing or hidden.
    pub partitions: usize,
    /// How many partitions it needs at least.
    pub partitions_wanted: usize,
    /// What is wrong with its settings.
    pub faults: Vec<TopicFault>,
    /// Whether the brokers show its settings to this client. Where they do not, faults are not known.
    pub shows_settings: bool,
    spec: Spec,
}

impl OwnTopics {
    /// Those of a group with one dead-letter topic for each of its sources, which keep letters for ever.
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

    /// Each of them by name: what it is for, and the sources that it belongs to.
    fn names(&self) -> BTreeMap<String, (OwnTopicKind, Vec<&String>)> {
        let mut names: BTreeMap<String, (OwnTopicKind, Vec<&String>)> = BTreeMap::new();
        for source in &self.sources {
            let of_source = [
                (OwnTopicKind::Retry, retry_topic(&self.group, source)),
                (
                    OwnTopicKind::DeadLetters,
                    self.dead_letter_topic.of(&self.group, source),
                ),
                (OwnTopicKind::Control, control_topic(&self.group)),
            ];
            for (kind, name) in of_source {
                let (_, sources) = names.entry(name).or_insert((kind, Vec::new()));
                sources.push(source);
            }
        }
        names
    }

    /// Looks at all of them: two or three requests, however many partitions there are.
    ///
    /// # Errors
    /// [`KafkaError::UnknownTopic`] for a source that does not exist.
    pub async fn look(&self, admin: &Admin) -> Result<Vec<OwnTopic>, KafkaError> {
        // Says so where a source is hidden.
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
            let spec = spec(kind, &of);
            let shown = settings.get(&name);
            self.compare(name.clone(), kind, spec, presences.get(&name), shown)
        });
        Ok(topics.collect())
    }

    fn compare(
        &self,
        name: String,
        kind: OwnTopicKind,
        spec: Spec,
        presence: Option<&TopicPresence>,
        settings: Option<&Settings>,
    ) -> OwnTopic {
        let (state, partitions, replicas) = match presence {
            Some(TopicPresence::Present {
                partitions,
                replicas,
            }) => (OwnTopicState::Present, *partitions, *replicas),
            Some(TopicPresence::Hidden) => (OwnTopicState::Hidden, 0, 0),
            Some(TopicPresence::Absent) | None => (OwnTopicState::Missing, 0, 0),
        };
        let is_placed_by_key = kind == OwnTopicKind::DeadLetters
            && self.dead_letter_topic != DeadLetterTopic::PerTopic;
        let partitions_wanted = match state {
            // More partitions would only move keys to others.
            OwnTopicState::Present if is_placed_by_key => partitions,
            _ => spec.partitions,
        };
        let kept_min = self.dead_letters_kept_min;
        let faults = settings.map(|settings| faults(kind, &spec, settings, replicas, kept_min));
        OwnTopic {
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

/// The settings that this client is shown.
async fn shown_settings(
    admin: &Admin,
    presences: &BTreeMap<String, TopicPresence>,
) -> Result<BTreeMap<String, Settings>, KafkaError> {
    let is_present = |presence: &TopicPresence| matches!(presence, TopicPresence::Present { .. });
    let present = presences.iter().filter(|(_, found)| is_present(found));
    let present: Vec<String> = present.map(|(name, _)| name.clone()).collect();
    match admin.settings(&present).await {
        Err(KafkaError::Unsupported { .. } | KafkaError::Refused { .. }) => Ok(BTreeMap::new()),
        told => told,
    }
}

impl OwnTopic {
    /// Whether it exists and has partitions for all that its sources have.
    pub fn is_whole(&self) -> bool {
        self.state != OwnTopicState::Missing && !self.is_small()
    }

    fn is_small(&self) -> bool {
        let can_grow = self.kind != OwnTopicKind::Control;
        can_grow && self.state == OwnTopicState::Present && self.partitions < self.partitions_wanted
    }

    /// What has to be done for it to be as its service makes it, in words; none where nothing has.
    pub fn to_do(&self) -> Option<String> {
        match self.state {
            OwnTopicState::Hidden => None,
            OwnTopicState::Missing => Some(format!(
                "create it with {} partitions",
                self.partitions_wanted
            )),
            OwnTopicState::Present => {
                let grow = self.is_small().then(|| {
                    format!(
                        "add partitions, from {} to {}",
                        self.partitions, self.partitions_wanted
                    )
                });
                let set = self.faults.iter().filter(|fault| fault.can_be_mended());
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

    /// Makes it as its service would, where it is missing, too small or unsafe.
    ///
    /// # Errors
    /// What the brokers refuse.
    pub async fn make(&self, admin: &Admin) -> Result<(), KafkaError> {
        match self.state {
            OwnTopicState::Hidden => Ok(()),
            OwnTopicState::Missing => create(admin, &[self]).await,
            OwnTopicState::Present => {
                if self.is_small() {
                    admin.grow_topic(&self.name, self.partitions_wanted).await?;
                }
                let changes = self.faults.iter().filter(|fault| fault.can_be_mended());
                let changes = changes.map(|fault| (fault.setting.clone(), fault.wanted.clone()));
                let changes: BTreeMap<String, String> = changes.collect();
                match changes.is_empty() {
                    true => Ok(()),
                    false => admin.alter_topic(&self.name, &changes).await,
                }
            }
        }
    }

    fn new_topic(&self, is_whole: bool) -> NewTopic {
        let spec = &self.spec;
        let mut config = spec.essential.clone();
        if is_whole {
            config.extend(spec.further.clone());
        }
        NewTopic {
            name: self.name.clone(),
            partitions: i32::try_from(self.partitions_wanted).unwrap_or(i32::MAX),
            replication: if is_whole { spec.replication } else { -1 },
            config,
        }
    }
}

/// Creates what is missing of these, and gives partitions to what has too few. Settings of topics that exist are left alone.
pub(super) async fn make_whole(admin: &Admin, topics: &[OwnTopic]) -> Result<(), KafkaError> {
    let missing = topics
        .iter()
        .filter(|topic| topic.state == OwnTopicState::Missing);
    let missing: Vec<&OwnTopic> = missing.collect();
    let mut made = create(admin, &missing).await;
    for topic in topics.iter().filter(|topic| topic.is_small()) {
        let grown = admin.grow_topic(&topic.name, topic.partitions_wanted).await;
        made = made.and(grown);
    }
    made
}

async fn create(admin: &Admin, topics: &[&OwnTopic]) -> Result<(), KafkaError> {
    let new = |is_whole| -> Vec<NewTopic> {
        let topics = topics.iter();
        topics.map(|topic| topic.new_topic(is_whole)).collect()
    };
    match admin.create_topics(&new(true)).await {
        // Not every cluster lets everything be set, or has room for as many replicas as it had once.
        Err(error) if is_about_settings(&error) => {
            tracing::debug!(%error, "topics are created with fewer settings");
            admin.create_topics(&new(false)).await.map(drop)
        }
        created => created.map(drop),
    }
}

fn is_about_settings(error: &KafkaError) -> bool {
    let KafkaError::Client { source, .. } = error else {
        return false;
    };
    matches!(
        source.rdkafka_error_code(),
        Some(Code::InvalidConfig | Code::PolicyViolation | Code::InvalidReplicationFactor)
    )
}

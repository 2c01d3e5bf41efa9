//! The drill of duplicates: delivers settled events to a group again and collects its answers.
//!
//! The plan fixes what is repeated: offsets below the committed ones at its time, without the
//! waiting keys and dead letters known then. What the group settles later is not repeated.

use super::DrillError;
use super::delivery::{Delivery, Limits, follow_answers};
use super::selection::{DrillSettings, Selection, stream};
use super::tally::Tally;
use crate::cluster::EVENT_SOURCE;
use crate::waiting_keys::source_topics;
use crate::{Cluster, Observer};
use evenkeel::event::new_id;
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::{Admin, GroupDescription};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::recovery::Drill;
use jiff::Timestamp;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A planned drill. Nothing has been delivered. See the [module](super) for an example.
#[derive(Debug)]
#[must_use = "it delivers nothing until `execute`"]
pub struct Duplicates<'a> {
    cluster: &'a Cluster,
    group: String,
    topics: Vec<String>,
    selections: Vec<Selection>,
}

/// The outcome of a drill. The result follows from the tally: see [`Tally::result`].
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it may contain an error"]
pub struct DrillOutcome {
    /// The repetitions and the answers to them.
    pub tally: Tally,
    /// Whether it was stopped.
    pub is_stopped: bool,
    /// The error that ended it early. The tally holds what was counted before.
    pub error: Option<DrillError>,
}

impl<'a> Duplicates<'a> {
    /// Selects the group's events to repeat, of the `named` topics or of all that have a retry
    /// topic. With `execute`, fails if no member runs. Topics that no member reads are left out,
    /// with a notice. Reads the retry topics and the dead-letter topics of the group; their waiting
    /// keys and dead letters stay in memory.
    ///
    /// # Errors
    /// [`DrillError`] if the group cannot be drilled, or if a request to the cluster fails. Nothing
    /// was changed.
    pub async fn plan(
        cluster: &'a Cluster,
        admin: &Admin,
        settings: &DrillSettings,
        named: &[String],
        execute: bool,
        stop: &CancellationToken,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, DrillError> {
        let group = settings.group.as_str();
        let topics = source_topics(admin, group, named, &*observer).await?;
        let described = admin.describe_group(group).await?;
        if execute {
            check_runs(group, described.as_ref())?;
        }
        let topics = owned(group, described.as_ref(), topics, &*observer)?;
        let mut selections = Vec::with_capacity(topics.len());
        for topic in &topics {
            let observer = Arc::clone(&observer);
            let selection =
                Selection::of_topic(cluster, admin, settings, topic, stop, observer).await?;
            selections.push(selection);
        }
        Ok(Self {
            cluster,
            group: group.to_owned(),
            topics,
            selections,
        })
    }

    /// The topics whose events are repeated.
    pub fn topics(&self) -> &[String] {
        &self.topics
    }

    /// The number of offsets to read. At most this many events are repeated.
    pub fn offsets(&self) -> u64 {
        self.selections.iter().map(Selection::offsets).sum()
    }

    /// Counts the events that would be repeated. Changes nothing. Returns `None` if `stop` is
    /// cancelled first.
    ///
    /// # Errors
    /// If a request to the cluster fails.
    pub async fn count(self, stop: &CancellationToken) -> Result<Option<Tally>, KafkaError> {
        let mut tally = Tally::default();
        let mut found = stream(self.cluster, self.selections, stop.clone());
        while let Some(found) = found.recv().await {
            let found = found?;
            tally.count_settled(&found.record.topic, &found.ty, found.fate);
        }
        Ok((!stop.is_cancelled()).then_some(tally))
    }

    /// Delivers the events again, records `by` as the operator, and waits for the answers. The
    /// observer is notified of each answer.
    ///
    /// It ends when all are answered, when the group is silent for [`Limits::wait`], after ten
    /// repetitions whose handlers failed, after a hundred that could not be delivered, or when
    /// `stop` is cancelled. If the future is dropped, repetitions that were delivered are still
    /// handled.
    ///
    /// # Errors
    /// If the drill cannot start. A later error is in the outcome.
    pub async fn execute(
        self,
        by: String,
        limits: Limits,
        stop: &CancellationToken,
        observer: &dyn Observer,
    ) -> Result<DrillOutcome, DrillError> {
        let kafka = self.cluster.for_single_records()?;
        let publisher = Publisher::new(&kafka, PublisherSettings::new(EVENT_SOURCE))?;
        let drill = Drill {
            id: new_id(),
            by,
            at: Timestamp::now(),
        };
        let answers = follow_answers(self.cluster, &self.group, &self.topics).await?;
        let mut delivery = Delivery::new(
            self.group,
            answers,
            drill,
            publisher,
            limits,
            stop.clone(),
            observer,
        );
        let found = stream(self.cluster, self.selections, stop.clone());
        let delivered = delivery.deliver_all(found).await;
        let (tally, is_stopped) = delivery.end();
        Ok(DrillOutcome {
            tally,
            is_stopped,
            error: delivered.err(),
        })
    }
}

/// Fails if the group has no members: a drill would only leave repetitions behind. For a group
/// whose partitions the brokers assign (KIP-848), the brokers do not list its members. Such a
/// group is drilled, and answers or not.
fn check_runs(group: &str, described: Option<&GroupDescription>) -> Result<(), DrillError> {
    let is_idle = described.is_some_and(|group| group.state == "Empty");
    match is_idle {
        true => Err(DrillError::NobodyRuns {
            group: group.to_owned(),
        }),
        false => Ok(()),
    }
}

/// The topics that members read, if the brokers list them. Nobody would handle the repetitions of
/// any other topic.
fn owned(
    group: &str,
    described: Option<&GroupDescription>,
    topics: Vec<String>,
    observer: &dyn Observer,
) -> Result<Vec<String>, DrillError> {
    let members = described
        .filter(|group| group.state == "Stable")
        .map_or(&[][..], |group| &group.members);
    let are_assignments_known = members.iter().any(|member| !member.assignment.is_empty());
    let has_owner = |topic: &String| {
        let mut members = members.iter();
        !are_assignments_known || members.any(|member| member.assignment.contains_key(topic))
    };
    let (owned, unowned): (Vec<String>, Vec<String>) = topics.into_iter().partition(has_owner);
    for topic in &unowned {
        observer.notice(&format!(
            "{topic} is left out: no member of {group} reads it"
        ));
    }
    match owned.is_empty() {
        true => Err(DrillError::NobodyReads {
            group: group.to_owned(),
        }),
        false => Ok(owned),
    }
}

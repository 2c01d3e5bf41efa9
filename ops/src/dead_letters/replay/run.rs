//! A replay from plan to end.

use super::execution::{Limits, ReplayOutcome};
use super::history::{Histories, read_histories};
use super::plan::{Plan, ReplaySelection, Route, Target};
use super::recorder::Recorder;
use super::sender::Sender;
use super::source::Source;
use crate::cluster::EVENT_SOURCE;
use crate::dead_letters::DeadLetterError;
use crate::dead_letters::select::Filter;
use crate::{Cluster, Observer};
use evenkeel::kafka::admin::Admin;
use evenkeel::publisher::{Publisher, PublisherSettings};
use std::fmt;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Settings of a replay. The default is a dry run of all dead letters that were not replayed, to
/// the retry topic of their group or to their source.
///
/// ```
/// use evenkeel_ops::dead_letters::replay::{ReplaySettings, Target};
///
/// let settings = ReplaySettings::default().with_target(Target::Source).with_again(true);
/// assert!(!settings.execute);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[must_use]
pub struct ReplaySettings {
    /// Which dead letters of the source are replayed. Default: all.
    pub filter: Filter,
    /// The destination. Default: [`Target::RetryOrSource`].
    pub target: Target,
    /// Whether to include dead letters that were replayed before. A stopped run then starts from
    /// the beginning the next time. Default: false.
    pub again: bool,
    /// Whether the replay will be executed. Planning then fails if another replay of a topic is
    /// running, and takes 3 s to find out if an earlier run has not ended. Default: false.
    pub execute: bool,
}

impl ReplaySettings {
    /// Sets [`filter`](Self::filter).
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Sets [`target`](Self::target).
    pub fn with_target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// Sets [`again`](Self::again).
    pub fn with_again(mut self, again: bool) -> Self {
        self.again = again;
        self
    }

    /// Sets [`execute`](Self::execute).
    pub fn with_execute(mut self, execute: bool) -> Self {
        self.execute = execute;
        self
    }
}

/// A planned replay. Nothing has been published. Call [`Replay::check`], then [`Replay::execute`].
#[must_use = "it publishes nothing until `execute`"]
pub struct Replay<'a> {
    cluster: &'a Cluster,
    admin: &'a Admin,
    plan: Plan,
    histories: Histories,
}

impl fmt::Debug for Replay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Replay");
        debug
            .field("routes", &self.routes(false))
            .finish_non_exhaustive()
    }
}

impl<'a> Replay<'a> {
    /// Plans the fate of every dead letter of `source`. Returns `None` if `stop` is cancelled
    /// first. A killed run is continued up to its original end offsets, with a notice to the
    /// observer.
    ///
    /// # Errors
    /// [`DeadLetterError::ReplayRuns`] if the replay is to be executed and another one is running.
    /// Also if a request to the cluster fails.
    pub async fn plan(
        cluster: &'a Cluster,
        admin: &'a Admin,
        mut source: Source,
        settings: ReplaySettings,
        stop: &CancellationToken,
        observer: &dyn Observer,
    ) -> Result<Option<Self>, DeadLetterError> {
        let names = admin.topics().await?;
        let selection = ReplaySelection {
            filter: settings.filter,
            target: settings.target,
            again: settings.again,
            partitions: admin.partition_counts(&names).await?,
        };
        let mut histories = read_histories(cluster, admin, &source, settings.execute).await?;
        if !selection.again {
            resume(&mut source, &histories, observer);
        }
        let plan = Plan::read(cluster, source, selection, &mut histories, stop).await?;
        Ok(plan.map(|plan| Self {
            cluster,
            admin,
            plan,
            histories,
        }))
    }

    /// The routes with their counts. `executed` is copied into each route.
    pub fn routes(&self, executed: bool) -> Vec<Route> {
        self.plan.routes(executed)
    }

    /// The number of dead letters to replay.
    pub fn to_replay(&self) -> u64 {
        self.plan.to_replay()
    }

    /// The number of dead letters that the filter admits, whether replayed before or not.
    pub fn admitted(&self) -> u64 {
        self.plan.admitted()
    }

    /// Checks whether the plan can be executed. A dry run may show the routes of a plan that
    /// cannot.
    ///
    /// # Errors
    /// [`DeadLetterError::NoDestination`], [`DeadLetterError::OwnDestination`], or
    /// [`DeadLetterError::Kafka`] if a destination does not exist.
    pub fn check(&self) -> Result<(), DeadLetterError> {
        self.plan.check()
    }

    /// Publishes the dead letters, each once, and records `by` as the operator. The observer is
    /// notified of each dead letter that is replayed, and of each failure. Creates the replay logs
    /// that are missing.
    ///
    /// It ends early after a hundred failures, after a fatal error of the producer, at a limit, or
    /// when `stop` is cancelled. It then waits for outstanding acknowledgements, up to the
    /// cluster's timeout. If the future is dropped instead, the next replay looks for what was
    /// published and not recorded, as after a kill.
    ///
    /// # Errors
    /// If the replay cannot start: the settings of the producer are invalid. A later error is in
    /// the outcome.
    pub async fn execute(
        &mut self,
        by: &str,
        limits: Limits,
        stop: &CancellationToken,
        observer: &dyn Observer,
    ) -> Result<ReplayOutcome, DeadLetterError> {
        let settings = PublisherSettings::new(EVENT_SOURCE);
        let publisher = Publisher::new(&self.cluster.for_single_records()?, settings.clone())?;
        let log = Publisher::new(&self.cluster.kafka, settings)?;
        let mut sender = Sender::new(publisher, by, stop.clone(), self.cluster, observer);
        sender.limit(limits);
        let executed = self.replay_topics(&log, &mut sender).await;
        Ok(sender.outcome(executed.err()))
    }

    /// Replays one topic after the other, each with a run of its own in its replay log.
    async fn replay_topics(
        &mut self,
        log: &Publisher,
        sender: &mut Sender<'_>,
    ) -> Result<(), DeadLetterError> {
        let selection = Arc::clone(&self.plan.selection);
        for (topic, history) in std::mem::take(&mut self.histories) {
            let Some(batch) = self.plan.batches.get_mut(&topic) else {
                continue;
            };
            if (batch.to_replay() == 0 && !history.is_unfinished) || sender.is_over() {
                continue;
            }
            let recorder =
                Recorder::begin(self.cluster, self.admin, log, batch, &history, sender.by())
                    .await?;
            let records = batch.read(self.cluster, sender.stop().clone());
            let sent = sender
                .send_all(records, &selection, &history.replays, &recorder, batch)
                .await;
            let is_clean = sent.as_ref().is_ok_and(|is_clean| *is_clean);
            recorder.end(is_clean, sender.stop().is_cancelled()).await?;
            sent?;
        }
        Ok(())
    }
}

/// Limits the topics of killed runs to the end offsets of those runs.
fn resume(source: &mut Source, histories: &Histories, observer: &dyn Observer) {
    let unfinished = histories.iter();
    for (topic, history) in unfinished.filter(|(_, history)| !history.until.is_empty()) {
        if let Some(dead_letters) = source.by_topic.get_mut(topic) {
            observer.notice(&format!(
                "an earlier replay of {topic} did not finish: this one continues it, and leaves \
                 dead letters that were written since then to the next replay"
            ));
            dead_letters.end_at(&history.until);
        }
    }
}

//! Commands to a group: checks a command against the cluster, publishes it, and collects the
//! answers of the members concerned.
//!
//! ```no_run
//! use evenkeel::control::{Action, Scope};
//! use evenkeel::kafka::admin::Admin;
//! use evenkeel_ops::groups::GroupError;
//! use evenkeel_ops::groups::control_command::{Request, publish_command};
//! use evenkeel_ops::{Cluster, SilentObserver};
//! use std::time::Duration;
//!
//! # async fn example(cluster: Cluster, admin: Admin) -> Result<(), GroupError> {
//! let pause = Action::Pause { scope: Scope::Group };
//! let why = "the payment provider has a maintenance window";
//! let request = Request::new("payments", "jane", why, pause).with_wait(Duration::from_secs(30));
//! let command = publish_command(&cluster, &admin, request, &SilentObserver).await?;
//! let answered = command.wait_for_answers().await?;
//! println!("{} answers: {:?}", answered.acks.len(), answered.summary);
//! # Ok(())
//! # }
//! ```
//!
//! A command is a record of the control topic. It is in force from its acknowledgement on, whether
//! members answer or not, and also for members that start later. So [`publish_command`] checks
//! everything that can be checked before it publishes, and a missing answer is no failure of the
//! command.
//!
//! The partitions that must answer are those that members own at the time of the command. During a
//! rebalance the owners are unknown; [`publish_command`] waits until they are known, up to the
//! request's wait.

use super::GroupError;
use super::control_log::{ControlLog, open_existing};
use super::lag::lag_of;
use super::members;
use super::scope::{Partitions, by_topic, in_words};
use crate::cluster::EVENT_SOURCE;
use crate::{Cluster, Observer, blocking};
use evenkeel::control::{
    Ack, Action, Command, CommandOutcome, ControlState, HISTORY_DAYS, Scope, control_topic,
};
use evenkeel::event::{Headers, OutgoingRecord};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::{Admin, GroupDescription};
use evenkeel::publisher::{Publisher, PublisherSettings};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

/// How long one poll for an answer takes.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// Maximum number of old commands that are deleted with a new one, so that giving a command remains
/// fast.
const DELETED_COMMANDS_MAX: usize = 1000;

/// Topic and partition.
type Partition = (String, i32);

/// A command for a group.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use = "pass it to `publish_command`"]
pub struct Request<'a> {
    /// Name of the group. It must have a control topic, which its members create.
    pub group: &'a str,
    /// The operator who gives the command. Not checked against the user of the connection.
    pub by: &'a str,
    /// The reason. Members log it and the history keeps it.
    pub why: &'a str,
    /// The action. [`Action::scope`] limits it to a topic, a partition, a key or a record.
    pub action: Action,
    /// Bounds the wait for the end of a rebalance, and then once more the wait for answers. Default
    /// 10 s. At the first bound the command is given to the owners that are known; at the second
    /// one the summary is [`AnswerSummary::Unanswered`], and the command stays in force.
    pub wait: Duration,
}

impl<'a> Request<'a> {
    /// Creates a command that is waited for 10 s.
    pub fn new(group: &'a str, by: &'a str, why: &'a str, action: Action) -> Self {
        Self {
            group,
            by,
            why,
            action,
            wait: Duration::from_secs(10),
        }
    }

    /// Sets [`wait`](Self::wait).
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// A command that was published. It is in force, also if this value is dropped.
pub struct PublishedCommand {
    command: Command,
    /// The partitions whose owners must answer.
    owners: BTreeSet<Partition>,
    log: ControlLog,
    description: Option<GroupDescription>,
    wait: Duration,
}

/// The answers to a command.
#[derive(Debug)]
#[non_exhaustive]
pub struct CommandAnswers {
    /// The answers in order of arrival.
    pub acks: Vec<Ack>,
    /// The summary of the answers.
    pub summary: AnswerSummary,
}

/// The summary of the answers to a command.
///
/// Exhaustive on purpose: a program has to say something about each way in which a command may have
/// ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerSummary {
    /// Every owner gave its final answer, and none refused.
    Answered,
    /// A member refused the command. Its answer contains the reason. Correct the command and give
    /// it again.
    Refused,
    /// A member will execute the command later, for example when a paused partition is resumed. The
    /// history will contain its final answer.
    Pending,
    /// Some owners did not answer in time: they hang, are busy with a rebalance, or cannot read the
    /// control topic. The command remains in force, and the history will contain later answers. Do
    /// not give it again.
    Unanswered {
        /// Those members, with their processes.
        members: Vec<String>,
        /// Their partitions.
        partitions: Vec<Partitions>,
    },
}

/// Publishes a command after the group's members know their partitions. Also deletes commands that
/// are older than the history, up to a thousand.
///
/// Not cancel-safe: if the future is dropped while it publishes, the command may be in force.
///
/// # Errors
/// [`GroupError`] if the command does not apply to this cluster, the group has no control topic, or
/// the command cannot be written. Nothing is in force then, except after [`GroupError::Publish`]
/// with a [`PublishError::Unknown`](evenkeel::publisher::PublishError::Unknown): read the history
/// before giving it again.
pub async fn publish_command(
    cluster: &Cluster,
    admin: &Admin,
    request: Request<'_>,
    observer: &dyn Observer,
) -> Result<PublishedCommand, GroupError> {
    let Request {
        group,
        by,
        why,
        action,
        wait,
    } = request;
    let log = open_existing(cluster, admin, group).await?;
    let description = wait_for_assignment(admin, group, wait).await?;
    check(admin, group, description.as_ref(), &action, &log, observer).await?;
    let owners = match &description {
        Some(description) => owned(admin, description, &action.scope(), observer).await?,
        None => BTreeSet::new(),
    };
    if owners.is_empty() {
        let group = group.to_owned();
        match action {
            Action::RetryNow { .. } | Action::Drop { .. } => {
                return Err(GroupError::NothingWaits { group });
            }
            Action::AcceptLoss { .. } => return Err(GroupError::NobodyToAccept { group }),
            _ => {}
        }
    }
    let command = Command::new(by, why, action)?;
    publish(cluster, group, &command, &log).await?;
    Ok(PublishedCommand {
        command,
        owners,
        log,
        description,
        wait,
    })
}

impl fmt::Debug for PublishedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("PublishedCommand");
        debug
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

impl PublishedCommand {
    /// The published command.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// Whether no member runs what the command concerns. It is in force for members that start
    /// later.
    pub fn is_unowned(&self) -> bool {
        self.owners.is_empty()
    }

    /// Waits until every owner has answered, or until the request's wait has passed. If the future
    /// is dropped, the command stays in force, and answers remain in the history.
    ///
    /// # Errors
    /// If a request to the cluster fails. The command is in force nevertheless.
    pub async fn wait_for_answers(mut self) -> Result<CommandAnswers, GroupError> {
        let waiting = move || {
            let deadline = Instant::now() + self.wait;
            while !self.is_answered() && Instant::now() < deadline {
                self.log.next(POLL_TIMEOUT)?;
            }
            let acks: Vec<Ack> = self
                .log
                .history
                .acks_of(&self.command.id)
                .cloned()
                .collect();
            let summary = self.summary(&acks);
            Ok(CommandAnswers { acks, summary })
        };
        blocking::run(waiting).await
    }

    /// Whether there is no answer left to wait for.
    fn is_answered(&self) -> bool {
        let acks: Vec<&Ack> = self.log.history.acks_of(&self.command.id).collect();
        let is_paused =
            |(topic, partition): &Partition| self.log.state.pause_of(topic, *partition).is_some();
        // A record of a paused partition is skipped after the partition is resumed, which may take
        // days.
        let waits_for_resume = !acks.is_empty()
            && matches!(self.command.action, Action::Skip { .. })
            && self.owners.iter().all(is_paused);
        waits_for_resume || self.unanswered(acks).is_empty()
    }

    /// The partitions whose owners have not given a final answer.
    fn unanswered<'a>(&self, acks: impl IntoIterator<Item = &'a Ack>) -> BTreeSet<Partition> {
        let mut unanswered = self.owners.clone();
        for ack in acks.into_iter().filter(|ack| ack.outcome.is_final()) {
            for scope in &ack.partitions {
                if let Scope::Partition { topic, partition } = scope {
                    unanswered.remove(&(topic.clone(), *partition));
                }
            }
        }
        unanswered
    }

    /// A refusal outweighs missing answers. So does a pending answer, which shows that the member
    /// has the command.
    fn summary(&self, acks: &[Ack]) -> AnswerSummary {
        if acks
            .iter()
            .any(|ack| ack.outcome == CommandOutcome::Refused)
        {
            return AnswerSummary::Refused;
        }
        let unanswered = self.unanswered(acks);
        if unanswered.is_empty() {
            return AnswerSummary::Answered;
        }
        if acks
            .iter()
            .any(|ack| ack.outcome == CommandOutcome::Pending)
        {
            return AnswerSummary::Pending;
        }
        let description = self.description.as_ref();
        let (members, partitions) = owners_of(&unanswered, description, &self.log.state);
        AnswerSummary::Unanswered {
            members,
            partitions,
        }
    }
}

/// The group after its members know their partitions. During a rebalance the brokers do not tell
/// the owners. Between the two phases of a cooperative rebalance, moving partitions have no owner.
async fn wait_for_assignment(
    admin: &Admin,
    group: &str,
    wait: Duration,
) -> Result<Option<GroupDescription>, KafkaError> {
    let deadline = Instant::now() + wait;
    loop {
        let Some(description) = admin.describe_group(group).await? else {
            return Ok(None);
        };
        let is_moving = is_rebalancing(&description.state)
            || !has_owner_for_each_partition(admin, &description).await?;
        if !is_moving || Instant::now() >= deadline {
            return Ok(Some(description));
        }
        tokio::time::sleep(POLL_TIMEOUT).await;
    }
}

/// Whether the group is rebalancing, in the classic protocol or in KIP-848.
fn is_rebalancing(state: &str) -> bool {
    state.ends_with("Rebalance")
        || state.ends_with("Rebalancing")
        || ["Assigning", "Reconciling"].contains(&state)
}

/// Whether every partition of the assigned topics has an owner.
async fn has_owner_for_each_partition(
    admin: &Admin,
    group: &GroupDescription,
) -> Result<bool, KafkaError> {
    let mut owned: BTreeMap<String, usize> = BTreeMap::new();
    for (topic, partitions) in group.members.iter().flat_map(|member| &member.assignment) {
        *owned.entry(topic.clone()).or_default() += partitions.len();
    }
    let topics: Vec<String> = owned.keys().cloned().collect();
    if topics.is_empty() {
        return Ok(true);
    }
    let counts = admin.partition_counts(&topics).await?;
    Ok(owned
        .iter()
        .all(|(topic, owned)| counts.get(topic).is_none_or(|count| owned >= count)))
}

/// The members that own these partitions, with their processes, and the partitions.
fn owners_of(
    unanswered: &BTreeSet<Partition>,
    description: Option<&GroupDescription>,
    control: &ControlState,
) -> (Vec<String>, Vec<Partitions>) {
    let members = description.iter().flat_map(|group| &group.members);
    let owners: Vec<String> = members
        .filter(|member| {
            member.assignment.iter().any(|(topic, partitions)| {
                let mut partitions = partitions.iter();
                partitions.any(|number| unanswered.contains(&(topic.clone(), *number)))
            })
        })
        .map(|member| members::name(control, &member.member_id))
        .collect();
    let unanswered = unanswered
        .iter()
        .map(|(topic, partition)| Scope::Partition {
            topic: topic.clone(),
            partition: *partition,
        });
    let unanswered: Vec<Scope> = unanswered.collect();
    (owners, by_topic(&unanswered))
}

/// Rejects a command that does not apply to this cluster: a mistyped name must not look like a
/// command in force.
async fn check(
    admin: &Admin,
    group: &str,
    description: Option<&GroupDescription>,
    action: &Action,
    log: &ControlLog,
    observer: &dyn Observer,
) -> Result<(), GroupError> {
    let scope = action.scope();
    if matches!(action, Action::Resume { .. }) && log.state.paused().all(|(at, _)| *at != scope) {
        let paused: Vec<String> = log.state.paused().map(|(at, _)| in_words(at)).collect();
        let paused = match paused.is_empty() {
            true => "nothing is paused".to_owned(),
            false => format!("paused is {}", paused.join(", ")),
        };
        return Err(GroupError::NotPaused {
            scope: in_words(&scope),
            group: group.to_owned(),
            paused,
        });
    }
    let Some(topic) = scope.topic() else {
        return Ok(());
    };
    if let Some(description) = description {
        let read: BTreeSet<String> = partitions_read(admin, description, observer)
            .await?
            .into_iter()
            .map(|(topic, _)| topic)
            .collect();
        if !read.is_empty() && !read.contains(topic) {
            let read: Vec<String> = read.into_iter().collect();
            return Err(GroupError::TopicNotRead {
                group: group.to_owned(),
                topic: topic.to_owned(),
                read,
            });
        }
    }
    let partition = match &scope {
        Scope::Partition { partition, .. } => *partition,
        Scope::Record(record) => record.partition,
        _ => return Ok(()),
    };
    let described = admin.describe_topic(topic).await?;
    let mut partitions = described.partitions.iter();
    let Some(found) = partitions.find(|found| found.partition == partition) else {
        return Err(GroupError::NoPartition {
            topic: topic.to_owned(),
            partition,
            count: described.partitions.len(),
        });
    };
    if let Scope::Record(record) = &scope
        && record.offset >= found.high
    {
        return Err(GroupError::NoRecord {
            record: record.clone(),
            next: found.high,
        });
    }
    Ok(())
}

/// The partitions of `scope` that members own.
async fn owned(
    admin: &Admin,
    group: &GroupDescription,
    scope: &Scope,
    observer: &dyn Observer,
) -> Result<BTreeSet<Partition>, KafkaError> {
    let is_idle = matches!(group.state.as_str(), "Empty" | "Dead");
    let read = match is_idle {
        true => BTreeSet::new(),
        false => partitions_read(admin, group, observer).await?,
    };
    let of_scope = |(topic, partition): &Partition| scope.may_affect(topic, *partition);
    Ok(read.into_iter().filter(of_scope).collect())
}

/// The partitions that the group's members are assigned. If the brokers do not list them, those to
/// which the group has committed.
async fn partitions_read(
    admin: &Admin,
    group: &GroupDescription,
    observer: &dyn Observer,
) -> Result<BTreeSet<Partition>, KafkaError> {
    let mut read = BTreeSet::new();
    for member in &group.members {
        for (topic, partitions) in &member.assignment {
            read.extend(partitions.iter().map(|number| (topic.clone(), *number)));
        }
    }
    if read.is_empty() {
        let lag = lag_of(admin, group, &[], observer).await?.into_iter();
        read.extend(lag.map(|at| (at.topic, at.partition)));
    }
    Ok(read)
}

/// Publishes the command, and deletes commands that are too old to be listed.
async fn publish(
    cluster: &Cluster,
    group: &str,
    command: &Command,
    log: &ControlLog,
) -> Result<(), GroupError> {
    let publisher = Publisher::new(&cluster.kafka, PublisherSettings::new(EVENT_SOURCE))?;
    let record = |key: String, value: Option<Vec<u8>>| OutgoingRecord {
        topic: control_topic(group),
        partition: Some(0),
        key: Some(key.into()),
        value: value.map(Into::into),
        headers: Headers::new(),
        timestamp_ms: None,
    };
    publisher
        .publish_record(record(command.key(), Some(command.value()?)))
        .await
        .map_err(GroupError::Publish)?;
    let before = Timestamp::now() - SignedDuration::from_hours(24 * HISTORY_DAYS);
    let outdated = log
        .history
        .outdated(before)
        .into_iter()
        .take(DELETED_COMMANDS_MAX);
    for key in outdated {
        // A failed deletion is repeated with the next command.
        let _ = publisher.enqueue_record(record(key, None)).await;
    }
    let _ = publisher.flush(cluster.timeout).await;
    Ok(())
}

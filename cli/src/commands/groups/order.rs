//! How a command is given: checked against the cluster, published, and waited for until those have answered whom it concerns.

use super::history::{answer, no_topic};
use super::lag_of;
use super::log::ControlLog;
use super::target::in_words;
use crate::connection::{ConnectionArgs, parse_duration};
use crate::exit::{Ending, NoAnswer, Usage};
use crate::output::{Listing, OutputArgs, Row};
use crate::user;
use clap::Args;
use evenkeel::control::{Ack, Action, Command, HISTORY_DAYS, Outcome, Scope, control_topic};
use evenkeel::event::{Headers, OutgoingRecord};
use evenkeel::kafka::admin::{Admin, GroupDescription};
use evenkeel::publisher::{Publisher, PublisherSettings};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long one look for an answer takes.
const TURN: Duration = Duration::from_millis(100);
/// What is forgotten of old commands at a time: who gives a command does not wait long for it.
const FORGET_MAX: usize = 1000;

/// Who gives a command and why, and how its answers are shown.
#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    /// Why; the members log it and the history keeps it.
    #[arg(long, value_name = "TEXT")]
    why: String,

    /// Who gives the command; the user's name when left out.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,

    /// How long to wait for the members' answers.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    wait: Duration,

    #[command(flatten)]
    output: OutputArgs,
}

impl OrderArgs {
    /// Refuses what no member would accept.
    pub(crate) fn check(&self, action: Action) -> Result<(), Usage> {
        self.command(action).map(drop)
    }

    fn command(&self, action: Action) -> Result<Command, Usage> {
        let by = self.by.clone().unwrap_or_else(user::name);
        Command::new(&by, &self.why, action).map_err(|error| Usage(error.to_string()))
    }
}

/// What a member answered.
#[derive(Serialize)]
struct Answered {
    #[serde(flatten)]
    ack: Ack,
}

impl Row for Answered {
    const COLUMNS: &'static [&'static str] = &["outcome", "partitions", "member", "detail"];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![answer(&self.ack).to_vec()]
    }
}

/// Gives the command, and shows what came of it.
pub(crate) async fn give(
    connection: &ConnectionArgs,
    group: &str,
    args: OrderArgs,
    action: Action,
) -> anyhow::Result<Ending> {
    let admin = connection.admin().await?;
    let Some(log) = ControlLog::open(connection, &admin, group).await? else {
        return Err(no_topic(group));
    };
    let description = settled(&admin, group, args.wait).await?;
    check(&admin, group, description.as_ref(), &action, &log).await?;
    let owners = match &description {
        Some(description) => owned(&admin, description, &action.scope()).await?,
        None => BTreeSet::new(),
    };
    if owners.is_empty() {
        match action {
            Action::RetryNow { .. } | Action::Drop { .. } => {
                anyhow::bail!("no member of {group} runs that: nothing waits there");
            }
            Action::AcceptLoss { .. } => anyhow::bail!(
                "no member of {group} runs that: start it, what is lost is told by its members"
            ),
            _ => {}
        }
    }
    let command = args.command(action)?;
    publish(connection, group, &command, &log).await?;
    anstream::eprintln!("evenkeel: command {} is given", command.id);
    if owners.is_empty() {
        let when = match command.action {
            Action::Skip { .. } => "the record is skipped when a member comes to it",
            _ => "it holds for the members that start",
        };
        anstream::eprintln!("evenkeel: no member of {group} runs: {when}");
        return Ok(Ending::Done);
    }
    let order = Order { command, owners };
    let (order, log) = wait_for_answers(order, log, args.wait).await?;
    let acks: Vec<Ack> = log.history.acks_of(&order.command.id).cloned().collect();
    let rows = acks.iter().cloned().map(|ack| Answered { ack });
    Listing::print(args.output.output, rows)?;
    order.judge(&acks, group, args.wait)
}

/// The group as it is once its members know what is theirs. In the middle of a rebalance the brokers do not tell who owns what,
/// and between the two of a cooperative one nobody owns what moves.
async fn settled(
    admin: &Admin,
    group: &str,
    wait: Duration,
) -> anyhow::Result<Option<GroupDescription>> {
    let deadline = Instant::now() + wait;
    loop {
        let Some(description) = admin.describe_group(group).await? else {
            return Ok(None);
        };
        let is_moving = is_between(&description.state) || !is_whole(admin, &description).await?;
        if !is_moving || Instant::now() >= deadline {
            return Ok(Some(description));
        }
        tokio::time::sleep(TURN).await;
    }
}

/// Whether the group is in the midst of a rebalance, by the classic protocol or by KIP-848.
fn is_between(state: &str) -> bool {
    state.ends_with("Rebalance")
        || state.ends_with("Rebalancing")
        || ["Assigning", "Reconciling"].contains(&state)
}

/// Whether every partition of the topics that members are assigned is one of a member.
async fn is_whole(admin: &Admin, group: &GroupDescription) -> anyhow::Result<bool> {
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

/// A command that was given, and the partitions whose owners are to answer.
struct Order {
    command: Command,
    owners: BTreeSet<Partition>,
}

type Partition = (String, i32);

async fn wait_for_answers(
    order: Order,
    mut log: ControlLog,
    wait: Duration,
) -> anyhow::Result<(Order, ControlLog)> {
    let waiting = move || {
        let deadline = Instant::now() + wait;
        while !order.is_answered(&log) && Instant::now() < deadline {
            log.next(TURN)?;
        }
        Ok((order, log))
    };
    tokio::task::spawn_blocking(waiting).await?
}

impl Order {
    /// Whether nothing is to be waited for any more.
    fn is_answered(&self, log: &ControlLog) -> bool {
        let acks: Vec<&Ack> = log.history.acks_of(&self.command.id).collect();
        let is_paused =
            |(topic, partition): &Partition| log.state.pause_of(topic, *partition).is_some();
        // A record of a paused partition is skipped when that goes on, which may be tomorrow.
        let waits_for_resume = !acks.is_empty()
            && matches!(self.command.action, Action::Skip { .. })
            && self.owners.iter().all(is_paused);
        waits_for_resume || self.silent(acks).is_empty()
    }

    /// The partitions whose owners have not said their last word.
    fn silent<'a>(&self, acks: impl IntoIterator<Item = &'a Ack>) -> BTreeSet<Partition> {
        let mut silent = self.owners.clone();
        for ack in acks.into_iter().filter(|ack| ack.outcome.is_final()) {
            for scope in &ack.partitions {
                if let Scope::Partition { topic, partition } = scope {
                    silent.remove(&(topic.clone(), *partition));
                }
            }
        }
        silent
    }

    fn judge(&self, acks: &[Ack], group: &str, wait: Duration) -> anyhow::Result<Ending> {
        if acks.iter().any(|ack| ack.outcome == Outcome::Refused) {
            return Ok(Ending::SomeFailed);
        }
        let silent = self.silent(acks);
        if silent.is_empty() {
            return Ok(Ending::Done);
        }
        if acks.iter().any(|ack| ack.outcome == Outcome::Pending) {
            anstream::eprintln!(
                "evenkeel: what becomes of it is in: evenkeel groups history {group}"
            );
            return Ok(Ending::Done);
        }
        let silent: Vec<String> = silent
            .iter()
            .map(|(topic, partition)| format!("{topic}/{partition}"))
            .collect();
        Err(NoAnswer(format!(
            "no answer for {} within {:#}: their owners run without live control, cannot read {}, or are busy with a \
             rebalance; the command stays given, and later answers are in: evenkeel groups history {group}",
            silent.join(", "),
            SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX),
            control_topic(group),
        ))
        .into())
    }
}

/// Refuses what cannot mean anything on this cluster: a mistyped name must not look like a command that holds.
async fn check(
    admin: &Admin,
    group: &str,
    description: Option<&GroupDescription>,
    action: &Action,
    log: &ControlLog,
) -> anyhow::Result<()> {
    let scope = action.scope();
    if matches!(action, Action::Resume { .. }) && log.state.paused().all(|(at, _)| *at != scope) {
        let paused: Vec<String> = log.state.paused().map(|(at, _)| in_words(at)).collect();
        let paused = match paused.is_empty() {
            true => "nothing is paused".to_owned(),
            false => format!("paused is {}", paused.join(", ")),
        };
        anyhow::bail!("{} of {group} is not paused: {paused}", in_words(&scope));
    }
    let Some(topic) = scope.topic() else {
        return Ok(());
    };
    if let Some(description) = description {
        let read: BTreeSet<String> = partitions_read(admin, description)
            .await?
            .into_iter()
            .map(|(topic, _)| topic)
            .collect();
        if !read.is_empty() && !read.contains(topic) {
            let read: Vec<String> = read.into_iter().collect();
            anyhow::bail!(
                "{group} does not read {topic}; it reads {}",
                read.join(", ")
            );
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
        anyhow::bail!(
            "{topic} has no partition {partition}, it has {}",
            described.partitions.len()
        );
    };
    if let Scope::Record(record) = &scope
        && record.offset >= found.high
    {
        anyhow::bail!(
            "there is no record {record}: the next one of {topic}/{partition} will be {}",
            found.high
        );
    }
    Ok(())
}

/// The partitions of `scope` that a member runs.
async fn owned(
    admin: &Admin,
    group: &GroupDescription,
    scope: &Scope,
) -> anyhow::Result<BTreeSet<Partition>> {
    let is_idle = matches!(group.state.as_str(), "Empty" | "Dead");
    let read = match is_idle {
        true => BTreeSet::new(),
        false => partitions_read(admin, group).await?,
    };
    let of_scope = |(topic, partition): &Partition| scope.touches(topic, *partition);
    Ok(read.into_iter().filter(of_scope).collect())
}

/// The partitions that the group's members are assigned, or, where the brokers do not tell that, those that it has committed.
async fn partitions_read(
    admin: &Admin,
    group: &GroupDescription,
) -> anyhow::Result<BTreeSet<Partition>> {
    let mut read = BTreeSet::new();
    for member in &group.members {
        for (topic, partitions) in &member.assignment {
            read.extend(partitions.iter().map(|number| (topic.clone(), *number)));
        }
    }
    if read.is_empty() {
        let lag = lag_of(admin, group, &[]).await?.into_iter();
        read.extend(lag.map(|at| (at.topic, at.partition)));
    }
    Ok(read)
}

/// Writes the command, and deletes what is too old to be listed.
async fn publish(
    connection: &ConnectionArgs,
    group: &str,
    command: &Command,
    log: &ControlLog,
) -> anyhow::Result<()> {
    let publisher = Publisher::new(
        &connection.kafka()?,
        PublisherSettings::new("/evenkeel/cli"),
    )?;
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
        .await?;
    let before = Timestamp::now() - SignedDuration::from_hours(24 * HISTORY_DAYS);
    let outdated = log.history.outdated(before).into_iter().take(FORGET_MAX);
    for key in outdated {
        // What cannot be deleted now is deleted with the next command.
        let _ = publisher.enqueue_record(record(key, None)).await;
    }
    let _ = publisher.flush(connection.timeout()).await;
    Ok(())
}

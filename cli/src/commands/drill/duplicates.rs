//! `evenkeel drill duplicates`: what a group has settled is delivered to it once more, and it says how it took that.

use super::delivery::{Delivery, Limits};
use super::report::Tally;
use super::selection::{Asked, Selection, stream};
use crate::commands::consume::position::start;
use crate::commands::dlq::Cluster;
use crate::commands::parked::sources;
use crate::connection::{ConnectionArgs, parse_duration};
use crate::exit::{Ending, Usage};
use crate::output::{Listing, OutputArgs};
use crate::stop::Stop;
use crate::user;
use clap::Args;
use evenkeel::event::new_id;
use evenkeel::kafka::admin::GroupDescription;
use evenkeel::kafka::reader::Start;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::recovery::{DeadLetterTopic, Drill, retry_topic};
use jiff::Timestamp;
use std::time::Duration;

/// Deliver events to a group a second time, and find the handlers that are not idempotent; shows what it would do until
/// --execute is given.
///
/// Repeats what the group has settled, up to where it stands now: at a rate, with the events' ids, through the group's own retry
/// topics, so that no other group sees anything. A member answers for each whether it was known again. A handler that is
/// called again is not idempotent, unless the same effect twice is the same as once, and that only you know. Left out are what
/// waits in the retry topic, the keys that do, and dead letters.
///
/// The repetitions of a key are in order among themselves, but come after all that the key has had since: a handler without an inbox
/// that writes the newest state, as an upsert does, goes back to an older one, and stays there until the key's next event.
///
/// For groups that may bear it: what a handler does twice is done twice for good. A repetition of which a handler fails is treated as
/// any record: it becomes a dead letter, at once where the failure is permanent (a unique key that is there already), counts
/// for the flood guard, and holds its key where the group has AfterDeadLetter::HoldKey. After 10 that failed no more are delivered,
/// but those that are on their way by then may fail as well.
///
/// Needs members that run, and their retry topics. Nothing more is delivered while 80 repetitions are not answered for. What was
/// not answered for when it ends stays in the retry topic until the group handles it; called again, it begins anew.
///
/// Exits with 3 when a handler is not idempotent, 5 when not all repetitions were answered for, and 1 when nothing was judged.
#[derive(Debug, Args)]
pub(crate) struct DuplicatesArgs {
    /// The consumer group.
    #[arg(short, long)]
    group: String,

    /// Only what comes from these topics; all of the group's when left out.
    #[arg(short, long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,

    /// Where to start in each partition: beginning, an offset, -N (the last N that are committed) or @TIME.
    #[arg(
        long,
        value_name = "POSITION",
        default_value = "-100",
        allow_hyphen_values = true,
        value_parser = start
    )]
    from: Start,

    /// Where to stop: end, an offset, -N (all but the last N) or @TIME; never after what the group has committed.
    #[arg(
        long,
        value_name = "POSITION",
        default_value = "end",
        allow_hyphen_values = true,
        value_parser = start
    )]
    to: Start,

    /// Do it, instead of showing it.
    #[arg(long)]
    execute: bool,

    /// That the group is not one of production, nor what its handlers reach; --execute needs it.
    #[arg(long)]
    not_production: bool,

    /// Records a second at most.
    #[arg(long, value_name = "RECORDS", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,

    /// How long to wait for the group when it answers nothing any more.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    wait: Duration,

    /// Where the group's dead letters are, if not in dlq.GROUP.TOPIC.
    #[arg(long, value_name = "TOPIC")]
    dead_letter_topic: Option<String>,

    /// Who drills, as the repetitions say it; the user's name when left out.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,

    #[command(flatten)]
    output: OutputArgs,
}

impl DuplicatesArgs {
    /// Refuses to touch what may be production.
    pub(super) fn check(&self) -> Result<(), Usage> {
        match self.execute && !self.not_production {
            true => Err(Usage(format!(
                "--execute has the handlers of {} called again, and what they do twice is done twice for good: give --not-production, \
                 too, if neither the group nor what its handlers reach is production",
                self.group
            ))),
            false => Ok(()),
        }
    }
}

/// Shows what would be repeated, or repeats it and judges.
pub(super) async fn run(
    args: DuplicatesArgs,
    connection: ConnectionArgs,
    stop: Stop,
) -> anyhow::Result<Ending> {
    // Also the moment at which unreachable brokers are named.
    let admin = connection.admin().await?;
    let cluster = Cluster {
        kafka: connection.kafka()?,
        timeout: connection.timeout(),
    };
    let group = &args.group;
    let topics = sources(&admin, group, &args.topics).await?;
    let described = admin.describe_group(group).await?;
    if args.execute {
        check_runs(group, described.as_ref())?;
    }
    let topics = owned(group, described.as_ref(), topics)?;
    let asked = Asked {
        group: group.clone(),
        from: args.from,
        to: args.to,
        letters: match &args.dead_letter_topic {
            Some(topic) => DeadLetterTopic::One(topic.clone()),
            None => DeadLetterTopic::PerTopic,
        },
    };
    let mut selections = Vec::with_capacity(topics.len());
    for topic in &topics {
        selections.push(Selection::look(&cluster, &admin, &asked, topic, &stop).await?);
    }
    if !args.execute {
        return show(&args, &cluster, selections, stop).await;
    }
    let mut kafka = cluster.kafka.clone();
    // Brokers refuse a batch whole: an event that is too large must not take its neighbours with it.
    kafka.set("batch.num.messages=1")?;
    // What came from the topic has room there, whatever this client's own limit is.
    kafka.set("message.max.bytes=1000000000")?;
    let publisher = Publisher::new(&kafka, PublisherSettings::new("/evenkeel/cli"))?;
    let drill = Drill {
        id: new_id(),
        by: args.by.clone().unwrap_or_else(user::name),
        at: Timestamp::now(),
    };
    let limits = Limits {
        rate: args.rate,
        wait: args.wait,
        total: selections.iter().map(Selection::offsets).sum(),
    };
    anstream::eprintln!(
        "evenkeel: delivering to {group} at {} what it has settled of {}",
        cluster.kafka.brokers,
        topics.join(", ")
    );
    let begun = Delivery::begin(
        &cluster,
        group,
        &topics,
        drill,
        publisher,
        limits,
        stop.clone(),
    );
    let mut delivery = begun.await?;
    let found = stream(&cluster, selections, stop);
    let delivered = delivery.all(found).await;
    let (tally, stopped) = delivery.end();
    Listing::print(args.output.output, tally.rows(true))?;
    delivered?;
    say_left_out(&tally);
    say_unanswered(&tally, group);
    for named in &tally.named {
        anstream::eprintln!("evenkeel: {named}");
    }
    if let Some(signal) = stopped {
        anstream::eprintln!("evenkeel: stopped");
        return Ok(Ending::Stopped(signal));
    }
    let (ending, text) = tally.judge(group)?;
    anstream::eprintln!("evenkeel: {text}");
    Ok(ending)
}

/// Counts what would be repeated, and changes nothing.
async fn show(
    args: &DuplicatesArgs,
    cluster: &Cluster,
    selections: Vec<Selection>,
    stop: Stop,
) -> anyhow::Result<Ending> {
    let mut tally = Tally::default();
    let mut found = stream(cluster, selections, stop.clone());
    while let Some(found) = found.recv().await {
        let found = found?;
        tally.found(&found.record.topic, &found.ty, found.fate);
    }
    if let Some(signal) = stop.requested() {
        return Ok(Ending::Stopped(signal));
    }
    Listing::print(args.output.output, tally.rows(false))?;
    say_left_out(&tally);
    anstream::eprintln!(
        "evenkeel: {} events would be delivered to {} at {} again; nothing was changed, --execute --not-production does it",
        tally.events(),
        args.group,
        cluster.kafka.brokers
    );
    Ok(Ending::Done)
}

fn say_left_out(tally: &Tally) {
    if let (waits, died) = tally.left_out()
        && waits + died > 0
    {
        anstream::eprintln!(
            "evenkeel: left out are {waits} events that wait in the retry topic or whose keys do, and {died} dead letters"
        );
    }
}

fn say_unanswered(tally: &Tally, group: &str) {
    for topic in tally.unanswered_topics() {
        anstream::eprintln!(
            "evenkeel: what was not answered for stays in {}, and is handled when {group} goes on",
            retry_topic(group, topic)
        );
    }
}

/// A drill without members would only leave repetitions behind. Of a group whose partitions the brokers assign (KIP-848) they do not
/// tell who is in it: such a one is asked, and answers or not.
fn check_runs(group: &str, described: Option<&GroupDescription>) -> anyhow::Result<()> {
    let is_idle = described.is_some_and(|group| group.state == "Empty");
    anyhow::ensure!(
        !is_idle,
        "no member of {group} runs: start the service, the drill asks those who handle its events"
    );
    Ok(())
}

/// The topics that a member reads, where the brokers tell: nobody would handle the repetitions of another.
fn owned(
    group: &str,
    described: Option<&GroupDescription>,
    topics: Vec<String>,
) -> anyhow::Result<Vec<String>> {
    let members = described
        .filter(|group| group.state == "Stable")
        .map_or(&[][..], |group| &group.members);
    let is_told = members.iter().any(|member| !member.assignment.is_empty());
    let has_owner = |topic: &String| {
        let mut members = members.iter();
        !is_told || members.any(|member| member.assignment.contains_key(topic))
    };
    let (owned, left): (Vec<String>, Vec<String>) = topics.into_iter().partition(has_owner);
    for topic in &left {
        anstream::eprintln!("evenkeel: {topic} is left out: no member of {group} reads it");
    }
    anyhow::ensure!(
        !owned.is_empty(),
        "no member of {group} reads any of the topics"
    );
    Ok(owned)
}

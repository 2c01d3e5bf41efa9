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
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::Start;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::recovery::{DeadLetterTopic, Drill};
use jiff::Timestamp;
use std::time::Duration;

/// Deliver events to a group a second time, and find the handlers that are not idempotent; shows what it would do until
/// --execute is given.
///
/// Repeats what the group has settled, up to where it stands now: in order, at a rate, with the events' ids, through the group's own
/// retry topics, so that no other group sees anything. A member answers for each whether it was known again. A handler that
/// is called again is not idempotent, unless the same effect twice is the same as once, and that only you know. Left out are
/// keys that wait in the retry topic, and dead letters.
///
/// For groups that may bear it: what a handler does twice is done twice for good. Needs members that run, and their retry topics.
/// Stopped, it leaves nothing behind but repetitions that the group settles by itself; called again, it begins anew.
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

    /// Where to start in each partition: beginning, an offset, -N (the last N) or @TIME.
    #[arg(
        long,
        value_name = "POSITION",
        default_value = "-100",
        allow_hyphen_values = true,
        value_parser = start
    )]
    from: Start,

    /// Where to stop: end, an offset, -N or @TIME; never after what the group has committed.
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
    if args.execute {
        check_runs(&admin, group).await?;
    }
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
    for named in &tally.named {
        anstream::eprintln!("evenkeel: {named}");
    }
    if let Some(signal) = stopped {
        anstream::eprintln!("evenkeel: stopped; the group settles what was delivered by itself");
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
        "evenkeel: {} events would be delivered to {} again; nothing was changed, --execute --not-production does it",
        tally.events(),
        args.group
    );
    Ok(Ending::Done)
}

fn say_left_out(tally: &Tally) {
    if let (waits, died) = tally.left_out()
        && waits + died > 0
    {
        anstream::eprintln!(
            "evenkeel: left out are {waits} events of keys that wait in the retry topic, and {died} dead letters"
        );
    }
}

/// A drill without members would only leave repetitions behind. Of a group whose partitions the brokers assign (KIP-848) they do not
/// tell who is in it: such a one is asked, and answers or not.
async fn check_runs(admin: &Admin, group: &str) -> anyhow::Result<()> {
    let state = admin.describe_group(group).await?.map(|group| group.state);
    let is_idle = state.is_some_and(|state| state == "Empty");
    anyhow::ensure!(
        !is_idle,
        "no member of {group} runs: start the service, the drill asks those who handle its events"
    );
    Ok(())
}

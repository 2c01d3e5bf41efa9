//! `evenkeel drill duplicates`: delivers settled events to a group again, and reports its answers.

use crate::arguments::connection::ConnectionArgs;
use crate::arguments::group_args::GroupArg;
use crate::arguments::operator;
use crate::commands::consume::position::start;
use crate::output::observer::Stderr;
use crate::output::progress::Progress;
use crate::output::stderr::say;
use crate::output::{AfterDone, Column, Listing, OutputArgs, Row, name, number};
use clap::Args;
use evenkeel::kafka::reader::Start;
use evenkeel::recovery::{DeadLetterTopic, retry_topic};
use evenkeel_ops::Cluster;
use evenkeel_ops::drills::{DrillSettings, Duplicates, Judgement, Limits, Tally, TypeRow};
use evenkeel_program::duration::parse_duration_or_seconds;
use evenkeel_program::exit::{Ending, NoAnswer, Usage};
use evenkeel_program::stop::Stop;
use std::sync::Arc;
use std::time::Duration;

/// Deliver events to a group a second time, and find the handlers that are not idempotent; shows
/// what it would do until --execute is given.
///
/// Repeats what the group has settled, up to where it stands now: at a rate, with the events' ids,
/// through the group's own retry topics, so that no other group sees anything. A member answers for
/// each whether it was known again. A handler that is called again is not idempotent, unless the
/// same effect twice is the same as once, and that only you know. Left out are what waits in the
/// retry topic, the keys that do, and dead letters.
///
/// The repetitions of a key are in order among themselves, but come after all that the key has had
/// since: a handler without an inbox that writes the newest state, as an upsert does, goes back to
/// an older one, and stays there until the key's next event.
///
/// For groups that may bear it: what a handler does twice is done twice for good. A repetition of
/// which a handler fails is treated as any record: it becomes a dead letter, at once where the
/// failure is permanent (a unique key that is there already), counts for the flood guard, and holds
/// its key where the group has AfterDeadLetter::HoldKey. After 10 that failed no more are
/// delivered, but those that are on their way by then may fail as well.
///
/// Needs members that run, and their retry topics. Nothing more is delivered while 80 repetitions
/// are not answered for. What was not answered for when it ends stays in the retry topic until the
/// group handles it; called again, it begins anew.
///
/// Exits with 3 when a handler is not idempotent, 5 when not all repetitions were answered for, and
/// 1 when nothing was judged.
#[derive(Debug, Args)]
pub(crate) struct DuplicatesArgs {
    #[command(flatten)]
    group: GroupArg,

    /// Only what comes from these topics; all of the group's when left out.
    #[arg(short, long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,

    /// Where to start in each partition: beginning, an offset, -N (the last N that are committed)
    /// or a time: @TIME, -1h, 2026-05-01T12:00:00Z.
    #[arg(
        long,
        value_name = "POSITION",
        default_value = "-100",
        allow_hyphen_values = true,
        value_parser = start
    )]
    from: Start,

    /// Where to stop: end, an offset, -N (all but the last N) or a time; never after what the group
    /// has committed.
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
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration_or_seconds)]
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
    /// Requires the confirmation that the group is not in production.
    pub(super) fn check(&self) -> Result<(), Usage> {
        match self.execute && !self.not_production {
            true => Err(Usage(format!(
                "--execute has the handlers of {} called again, and what they do twice is done twice for good: give --not-production, \
                 too, if neither the group nor what its handlers reach is production",
                self.group.name()
            ))),
            false => Ok(()),
        }
    }
}

/// Prints the plan, or repeats the events and prints the verdict.
pub(super) async fn run(
    args: DuplicatesArgs,
    connection: ConnectionArgs,
    stop: Stop,
) -> anyhow::Result<Ending> {
    // Connecting also reports unreachable brokers.
    let admin = match args.execute {
        true => connection.admin_to_change().await?,
        false => connection.admin().await?,
    };
    let cluster = connection.cluster()?;
    let dead_letter_topic = match &args.dead_letter_topic {
        Some(topic) => DeadLetterTopic::One(topic.clone()),
        None => DeadLetterTopic::PerTopic,
    };
    let settings = DrillSettings::new(args.group.name())
        .with_from(args.from)
        .with_to(args.to)
        .with_dead_letter_topic(dead_letter_topic);
    let planned = Duplicates::plan(
        &cluster,
        &admin,
        &settings,
        &args.topics,
        args.execute,
        stop.token(),
        Arc::new(Stderr),
    );
    let drill = planned.await?;
    match args.execute {
        true => execute(&args, &connection, &cluster, drill, &stop).await,
        false => show(&args, &cluster, drill, &stop).await,
    }
}

/// Repeats the events, and computes the verdict from the group's answers.
async fn execute(
    args: &DuplicatesArgs,
    connection: &ConnectionArgs,
    cluster: &Cluster,
    drill: Duplicates<'_>,
    stop: &Stop,
) -> anyhow::Result<Ending> {
    let group = args.group.name();
    let by = operator::name(args.by.as_deref(), connection)?;
    let limits = Limits::default().with_rate(args.rate).with_wait(args.wait);
    say!(
        "delivering to {group} at {} what it has settled of {}",
        cluster.kafka.brokers,
        drill.topics().join(", ")
    );
    let progress = Progress::start(drill.offsets(), "repetitions answered for");
    let outcome = drill.execute(by, limits, stop.token(), &progress).await?;
    drop(progress);
    let tally = outcome.tally;
    Listing::print(args.output, tally.rows(true))
        .after_done(|| format!("{} events were delivered again", tally.events()))?;
    if let Some(error) = outcome.error {
        return Err(error.into());
    }
    say_left_out(&tally);
    say_unanswered(&tally, group);
    for named in tally.named() {
        say!("{named}");
    }
    if outcome.is_stopped {
        say!("stopped");
        return Ok(stop.ending());
    }
    let (judgement, text) = tally.judge(group);
    let ending = match judgement {
        Judgement::Idempotent => Ending::Done,
        Judgement::NotIdempotent => Ending::FoundBad,
        Judgement::Unproven => Ending::SomeFailed,
        Judgement::Unanswered => return Err(NoAnswer(text).into()),
    };
    say!("{text}");
    Ok(ending)
}

/// Counts the events that would be repeated. Changes nothing.
async fn show(
    args: &DuplicatesArgs,
    cluster: &Cluster,
    drill: Duplicates<'_>,
    stop: &Stop,
) -> anyhow::Result<Ending> {
    let Some(tally) = drill.count(stop.token()).await? else {
        return Ok(stop.ending());
    };
    Listing::print(args.output, tally.rows(false))?;
    say_left_out(&tally);
    say!(
        "{} events would be delivered to {} at {} again; nothing was changed, --execute --not-production does it",
        tally.events(),
        args.group.name(),
        cluster.kafka.brokers
    );
    Ok(Ending::Done)
}

fn say_left_out(tally: &Tally) {
    if let (waits, died) = tally.left_out()
        && waits + died > 0
    {
        say!(
            "left out are {waits} events that wait in the retry topic or whose keys do, and {died} dead letters"
        );
    }
}

fn say_unanswered(tally: &Tally, group: &str) {
    for topic in tally.unanswered_topics() {
        say!(
            "what was not answered for stays in {}, and is handled when {group} goes on",
            retry_topic(group, topic)
        );
    }
}

impl Row for TypeRow {
    const COLUMNS: &'static [Column] = &[
        name("topic"),
        name("type"),
        number("events"),
        number("recognised"),
        number("handled-again"),
        number("failed"),
        number("ignored"),
        number("unanswered"),
        number("key-waits"),
        number("dead-letters"),
        name("verdict"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let mut cells = vec![self.topic.clone(), self.ty.clone()];
        let counts = [
            self.events,
            self.recognised,
            self.handled_again,
            self.failed,
            self.ignored,
            self.unanswered,
            self.key_waits,
            self.dead_letters,
        ];
        cells.extend(counts.iter().map(u64::to_string));
        cells.push(self.verdict.in_words().to_owned());
        vec![cells]
    }
}

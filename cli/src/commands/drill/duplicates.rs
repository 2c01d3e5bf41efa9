//! `evenkeel drill duplicates`: delivers settled events to a group again, and reports its answers.
//!
//! The drill itself is in `evenkeel_ops::drills`. This file owns the arguments, the table and the
//! exit code. An interrupted drill still prints the answers that it has.

use crate::arguments::connection::ConnectionArgs;
use crate::arguments::group_args::GroupArg;
use crate::arguments::operator;
use crate::commands::events::consume::position::start;
use crate::output::observer::Stderr;
use crate::output::progress::Progress;
use crate::output::stderr::say;
use crate::output::{AfterDone, Column, Listing, OutputArgs, Row, name, number};
use clap::Args;
use evenkeel::kafka::reader::Start;
use evenkeel::recovery::{DeadLetterTopic, retry_topic};
use evenkeel_ops::Cluster;
use evenkeel_ops::drills::{DrillResult, DrillSettings, Duplicates, Limits, Tally, TypeRow};
use evenkeel_program::duration::parse_duration_or_seconds;
use evenkeel_program::exit::{Ending, NoAnswer, Usage};
use evenkeel_program::stop::Stop;
use std::sync::Arc;
use std::time::Duration;

/// Find handlers that are not idempotent, by delivering settled events a second time; shows the
/// plan until --execute is given.
///
/// Delivers again what the group has settled, up to its committed offsets: at a limited rate, with
/// the same event ids, through the group's own retry topics, so that no other group sees it. The
/// members answer for each repetition whether they recognised the event. A handler that is called
/// again is not idempotent, unless making its effect twice is the same as making it once; the tool
/// cannot know that. Records in the retry topic, all records of waiting keys, and dead letters are
/// left out.
///
/// The repetitions of a key are in order among themselves, but come after all newer records of the
/// key. A handler without an inbox that writes the newest state, such as an upsert, writes an older
/// state, which stays until the key's next event.
///
/// Not for production: non-idempotent effects are really duplicated. A repetition whose handler
/// fails is treated like any record. It becomes a dead letter, at once if the failure is permanent
/// (such as a violated unique key), counts for the flood guard, and holds its key in a group with
/// AfterDeadLetter::HoldKey. After 10 failures no more are delivered; repetitions that are already
/// delivered may still fail.
///
/// Needs running members and their retry topics. At most 80 repetitions are unanswered at a time.
/// Repetitions that are unanswered at the end stay in the retry topic until the group handles them.
/// A second run starts from the beginning.
///
/// Exit codes: 0 every handler is idempotent; 1 nothing was judged; 3 a handler is not idempotent;
/// 5 not all repetitions were answered.
#[derive(Debug, Args)]
pub(crate) struct DuplicatesArgs {
    #[command(flatten)]
    group: GroupArg,

    /// Only records of this source topic; may be repeated [default: all of the group's].
    #[arg(short, long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,

    /// First record of each partition: beginning, an offset, -N (the last N that are committed) or
    /// a time: @TIME, -1h, 2026-05-01T12:00:00Z.
    #[arg(
        long,
        value_name = "POSITION",
        default_value = "-100",
        allow_hyphen_values = true,
        value_parser = start
    )]
    from: Start,

    /// Record before which to stop: end, an offset, -N (all but the last N) or a time; never above
    /// the committed offset.
    #[arg(
        long,
        value_name = "POSITION",
        default_value = "end",
        allow_hyphen_values = true,
        value_parser = start
    )]
    to: Start,

    /// Deliver the events again. Without this flag, nothing is changed.
    #[arg(long)]
    execute: bool,

    /// Confirm that neither the group nor the systems its handlers call are in production; required
    /// by --execute.
    #[arg(long)]
    not_production: bool,

    /// Maximum number of records per second.
    #[arg(
        long,
        value_name = "RECORDS",
        default_value = "100",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    rate: u32,

    /// How long to wait for the next answer before the drill ends; a bare number is seconds.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30s",
        value_parser = parse_duration_or_seconds
    )]
    wait: Duration,

    /// The group's dead-letter topic [default: dlq.GROUP.TOPIC for each source].
    #[arg(long, value_name = "TOPIC")]
    dead_letter_topic: Option<String>,

    /// The operator, for the headers of the repetitions [default: the SASL user, else the user's
    /// name on this machine].
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
                "--execute calls the handlers of {} again, and non-idempotent effects are really \
                 duplicated: add --not-production if neither the group nor the systems its \
                 handlers call are in production",
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
        "delivering settled records of {} to {group} at {} again",
        drill.topics().join(", "),
        cluster.kafka.brokers
    );
    let progress = Progress::start(drill.offsets(), "repetitions answered");
    let outcome = drill.execute(by, limits, stop.token(), &progress).await?;
    drop(progress);
    let tally = outcome.tally;
    Listing::print(args.output, tally.rows(true))
        .after_done(|| format!("{} events were delivered again", tally.events()))?;
    if let Some(error) = outcome.error {
        return Err(error.into());
    }
    print_excluded(&tally);
    print_unanswered(&tally, group);
    for event in tally.handled_again() {
        say!("{event}");
    }
    if outcome.is_stopped {
        say!("stopped");
        return Ok(stop.ending());
    }
    let (result, text) = tally.result(group);
    let ending = match result {
        DrillResult::Idempotent => Ending::Done,
        DrillResult::NotIdempotent => Ending::FoundBad,
        DrillResult::Unproven => Ending::SomeFailed,
        DrillResult::Unanswered => return Err(NoAnswer(text).into()),
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
    print_excluded(&tally);
    say!(
        "{} events would be delivered to {} at {} again; nothing was changed; deliver them with \
         --execute --not-production",
        tally.events(),
        args.group.name(),
        cluster.kafka.brokers
    );
    Ok(Ending::Done)
}

/// Names the numbers of events that the drill did not repeat, if there are any.
fn print_excluded(tally: &Tally) {
    if let (waits, died) = tally.excluded()
        && waits + died > 0
    {
        say!(
            "left out: {waits} events of waiting keys or in the retry topic, and {died} dead \
             letters"
        );
    }
}

/// Names the retry topics that still hold repetitions.
fn print_unanswered(tally: &Tally, group: &str) {
    for topic in tally.unanswered_topics() {
        say!(
            "unanswered repetitions stay in {}, and are handled when {group} continues",
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

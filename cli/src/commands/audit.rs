//! `evenkeel audit`: audits whether every event of a topic reached its end in a group, once and in
//! order.
//!
//! The audit is in `evenkeel_ops::audit`, which other programs may call as well. This file owns the
//! arguments, the tables, the progress and the exit code.
//!
//! Standard output has the counts of each type, and below them the findings, if there are any; JSON
//! has one object with both. The verdict is a line on standard error, so that it is seen even if
//! the output goes to a file.

use super::events::consume::position::start;
use crate::arguments::connection::ConnectionArgs;
use crate::arguments::group_args::GroupArg;
use crate::arguments::store_address::StoreArgs;
use crate::output::progress::Progress;
use crate::output::stderr::say;
use crate::output::{
    Column, Listing, OutputArgs, Row, id, name, number, print_json, print_line, text,
};
use clap::Args;
use evenkeel::inbox::completions;
use evenkeel::kafka::reader::Start;
use evenkeel::recovery::DeadLetterTopic;
use evenkeel_ops::audit::{
    AuditReport, AuditSettings, EndCounts, Finding, Findings, Handlers, Step, audit,
};
use evenkeel_program::exit::Ending;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Prove that every event of a topic reached its end in a group: an effect, a dead letter, a parked
/// record or a recorded skip.
///
/// Reads the topic, the group's retry, dead-letter and control topics, and its store. Changes
/// nothing; the group may continue meanwhile. Lists events that are missing, doubled or out of
/// order. Records that the group has not committed yet count as lag and are not judged. Types that
/// the group does not handle are listed as ignored with their counts: check them for a forgotten
/// handler.
///
/// Exit codes: 0 proven; 1 not judged; 3 something was found, or the lag is above --max-lag.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    group: GroupArg,

    /// The source topic.
    #[arg(short, long)]
    topic: String,

    #[command(flatten)]
    store: StoreArgs,

    /// First record of each partition: beginning, an offset, -N (the last N) or a time: @TIME, -1h,
    /// 2026-05-01T12:00:00Z.
    #[arg(
        long,
        value_name = "POSITION",
        default_value = "beginning",
        allow_hyphen_values = true,
        value_parser = start
    )]
    from: Start,

    /// Record before which to stop: end, an offset, -N or a time.
    #[arg(
        long,
        value_name = "POSITION",
        default_value = "end",
        allow_hyphen_values = true,
        value_parser = start
    )]
    to: Start,

    /// Name of the handler of an event type in the inbox, if it is not the type's name. TYPE alone
    /// states that the type is handled; TYPE=raw and TYPE=fallback, that the raw or fallback
    /// handler takes it. May be repeated, also for one type: after a handler was renamed.
    #[arg(long = "handler", value_name = "TYPE=NAME", value_parser = parse_handler)]
    handlers: Vec<(String, String)>,

    /// Maximum number of records of the range that are not committed [default: no limit].
    #[arg(long, value_name = "RECORDS")]
    max_lag: Option<u64>,

    /// The group's dead-letter topic [default: dlq.GROUP.TOPIC].
    #[arg(long, value_name = "TOPIC")]
    dead_letter_topic: Option<String>,

    /// Do not check the order of keys, for a group that handles records in any order.
    #[arg(long)]
    unordered: bool,

    /// Memory of the audit's tables; less memory means more passes over the topic.
    #[arg(
        long,
        value_name = "MIB",
        default_value = "256",
        value_parser = clap::value_parser!(u32).range(1..=1 << 20)
    )]
    memory: u32,

    /// Maximum number of listed findings of each kind; all are counted.
    #[arg(long, value_name = "FINDINGS", default_value = "100")]
    limit: usize,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// `TYPE=NAME`, or `TYPE` for a handler of the type's name.
fn parse_handler(text: &str) -> Result<(String, String), String> {
    let (ty, name) = text.split_once('=').unwrap_or((text, text));
    match ty.is_empty() || name.is_empty() {
        true => Err("write TYPE=NAME, for example shop.order-placed.v1=mailer".to_owned()),
        false => Ok((ty.to_owned(), name.to_owned())),
    }
}

impl AuditArgs {
    /// The audit's settings. The store and the time limit are separate.
    fn settings(&self) -> AuditSettings {
        let mut settings = AuditSettings::new(self.group.name(), &self.topic);
        settings.from = self.from;
        settings.to = self.to;
        settings.handlers = self
            .handlers
            .iter()
            .fold(Handlers::default(), |handlers, (ty, name)| {
                handlers.with(ty, name)
            });
        if let Some(topic) = &self.dead_letter_topic {
            settings.dead_letter_topic = DeadLetterTopic::One(topic.clone());
        }
        settings.is_ordered = !self.unordered;
        settings.memory_bytes = (self.memory as usize) << 20;
        settings.listed_max = self.limit;
        settings
    }
}

/// Audits, and prints the findings. May be dropped at any time: the audit only reads.
pub(crate) async fn run(args: AuditArgs) -> anyhow::Result<Ending> {
    let cluster = args.connection.cluster()?;
    let store = completions::open(args.store.address.as_str(), args.group.name()).await?;
    let mut display = ProgressDisplay::default();
    let watch = move |progress| display.update(progress);
    let settings = args.settings();
    let report = audit(&cluster, settings, store, watch).await?;
    match args.output.is_table() {
        true => print(&report, args.output)?,
        false => print_json(args.output.format(), &report)?,
    }
    say!("{}", verdict_line(&report));
    let lags = args.max_lag.filter(|max| report.lag > *max);
    if let Some(max) = lags {
        let lag = report.lag;
        say!(
            "{lag} records are not committed yet, more than {max}; see: \
             evenkeel groups describe {}",
            args.group.name()
        );
    }
    Ok(match report.proven && lags.is_none() {
        true => Ending::Done,
        false => Ending::FoundBad,
    })
}

/// Reports the progress of a long audit on standard error.
#[derive(Default)]
struct ProgressDisplay {
    /// The step and pass of the bar, and the bar.
    bar: Option<(Step, u32, Progress)>,
    /// When the last line was printed. `None` before the first report.
    line_at: Option<Instant>,
}

/// Interval between lines if standard error is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

impl ProgressDisplay {
    /// Takes a report of the audit, which may come at any rate. A new step or pass gets a new bar.
    fn update(&mut self, progress: evenkeel_ops::audit::Progress) {
        let evenkeel_ops::audit::Progress {
            step,
            pass,
            done,
            total,
        } = progress;
        let what = match step {
            Step::DeadLetters => "dead letters",
            Step::Topic => "records",
            Step::Copies => "records, for copies",
        };
        let is_same = |bar: &(Step, u32, Progress)| (bar.0, bar.1) == (step, pass);
        if !self.bar.as_ref().is_some_and(is_same) {
            let bar = Progress::start(total, &format!("{what} in pass {pass}"));
            self.bar = Some((step, pass, bar));
        }
        if let Some((_, _, bar)) = &self.bar {
            bar.set_done(done);
        }
        let since = *self.line_at.get_or_insert_with(Instant::now);
        if since.elapsed() >= LINE_INTERVAL {
            self.line_at = Some(Instant::now());
            if !Progress::is_shown() {
                say!("{done} of {total} {what} in pass {pass}");
            }
        }
    }
}

/// A row of the first table: the ends of one event type, or of all.
#[derive(Serialize)]
struct TypeRow<'a> {
    /// The event type, or `all`.
    ty: &'a str,
    /// The number of records of the type by end.
    tally: &'a EndCounts,
}

impl Row for TypeRow<'_> {
    const COLUMNS: &'static [Column] = &[
        name("type"),
        number("records"),
        number("effects"),
        number("dead-letters"),
        number("parked"),
        number("skipped"),
        number("ignored"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let tally = self.tally;
        let mut cells = vec![self.ty.to_owned()];
        let numbers = [
            tally.records,
            tally.effects,
            tally.dead_letters,
            tally.parked,
            tally.skipped,
            tally.ignored,
        ];
        cells.extend(numbers.iter().map(u64::to_string));
        vec![cells]
    }
}

/// A row of the second table: one finding.
#[derive(Serialize)]
struct FindingRow<'a> {
    /// The kind of the finding, as named by [`kinds`].
    kind: &'a str,
    /// The source topic.
    topic: &'a str,
    #[serde(flatten)]
    finding: &'a Finding,
}

impl Row for FindingRow<'_> {
    const COLUMNS: &'static [Column] = &[
        name("found"),
        id("record"),
        name("type"),
        name("source"),
        id("id"),
        text("detail"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let found = self.finding;
        vec![vec![
            self.kind.to_owned(),
            format!("{}/{}@{}", self.topic, found.partition, found.offset),
            found.ty.clone(),
            found.source.clone(),
            found.id.clone(),
            found.detail.clone(),
        ]]
    }
}

/// The kinds of findings with their names in output, in the order in which they are listed.
fn kinds(report: &AuditReport) -> [(&'static str, &Findings); 5] {
    [
        ("missing", &report.missing),
        ("doubled", &report.doubled),
        ("out of order", &report.out_of_order),
        ("reused id", &report.reused),
        ("unreadable", &report.unreadable),
    ]
}

/// Prints a table of the types, and one of the findings if there are any.
fn print(report: &AuditReport, output: OutputArgs) -> anyhow::Result<()> {
    let types = report.types.iter().map(|(ty, tally)| TypeRow { ty, tally });
    let total = TypeRow {
        ty: "all",
        tally: &report.total,
    };
    Listing::print(output, types.chain([total]))?;
    if report.proven {
        return Ok(());
    }
    print_line("")?;
    let rows = kinds(report).into_iter().flat_map(|(kind, findings)| {
        findings.listed.iter().map(move |finding| FindingRow {
            kind,
            topic: &report.topic,
            finding,
        })
    });
    Listing::print(output, rows)?;
    for (kind, findings) in kinds(report) {
        let more = findings.count - findings.listed.len() as u64;
        if more > 0 {
            print_line(&format!("and {more} more: {kind}"))?;
        }
    }
    Ok(())
}

/// The verdict, in one line on standard error.
fn verdict_line(report: &AuditReport) -> String {
    let AuditReport {
        group,
        topic,
        lag,
        total,
        ..
    } = report;
    let behind = match lag {
        0 => String::new(),
        lag => format!("; {lag} are not committed yet and were not judged"),
    };
    let records = total.records;
    match report.proven {
        true => format!("proven: {records} records of {topic} reached an end in {group}{behind}"),
        false => {
            let counts = kinds(report).map(|(kind, findings)| format!("{} {kind}", findings.count));
            format!(
                "not proven: of {records} records of {topic}, in {group}, {}{behind}",
                counts.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_named_by_its_type_or_by_itself() {
        let pair = |ty: &str, name: &str| Some((ty.to_owned(), name.to_owned()));
        let check = |text, expected| assert_eq!(parse_handler(text).ok(), expected, "{text}");
        check("a.v1=mailer", pair("a.v1", "mailer"));
        check("a.v1=mailer=2", pair("a.v1", "mailer=2"));
        check("a.v1", pair("a.v1", "a.v1"));
        check("=mailer", None);
        check("a.v1=", None);
        check("", None);
    }
}

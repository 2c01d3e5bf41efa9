//! `evenkeel groups history`: commands with operator, reason and answers.
//!
//! The history is the topic `control.GROUP`, which keeps superseded entries for 90 days. A command
//! has one row per answer, and one row with `unanswered` if there is none.

use crate::arguments::connection::ConnectionArgs;
use crate::arguments::group_args::GroupArg;
use crate::arguments::timestamp;
use crate::output::{Column, Listing, OutputArgs, Row, id, name, seconds, text};
use clap::Args;
use evenkeel::control::{Ack, Action, Recorded};
use evenkeel_ops::groups::control_log;
use evenkeel_ops::groups::scope::{Partitions, Target, by_topic, in_words, ranges};
use evenkeel_program::exit::Ending;
use jiff::Timestamp;
use serde::Serialize;
use std::num::NonZeroU32;

/// Show the commands given to a group, the latest last, with the members' answers.
///
/// Commands are kept for at least 90 days. Changes nothing.
#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    #[command(flatten)]
    group: GroupArg,

    /// Only commands at or after this time: 2026-05-01T12:00:00Z, or an age such as -1h.
    #[arg(long, value_name = "TIME", value_parser = timestamp::parse, allow_hyphen_values = true)]
    since: Option<Timestamp>,

    #[command(flatten)]
    output: OutputArgs,
}

/// A command with its answers.
#[derive(Serialize)]
struct CommandRow {
    /// Id of the command; its answers refer to it.
    id: String,
    /// When the command was given.
    at: Timestamp,
    /// The operator, as the command claims.
    by: String,
    /// The reason.
    why: String,
    /// Name of the action, such as `pause`.
    action: &'static str,
    #[serde(flatten)]
    target: Target,
    /// The limit of a `rate`. `None` for `off` and for any other action.
    records_per_second: Option<NonZeroU32>,
    /// The answers so far.
    acknowledgements: Vec<Answer>,
    /// Action and scope, for the table.
    #[serde(skip)]
    in_words: String,
}

/// The answer of a member.
#[derive(Serialize)]
pub(in crate::commands::groups) struct Answer {
    /// Id of the command.
    command: String,
    /// When the member answered.
    at: Timestamp,
    /// The outcome, such as `applied`.
    outcome: &'static str,
    /// The partitions for which the member answers, by topic.
    partitions: Vec<Partitions>,
    /// Id of the member.
    member: String,
    /// The outcome in words.
    detail: String,
}

impl From<Ack> for Answer {
    fn from(ack: Ack) -> Self {
        Self {
            partitions: by_topic(&ack.partitions),
            command: ack.command,
            at: ack.at,
            outcome: ack.outcome.as_str(),
            member: ack.member,
            detail: ack.detail,
        }
    }
}

impl Answer {
    /// The cells of outcome, partitions, member and detail.
    pub(super) fn cells(&self) -> [String; 4] {
        [
            self.outcome.to_owned(),
            ranges(&self.partitions),
            self.member.clone(),
            self.detail.clone(),
        ]
    }
}

impl From<Recorded> for CommandRow {
    fn from(Recorded { command, acks, .. }: Recorded) -> Self {
        let records_per_second = match command.action {
            Action::Rate { records_per_second } => records_per_second,
            _ => None,
        };
        Self {
            in_words: described(&command.action),
            action: command.action.name(),
            target: Target::from(&command.action.scope()),
            records_per_second,
            id: command.id,
            at: command.at,
            by: command.by,
            why: command.why,
            acknowledgements: acks.into_iter().map(Answer::from).collect(),
        }
    }
}

impl Row for CommandRow {
    const COLUMNS: &'static [Column] = &[
        name("at"),
        name("by"),
        name("command"),
        text("why"),
        name("outcome"),
        name("partitions"),
        id("member"),
        text("detail"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let given = [
            seconds(self.at),
            self.by.clone(),
            self.in_words.clone(),
            self.why.clone(),
        ];
        if self.acknowledgements.is_empty() {
            let mut row = given.to_vec();
            row.push("unanswered".to_owned());
            row.extend(["-"; 3].map(str::to_owned));
            return vec![row];
        }
        let row = |(at, answer): (usize, &Answer)| {
            // A command is printed once, before its first answer. Further answers have their own
            // times.
            let mut row = match at {
                0 => given.to_vec(),
                _ => vec![
                    seconds(answer.at),
                    String::new(),
                    String::new(),
                    String::new(),
                ],
            };
            row.extend(answer.cells());
            row
        };
        self.acknowledgements.iter().enumerate().map(row).collect()
    }
}

/// The action with its scope.
fn described(action: &Action) -> String {
    match action {
        Action::Rate {
            records_per_second: Some(rate),
        } => format!("rate {rate}"),
        Action::Rate {
            records_per_second: None,
        } => "rate off".to_owned(),
        action => format!("{} {}", action.name(), in_words(&action.scope())),
    }
}

/// Lists the commands. A group without a control topic is an error, since it never took a command.
pub(super) async fn run(connection: &ConnectionArgs, args: HistoryArgs) -> anyhow::Result<Ending> {
    let admin = connection.admin().await?;
    let cluster = connection.cluster()?;
    let log = control_log::open_existing(&cluster, &admin, args.group.name()).await?;
    let rows = log
        .history
        .recorded()
        .filter(|at| args.since.is_none_or(|since| at.command.at >= since))
        .map(CommandRow::from);
    Listing::print(args.output, rows)?;
    Ok(Ending::Done)
}

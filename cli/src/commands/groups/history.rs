//! `evenkeel groups history`: who commanded what and why, and what became of it.

use super::log::ControlLog;
use super::target::in_words;
use crate::connection::ConnectionArgs;
use crate::exit::Ending;
use crate::output::{Listing, OutputArgs, Row};
use crate::time;
use clap::Args;
use evenkeel::control::{Ack, Action, Command, Recorded};
use jiff::Timestamp;
use serde::Serialize;

/// Commands given to a group, the latest last, each with what its members answered.
///
/// They are kept for 90 days at least.
#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// The group.
    group: String,

    /// Only commands of this time or later: 2026-05-01T12:00:00Z, or an age such as -1h.
    #[arg(long, value_name = "TIME", value_parser = time::parse, allow_hyphen_values = true)]
    since: Option<Timestamp>,

    #[command(flatten)]
    output: OutputArgs,
}

/// A command with its answers.
#[derive(Serialize)]
struct Given {
    #[serde(flatten)]
    command: Command,
    acknowledgements: Vec<Ack>,
}

impl Row for Given {
    const COLUMNS: &'static [&'static str] = &[
        "at",
        "by",
        "command",
        "why",
        "outcome",
        "partitions",
        "member",
        "detail",
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let command = &self.command;
        let given = [
            format!("{:.0}", command.at),
            command.by.clone(),
            described(&command.action),
            command.why.clone(),
        ];
        if self.acknowledgements.is_empty() {
            let mut row = given.to_vec();
            row.push("unanswered".to_owned());
            row.extend(["-"; 3].map(str::to_owned));
            return vec![row];
        }
        let row = |(at, ack): (usize, &Ack)| {
            // A command stands once, before its first answer; further answers have their own times.
            let mut row = match at {
                0 => given.to_vec(),
                _ => vec![
                    format!("{:.0}", ack.at),
                    String::new(),
                    String::new(),
                    String::new(),
                ],
            };
            row.extend(answer(ack));
            row
        };
        self.acknowledgements.iter().enumerate().map(row).collect()
    }
}

/// The action with what it is about.
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

/// An answer's cells: outcome, partitions, member, detail.
pub(super) fn answer(ack: &Ack) -> [String; 4] {
    let partitions: Vec<String> = ack.partitions.iter().map(in_words).collect();
    [
        ack.outcome.as_str().to_owned(),
        partitions.join(" "),
        ack.member.clone(),
        ack.detail.clone(),
    ]
}

/// Lists the commands.
pub(super) async fn run(connection: &ConnectionArgs, args: HistoryArgs) -> anyhow::Result<Ending> {
    let admin = connection.admin().await?;
    let Some(log) = ControlLog::open(connection, &admin, &args.group).await? else {
        return Err(no_topic(&args.group));
    };
    let rows = log
        .history
        .recorded()
        .filter(|at| args.since.is_none_or(|since| at.command.at >= since))
        .map(|Recorded { command, acks }| Given {
            command,
            acknowledgements: acks,
        });
    Listing::print(args.output.output, rows)?;
    Ok(Ending::Done)
}

/// Nobody could have commanded that group.
pub(super) fn no_topic(group: &str) -> anyhow::Error {
    let topic = evenkeel::control::control_topic(group);
    anyhow::anyhow!(
        "there is no topic {topic}: no member of the group that takes commands has run yet, or it could not create it"
    )
}

//! Gives a command: operator, reason and answers.

use crate::arguments::connection::ConnectionArgs;
use crate::arguments::operator;
use crate::commands::groups::history::Answer;
use crate::output::observer::Stderr;
use crate::output::stderr::say;
use crate::output::{AfterDone, Column, Listing, OutputArgs, Row, id, name, text};
use clap::Args;
use evenkeel::control::{Action, Command, control_topic};
use evenkeel_ops::groups::GroupError;
use evenkeel_ops::groups::control_command::{self, Request, Verdict};
use evenkeel_ops::groups::scope::{Partitions, ranges};
use evenkeel_program::duration::parse_duration_or_seconds;
use evenkeel_program::exit::{Ending, NoAnswer, Usage};
use jiff::SignedDuration;
use std::time::Duration;

/// Who gives a command and why, and how its answers are shown.
#[derive(Debug, Args)]
pub(crate) struct CommandArgs {
    /// Why; the members log it and the history keeps it.
    #[arg(long, value_name = "TEXT")]
    why: String,

    /// Who gives the command; when left out, the SASL user, or else the user's name on this
    /// machine.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,

    /// How long to wait for the members' answers.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration_or_seconds)]
    wait: Duration,

    #[command(flatten)]
    output: OutputArgs,
}

impl CommandArgs {
    /// Rejects a command that no member would accept.
    pub(crate) fn check(&self, action: Action) -> Result<(), Usage> {
        let by = self.by.as_deref().unwrap_or("user");
        let command = Command::new(by, &self.why, action);
        command.map(drop).map_err(|error| Usage(error.to_string()))
    }
}

impl Row for Answer {
    const COLUMNS: &'static [Column] = &[
        name("outcome"),
        name("partitions"),
        id("member"),
        text("detail"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![Answer::cells(self).to_vec()]
    }
}

/// Gives the command, and prints its answers.
pub(crate) async fn give(
    connection: &ConnectionArgs,
    group: &str,
    args: CommandArgs,
    action: Action,
) -> anyhow::Result<Ending> {
    let by = operator::name(args.by.as_deref(), connection)?;
    let admin = connection.admin_to_change().await?;
    let cluster = connection.cluster()?;
    let request = Request::new(group, &by, &args.why, action).with_wait(args.wait);
    let given = control_command::give(&cluster, &admin, request, &Stderr).await;
    let given = given.map_err(|error| match error {
        GroupError::Malformed(error) => anyhow::Error::from(Usage(error.to_string())),
        error => error.into(),
    })?;
    let id = given.command().id.clone();
    say!("command {id} is given");
    if given.is_unowned() {
        let when = match given.command().action {
            Action::Skip { .. } => "the record is skipped when a member comes to it",
            _ => "it holds for the members that start",
        };
        say!("no member of {group} runs: {when}");
        return Ok(Ending::Done);
    }
    let answered = given.answers().await?;
    let rows = answered.acks.into_iter().map(Answer::from);
    Listing::print(args.output, rows).after_done(|| format!("the command {id} is given"))?;
    match answered.verdict {
        Verdict::Answered => Ok(Ending::Done),
        Verdict::Refused => Ok(Ending::SomeFailed),
        Verdict::Pending => {
            say!("what becomes of it is in: evenkeel groups history {group}");
            Ok(Ending::Done)
        }
        Verdict::Silent {
            members,
            partitions,
        } => Err(no_answer(group, args.wait, &members, &partitions).into()),
    }
}

fn no_answer(
    group: &str,
    wait: Duration,
    members: &[String],
    partitions: &[Partitions],
) -> NoAnswer {
    let from = match members.is_empty() {
        true => String::new(),
        false => format!(" from {}", members.join(", ")),
    };
    NoAnswer(format!(
        "no answer{from} for {} within {:#}: their owners hang, run without live control, cannot read {}, or are \
         busy with a rebalance; the command stays given, and later answers are in: evenkeel groups history {group}",
        ranges(partitions),
        SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX),
        control_topic(group),
    ))
}

//! Gives a command to a running group: checks it, writes it to the control topic, and prints the
//! answers. The exit code follows from the answers: 0 answered or pending, 1 refused, 5 not all
//! owners answered in time.

use crate::arguments::connection::ConnectionArgs;
use crate::arguments::operator;
use crate::commands::groups::history::Answer;
use crate::output::observer::Stderr;
use crate::output::stderr::say;
use crate::output::{AfterDone, Column, Listing, OutputArgs, Row, id, name, text};
use clap::Args;
use evenkeel::control::{Action, Command, control_topic};
use evenkeel_ops::groups::GroupError;
use evenkeel_ops::groups::control_command::{AnswerSummary, Request, publish_command};
use evenkeel_ops::groups::scope::{Partitions, ranges};
use evenkeel_program::duration::parse_duration_or_seconds;
use evenkeel_program::exit::{Ending, NoAnswer, Usage};
use jiff::SignedDuration;
use std::time::Duration;

/// The flags of every command, for the record of it and for its answers.
#[derive(Debug, Args)]
pub(crate) struct CommandArgs {
    /// The reason; members log it, and the group's history keeps it.
    #[arg(long, value_name = "TEXT")]
    why: String,

    /// The operator [default: the SASL user, else the user's name on this machine].
    #[arg(long, value_name = "NAME")]
    by: Option<String>,

    /// How long to wait for the members' answers, such as 10s; a bare number is seconds.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        value_parser = parse_duration_or_seconds
    )]
    wait: Duration,

    #[command(flatten)]
    output: OutputArgs,
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

/// A command to a running group, as the arguments describe it.
pub(in crate::commands) struct ControlCommand<'a> {
    /// Name of the group.
    pub(in crate::commands) group: &'a str,
    /// Operator, reason, time limit and output format.
    pub(in crate::commands) flags: &'a CommandArgs,
    /// What the members shall do, and its scope.
    pub(in crate::commands) action: Action,
}

impl ControlCommand<'_> {
    /// Rejects a command that no member would accept, such as one with an empty reason. Connects to
    /// nothing.
    pub(in crate::commands) fn check(self) -> Result<(), Usage> {
        let by = self.flags.by.as_deref().unwrap_or("user");
        let command = Command::new(by, &self.flags.why, self.action);
        command.map(drop).map_err(|error| Usage(error.to_string()))
    }

    /// Writes the command to the control topic, waits for the members it concerns, and prints their
    /// answers.
    ///
    /// Fails with [`NoAnswer`] if not all of them answer in time. The command then stays in force.
    /// Dropping the future after the write does not withdraw the command.
    pub(in crate::commands) async fn give(
        self,
        connection: &ConnectionArgs,
    ) -> anyhow::Result<Ending> {
        let Self {
            group,
            flags,
            action,
        } = self;
        let by = operator::name(flags.by.as_deref(), connection)?;
        let admin = connection.admin_to_change().await?;
        let cluster = connection.cluster()?;
        let request = Request::new(group, &by, &flags.why, action).with_wait(flags.wait);
        let published = publish_command(&cluster, &admin, request, &Stderr).await;
        let published = published.map_err(|error| match error {
            GroupError::Malformed(error) => anyhow::Error::from(Usage(error.to_string())),
            error => error.into(),
        })?;
        let id = published.command().id.clone();
        say!("command {id} was given");
        if published.is_unowned() {
            let when = match published.command().action {
                Action::Skip { .. } => "the record is skipped when a member reaches it",
                _ => "the command applies to members that start",
            };
            say!("no member of {group} is running: {when}");
            return Ok(Ending::Done);
        }
        let answers = published.wait_for_answers().await?;
        let rows = answers.acks.into_iter().map(Answer::from);
        Listing::print(flags.output, rows).after_done(|| format!("the command {id} was given"))?;
        match answers.summary {
            AnswerSummary::Answered => Ok(Ending::Done),
            AnswerSummary::Refused => Ok(Ending::SomeFailed),
            AnswerSummary::Pending => {
                say!("pending; the final answer will be in: evenkeel groups history {group}");
                Ok(Ending::Done)
            }
            AnswerSummary::Unanswered {
                members,
                partitions,
            } => Err(no_answer(group, flags.wait, &members, &partitions).into()),
        }
    }
}

/// The error for owners that did not answer within `wait`.
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
        "no answer{from} for {} within {:#}: the owners hang, run without live control, cannot \
         read {}, or are in a rebalance; the command stays in force; later answers will be in: \
         evenkeel groups history {group}",
        ranges(partitions),
        SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX),
        control_topic(group),
    ))
}

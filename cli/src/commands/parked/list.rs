//! `evenkeel parked list`: the waiting keys, or with `--by-cause` what they have in common.
//!
//! During an incident there may be thousands of waiting keys with few causes; `--by-cause` counts
//! them.

use super::group_args::GroupArgs;
use crate::arguments::check_flag::CheckArgs;
use crate::arguments::connection::ConnectionArgs;
use crate::output::stderr::say;
use crate::output::{Column, Listing, OutputArgs, Row, id, name, number, or_dash, seconds, text};
use clap::Args;
use evenkeel_ops::waiting_keys::{Cause, WaitingKey, by_cause};
use evenkeel_program::exit::Ending;

/// List the waiting keys: since when, behind which record, why, and the next attempt.
///
/// NEXT-ATTEMPT is a time, due for a key that is retried now, or held for a key that waits for the
/// replay of its dead letter. Changes nothing.
///
/// Exit codes: 0 listed; 3 with --check, if any key waits.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    group: GroupArgs,

    /// Show at most this many keys, those first that have waited longest [default: all].
    #[arg(short = 'n', long, value_name = "KEYS")]
    limit: Option<usize>,

    /// One row per topic, class and message instead of one per key, the most frequent first.
    #[arg(long, conflicts_with = "limit")]
    by_cause: bool,

    #[command(flatten)]
    check: CheckArgs,

    #[command(flatten)]
    output: OutputArgs,
}

impl Row for WaitingKey {
    const COLUMNS: &'static [Column] = &[
        name("topic"),
        number("partition"),
        id("key"),
        number("records"),
        id("behind"),
        name("since"),
        name("next-attempt"),
        number("attempts"),
        text("why"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let why = match (&self.held_for, &self.class, &self.message) {
            (Some(origin), ..) => format!("held until the dead letter of {origin} is replayed"),
            (None, Some(class), Some(message)) => format!("{class}: {message}"),
            _ => "-".to_owned(),
        };
        let next = match (&self.held_for, self.next_attempt) {
            (Some(_), _) => "held".to_owned(),
            (None, Some(at)) => seconds(at),
            (None, None) => "due".to_owned(),
        };
        vec![vec![
            self.topic.clone(),
            self.partition.to_string(),
            or_dash(self.key.as_deref()),
            self.records.to_string(),
            or_dash(self.behind.as_deref()),
            or_dash(self.since.map(seconds)),
            next,
            self.attempts.to_string(),
            why,
        ]]
    }
}

/// Lists the keys, those first that have waited longest. Prints their number on standard error in
/// any case.
pub(super) async fn run(connection: &ConnectionArgs, args: ListArgs) -> anyhow::Result<Ending> {
    let mut keys: Vec<WaitingKey> = args
        .group
        .keys(connection)
        .await?
        .into_iter()
        .map(WaitingKey::new)
        .collect();
    keys.sort_by_key(|key| key.since);
    let (all, records) = (
        keys.len(),
        keys.iter().map(|key| key.records).sum::<usize>(),
    );
    if args.by_cause {
        Listing::print(args.output, by_cause(&keys))?;
    } else {
        keys.truncate(args.limit.unwrap_or(usize::MAX));
        Listing::print(args.output, keys)?;
    }
    say!("{all} keys wait, with {records} records");
    Ok(match args.check.check && all > 0 {
        true => Ending::FoundBad,
        false => Ending::Done,
    })
}

impl Row for Cause {
    const COLUMNS: &'static [Column] = &[
        name("topic"),
        name("class"),
        number("keys"),
        number("records"),
        name("since"),
        name("next-attempt"),
        id("example"),
        text("message"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.topic.clone(),
            or_dash(self.class.as_deref()),
            self.keys.to_string(),
            self.records.to_string(),
            or_dash(self.since.map(seconds)),
            or_dash(self.next_attempt.map(seconds)),
            or_dash(self.example.as_deref()),
            self.message.clone(),
        ]]
    }
}

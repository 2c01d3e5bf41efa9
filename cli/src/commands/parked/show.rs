//! `evenkeel parked show`: the waiting records of one key.
//!
//! A key that waits in several topics of the group is shown for the first of them; `--topic` names
//! another.

use super::group_args::GroupArgs;
use crate::arguments::connection::ConnectionArgs;
use crate::output::{Column, Listing, OutputArgs, Row, id, name, number};
use clap::Args;
use evenkeel::recovery::retry_topic;
use evenkeel_ops::waiting_keys::{key_text, repetitions};
use evenkeel_program::exit::Ending;
use serde::Serialize;

/// Show the parked records of one key, in the order in which they are handled.
///
/// RECORD is the position in the retry topic; print the record with evenkeel consume. REPEATED-BY
/// names the operator of a drill that delivered the record again. Changes nothing.
///
/// Exit codes: 0 shown; 1 no record of the key waits.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    group: GroupArgs,

    /// The key.
    #[arg(long)]
    key: String,

    #[command(flatten)]
    output: OutputArgs,
}

/// A waiting record.
#[derive(Debug, Serialize)]
struct Waiting {
    /// Its position in the retry topic.
    record: String,
    /// Its number among those of its key, from 1.
    turn: usize,
    /// Whether the others wait behind it.
    first: bool,
    /// The operator of the drill that delivered it again. `None` for any other record.
    repeated_by: Option<String>,
}

impl Row for Waiting {
    const COLUMNS: &'static [Column] = &[number("turn"), id("record"), name("repeated-by")];

    fn cells(&self) -> Vec<Vec<String>> {
        let by = self.repeated_by.as_deref().unwrap_or("-");
        vec![vec![
            self.turn.to_string(),
            self.record.clone(),
            by.to_owned(),
        ]]
    }
}

/// Lists the records.
pub(super) async fn run(connection: &ConnectionArgs, args: ShowArgs) -> anyhow::Result<Ending> {
    let keys = args.group.keys(connection).await?;
    let mut own = keys
        .into_iter()
        .filter(|key| key_text(key.key.as_deref()).as_ref() == Some(&args.key));
    let Some(key) = own.next() else {
        anyhow::bail!(
            "no record of the key {} waits; see: evenkeel parked list {}",
            args.key,
            args.group.group.name()
        );
    };
    let retry = retry_topic(args.group.group.name(), &key.topic);
    let cluster = connection.cluster()?;
    let look = {
        let (retry, key) = (retry.clone(), key.clone());
        move || repetitions(&cluster, &retry, &key)
    };
    let mut repeated = tokio::task::spawn_blocking(look).await??;
    let rows = key.offsets.iter().enumerate().map(|(at, offset)| Waiting {
        record: format!("{retry}/{}@{offset}", key.partition),
        turn: at + 1,
        first: at == 0,
        repeated_by: repeated.remove(offset),
    });
    Listing::print(args.output, rows)?;
    Ok(Ending::Done)
}

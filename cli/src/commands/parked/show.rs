//! `evenkeel parked show`: the records of one key that wait.

use super::{GroupArgs, keys_of, text_of};
use crate::connection::ConnectionArgs;
use crate::exit::Ending;
use crate::output::{Listing, OutputArgs, Row};
use clap::Args;
use evenkeel::recovery::retry_topic;
use serde::Serialize;

/// The records of one key that wait, in the order in which they are handled.
///
/// Each is named by its place in the retry topic: look at one with evenkeel consume.
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

/// A record that waits.
#[derive(Debug, Serialize)]
struct Waiting {
    /// Its place in the retry topic.
    record: String,
    /// Its place among those of its key, from 1.
    turn: usize,
    /// Whether the others wait behind it.
    first: bool,
}

impl Row for Waiting {
    const COLUMNS: &'static [&'static str] = &["turn", "record"];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![self.turn.to_string(), self.record.clone()]]
    }
}

/// Shows them.
pub(super) async fn run(connection: &ConnectionArgs, args: ShowArgs) -> anyhow::Result<Ending> {
    let keys = keys_of(connection, &args.group).await?;
    let mut own = keys
        .into_iter()
        .filter(|key| text_of(key.key.as_deref()).as_ref() == Some(&args.key));
    let Some(key) = own.next() else {
        anyhow::bail!(
            "no record of the key {} waits; see: evenkeel parked list {}",
            args.key,
            args.group.group
        );
    };
    let retry = retry_topic(&args.group.group, &key.topic);
    let rows = key.offsets.iter().enumerate().map(|(at, offset)| Waiting {
        record: format!("{retry}/{}@{offset}", key.partition),
        turn: at + 1,
        first: at == 0,
    });
    Listing::print(args.output.output, rows)?;
    Ok(Ending::Done)
}

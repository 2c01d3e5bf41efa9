//! `evenkeel parked show`: the records of one key that wait.

use super::{GroupArgs, keys_of, text_of};
use crate::connection::ConnectionArgs;
use crate::exit::Ending;
use crate::output::{Listing, OutputArgs, Row};
use clap::Args;
use evenkeel::consumer::ParkedKey;
use evenkeel::kafka::reader::{Reader, Span};
use evenkeel::kafka::{KafkaConfig, KafkaError};
use evenkeel::recovery::{repetition_of, retry_topic};
use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;

/// Who began the drill that a record is a repetition of.
const BY: &str = "evenkeel.parked.by";

/// The records of one key that wait, in the order in which they are handled.
///
/// Each is named by its place in the retry topic: look at one with evenkeel consume. One that an evenkeel drill delivered once more
/// says by whom.
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
    /// Who began the drill that it is a repetition of; none for any other record.
    repeated_by: Option<String>,
}

impl Row for Waiting {
    const COLUMNS: &'static [&'static str] = &["turn", "record", "repeated by"];

    fn cells(&self) -> Vec<Vec<String>> {
        let by = self.repeated_by.as_deref().unwrap_or("-");
        vec![vec![
            self.turn.to_string(),
            self.record.clone(),
            by.to_owned(),
        ]]
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
    let (kafka, timeout) = (connection.kafka()?, connection.timeout());
    let look = {
        let (retry, key) = (retry.clone(), key.clone());
        move || repetitions(&kafka, timeout, &retry, &key)
    };
    let mut repeated = tokio::task::spawn_blocking(look).await??;
    let rows = key.offsets.iter().enumerate().map(|(at, offset)| Waiting {
        record: format!("{retry}/{}@{offset}", key.partition),
        turn: at + 1,
        first: at == 0,
        repeated_by: repeated.remove(offset),
    });
    Listing::print(args.output.output, rows)?;
    Ok(Ending::Done)
}

/// The records of a key that a drill has delivered once more, each with who began it. Blocks.
fn repetitions(
    kafka: &KafkaConfig,
    timeout: Duration,
    retry: &str,
    key: &ParkedKey,
) -> Result<HashMap<i64, String>, KafkaError> {
    let mut found = HashMap::new();
    let (Some(first), Some(last)) = (key.offsets.iter().min(), key.offsets.iter().max()) else {
        return Ok(found);
    };
    let span = Span {
        topic: retry.into(),
        partition: key.partition,
        start: *first,
        end: Some(*last + 1),
    };
    let mut reader = Reader::over(kafka, vec![span], timeout)?;
    while !reader.at_end() {
        if let Some(record) = reader.next(timeout)?
            && record.key == key.key
            && repetition_of(record.headers.iter()).is_some()
        {
            let by = record.headers.last(BY).unwrap_or_default();
            found.insert(record.offset, String::from_utf8_lossy(by).into_owned());
        }
    }
    Ok(found)
}

//! `evenkeel parked list`: the keys that wait.

use super::{GroupArgs, keys_of, text_of};
use crate::connection::ConnectionArgs;
use crate::exit::Ending;
use crate::output::{Listing, OutputArgs, Row};
use clap::Args;
use evenkeel::consumer::ParkedKey;
use jiff::Timestamp;
use serde::Serialize;

/// The keys that wait: since when, behind which record, why, and when it is tried again.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    group: GroupArgs,

    /// Show at most so many keys, those that have waited longest first.
    #[arg(short = 'n', long, value_name = "KEYS")]
    limit: Option<usize>,

    #[command(flatten)]
    output: OutputArgs,
}

/// A key that waits.
#[derive(Debug, Serialize)]
struct Waiting {
    topic: String,
    partition: i32,
    key: Option<String>,
    /// Records that wait.
    records: usize,
    /// The record that they wait behind, by its place in the source topic.
    behind: Option<String>,
    since: Option<Timestamp>,
    /// When it is tried again; none while the key is held, or when it is due.
    next_attempt: Option<Timestamp>,
    attempts: u32,
    class: Option<String>,
    message: Option<String>,
    /// The dead letter whose replay the key waits for, by its place in the source topic.
    held_for: Option<String>,
}

impl Waiting {
    fn new(key: ParkedKey) -> Self {
        let place = |offset: i64| format!("{}/{}@{offset}", key.topic, key.partition);
        let time = |ms: i64| Timestamp::from_millisecond(ms).ok();
        let is_held = key.held_for.is_some();
        Self {
            behind: key.origin.map(place),
            held_for: key.held_for.map(place),
            key: text_of(key.key.as_deref()),
            records: key.offsets.len(),
            since: key.why.since_ms.and_then(time),
            next_attempt: time(key.wait.not_before_ms)
                .filter(|at| *at > Timestamp::now() && !is_held),
            attempts: key.wait.attempts,
            class: key.why.class,
            message: key.why.message,
            partition: key.partition,
            topic: key.topic,
        }
    }
}

impl Row for Waiting {
    const COLUMNS: &'static [&'static str] = &[
        "topic",
        "partition",
        "key",
        "records",
        "behind",
        "since",
        "next attempt",
        "attempts",
        "why",
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let time = |time: Option<Timestamp>| time.map(|time| time.strftime("%FT%TZ").to_string());
        let why = match (&self.held_for, &self.class, &self.message) {
            (Some(origin), ..) => format!("held until the dead letter of {origin} is replayed"),
            (None, Some(class), Some(message)) => format!("{class}: {message}"),
            _ => "-".to_owned(),
        };
        let next = match (&self.held_for, self.next_attempt) {
            (Some(_), _) => "held".to_owned(),
            (None, Some(at)) => at.strftime("%FT%TZ").to_string(),
            (None, None) => "due".to_owned(),
        };
        vec![vec![
            self.topic.clone(),
            self.partition.to_string(),
            text(&self.key),
            self.records.to_string(),
            text(&self.behind),
            text(&time(self.since)),
            next,
            self.attempts.to_string(),
            why,
        ]]
    }
}

/// Lists them.
pub(super) async fn run(connection: &ConnectionArgs, args: ListArgs) -> anyhow::Result<Ending> {
    let mut keys: Vec<Waiting> = keys_of(connection, &args.group)
        .await?
        .into_iter()
        .map(Waiting::new)
        .collect();
    keys.sort_by_key(|key| key.since);
    let (all, records) = (
        keys.len(),
        keys.iter().map(|key| key.records).sum::<usize>(),
    );
    keys.truncate(args.limit.unwrap_or(usize::MAX));
    Listing::print(args.output.output, keys)?;
    anstream::eprintln!("evenkeel: {all} keys wait, with {records} records");
    Ok(Ending::Done)
}

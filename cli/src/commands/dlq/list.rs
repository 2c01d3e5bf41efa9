//! `evenkeel dlq list`: what failed, why, how often and since when.

use super::Cluster;
use super::letters::{End, Letter, read};
use super::marks;
use super::select::{Filter, FilterArgs, TopicArgs};
use crate::exit::Ending;
use crate::output::{Listing, OutputArgs, Row};
use crate::stop::Stop;
use clap::Args;
use evenkeel::kafka::admin::Admin;
use evenkeel::recovery::{Family, Replays, message_pattern};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// Dead letters in groups of one cause: topic, class, stage, and message without its numbers and ids.
///
/// Looks at every topic whose name begins with dlq., unless topics or a group are named.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    topics: TopicArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    filter: FilterArgs,
}

/// What letters of one cause have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Cause {
    topic: String,
    family: Option<Family>,
    class: Option<String>,
    stage: Option<String>,
    message: String,
}

/// Letters of one cause.
#[derive(Debug, Serialize)]
struct Group {
    #[serde(flatten)]
    cause: Cause,
    count: u64,
    /// How many of them were replayed.
    replayed: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    /// Where the latest of them stands.
    example: String,
}

impl Row for Group {
    const COLUMNS: &'static [&'static str] = &[
        "topic", "class", "stage", "count", "replayed", "first", "last", "example", "message",
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let time = |time: Option<Timestamp>| match time {
            Some(time) => time.strftime("%FT%TZ").to_string(),
            None => "-".to_owned(),
        };
        vec![vec![
            self.cause.topic.clone(),
            text(&self.cause.class),
            text(&self.cause.stage),
            self.count.to_string(),
            self.replayed.to_string(),
            time(self.first),
            time(self.last),
            self.example.clone(),
            self.cause.message.clone(),
        ]]
    }
}

/// Groups the letters.
pub(super) async fn run(
    args: ListArgs,
    cluster: Cluster,
    admin: &Admin,
    stop: Stop,
) -> anyhow::Result<Ending> {
    let topics = args.topics.resolve(admin).await?;
    let replays = marks::of_all(&cluster, admin, &topics).await?;
    let filter = Filter::new(args.filter, &args.topics);
    let group = move || {
        let mut groups = Groups::default();
        let mut others = BTreeMap::<String, u64>::new();
        let end = read(&cluster, &topics, &stop, |record| {
            let letter = Letter::new(record);
            if letter.failure.family.is_none() {
                *others.entry(letter.record.topic.to_string()).or_default() += 1;
            } else if filter.admits(&letter) {
                groups.add(&letter, &replays);
            }
            Ok(true)
        })?;
        anyhow::Ok((groups, others, end))
    };
    let (groups, others, end) = tokio::task::spawn_blocking(group).await??;
    if let End::Stopped(signal) = end {
        return Ok(Ending::Stopped(signal));
    }
    Listing::print(args.output.output, groups.sorted())?;
    for (topic, records) in others {
        anstream::eprintln!(
            "evenkeel: {topic}: {records} records carry no failure headers; they are no dead letters and are not listed"
        );
    }
    Ok(Ending::Done)
}

#[derive(Default)]
struct Groups(BTreeMap<Cause, Group>);

impl Groups {
    fn add(&mut self, letter: &Letter, replays: &BTreeMap<String, Replays>) {
        let failure = &letter.failure;
        let position = letter.position();
        let cause = Cause {
            topic: position.topic.clone(),
            family: failure.family,
            class: failure.class.clone(),
            stage: failure.stage.clone(),
            message: message_pattern(failure.message.as_deref().unwrap_or_default()),
        };
        let replayed = replays.get(&position.topic).is_some_and(|replays| {
            let letter_ms = letter.record.timestamp_ms;
            replays.contains(position.partition, position.offset, letter_ms)
        });
        let time = letter.time();
        let group = self.0.entry(cause.clone()).or_insert_with(|| Group {
            cause,
            count: 0,
            replayed: 0,
            first: None,
            last: None,
            example: String::new(),
        });
        group.count += 1;
        group.replayed += u64::from(replayed);
        group.first = group.first.into_iter().chain(time).min();
        if group.example.is_empty() || time >= group.last {
            group.example = position.to_string();
        }
        group.last = group.last.into_iter().chain(time).max();
    }

    /// By topic, the largest group of each first.
    fn sorted(self) -> Vec<Group> {
        let mut groups: Vec<Group> = self.0.into_values().collect();
        groups.sort_by(|one, other| {
            let topics = one.cause.topic.cmp(&other.cause.topic);
            topics.then(other.count.cmp(&one.count))
        });
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::event::Headers;
    use evenkeel::kafka::reader::{LogRecord, TimestampKind};

    fn letter(offset: i64, message: &str, time: &str) -> Letter {
        let mut headers = Headers::new();
        headers.push("__dlq.errors.message", Some(message.as_bytes()));
        headers.push("evenkeel.dlq.error.timestamp", Some(time.as_bytes()));
        Letter::new(LogRecord {
            topic: "dlq.g.t".into(),
            partition: 0,
            offset,
            timestamp_kind: TimestampKind::Absent,
            timestamp_ms: None,
            key: None,
            value: None,
            headers,
        })
    }

    #[test]
    fn similar_messages_are_one_group_with_its_times_and_latest_example() {
        let mut groups = Groups::default();
        let times = [
            "2026-01-02T00:00:00Z",
            "2026-01-03T00:00:00Z",
            "2026-01-01T00:00:00Z",
        ];
        groups.add(&letter(9, "no stock", times[0]), &BTreeMap::new());
        for (offset, time) in times.iter().enumerate() {
            let message = format!("card {offset} refused");
            groups.add(&letter(offset as i64, &message, time), &BTreeMap::new());
        }
        let groups = groups.sorted();
        let seen: Vec<(&str, u64, &str)> = groups
            .iter()
            .map(|group| {
                (
                    group.cause.message.as_str(),
                    group.count,
                    group.example.as_str(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("card <n> refused", 3, "dlq.g.t/0@1"),
                ("no stock", 1, "dlq.g.t/0@9")
            ]
        );
        assert_eq!(groups[0].first, times[2].parse().ok());
        assert_eq!(groups[0].last, times[1].parse().ok());
    }
}

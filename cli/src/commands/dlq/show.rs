//! `evenkeel dlq show`: prints one complete dead letter.
//!
//! The text form is for people: every value is escaped for a terminal, binary values are dumped in
//! hexadecimal, and JSON is printed as it is, because reformatting would change large numbers. The
//! JSON forms are those of `dlq export`.

use crate::output::stderr::say;
use crate::output::{OutputFormat, print, print_json};
use crate::record_json;
use clap::{Args, ValueEnum};
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::{KafkaError, RecordPosition};
use evenkeel::recovery::Replayed;
use evenkeel::telemetry::visible;
use evenkeel_ops::Cluster;
use evenkeel_ops::dead_letters::originals::{Restored, restore};
use evenkeel_ops::dead_letters::record::{Lookup, look_up};
use evenkeel_ops::dead_letters::{DeadLetterRecord, replay_log};
use evenkeel_program::exit::{Ending, Usage};
use evenkeel_program::stop::Stop;
use serde_json::Value;
use std::fmt::Write as _;
use tokio_util::sync::CancellationToken;

/// Show one dead letter: the failure, the headers and the value.
///
/// A line of the headers that begins with ! is a failure header, which a replay removes. Changes
/// nothing.
///
/// Exit codes: 0 shown; 1 there is no record, or the dead letter refers to a record that is gone.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The dead letter, for example dlq.payments.orders/0@17, or its topic, partition and offset.
    #[arg(required = true, num_args = 1..=3, value_name = "TOPIC/PARTITION@OFFSET")]
    dead_letter: Vec<String>,

    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    output: ShowOutput,
}

/// The output formats of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ShowOutput {
    /// Text for people.
    Text,
    /// The JSON object that export writes, on several lines.
    Json,
    /// The JSON object that export writes, on one line.
    Jsonl,
}

impl ShowArgs {
    /// The position of the dead letter.
    pub(super) fn position(&self) -> Result<RecordPosition, Usage> {
        let text = match self.dead_letter.as_slice() {
            [position] => position.clone(),
            [topic, partition, offset] => format!("{topic}/{partition}@{offset}"),
            _ => {
                return Err(Usage(
                    "write TOPIC/PARTITION@OFFSET, or TOPIC PARTITION OFFSET".to_owned(),
                ));
            }
        };
        text.parse().map_err(Usage)
    }
}

/// Reads and prints the dead letter.
pub(super) async fn run(
    args: ShowArgs,
    cluster: Cluster,
    admin: &Admin,
    stop: Stop,
) -> anyhow::Result<Ending> {
    let position = args.position()?;
    let replayed = replay_log::replay_of_dead_letter(&cluster, admin, &position).await?;
    let wanted = position.clone();
    let token = stop.token().clone();
    let find = move || find(&cluster, &wanted, &token);
    let (dead_letter, gone) = match tokio::task::spawn_blocking(find).await?? {
        Some(Restored::Whole(dead_letter)) => (dead_letter, None),
        Some(Restored::Gone(dead_letter, why)) => (dead_letter, Some(why)),
        Some(Restored::Stopped) => {
            return Ok(stop.ending());
        }
        None => anyhow::bail!(
            "there is no record at {position}: it was deleted, compacted or not written yet"
        ),
    };
    // The restored record of a truncated dead letter is the original, not the dead letter.
    let is_reference = dead_letter.failure.is_reference;
    let replayed =
        replayed.filter(|replayed| is_reference || replayed.is_of(dead_letter.record.timestamp_ms));
    let whole = || record_json::of(&dead_letter.record, Some(&dead_letter.failure));
    match args.output {
        ShowOutput::Text => print(&describe(&dead_letter, replayed.as_ref()))?,
        ShowOutput::Json => print_json(OutputFormat::Json, &whole())?,
        ShowOutput::Jsonl => print_json(OutputFormat::Jsonl, &whole())?,
    }
    Ok(match gone {
        None => Ending::Done,
        Some(why) => {
            say!("{position}: {why}");
            Ending::SomeFailed
        }
    })
}

/// The dead letter at that position. A truncated one is restored if its original still exists.
fn find(
    cluster: &Cluster,
    at: &RecordPosition,
    stop: &CancellationToken,
) -> Result<Option<Restored>, KafkaError> {
    match look_up(cluster, at, stop)? {
        Lookup::Record(record) => restore(cluster, DeadLetterRecord::new(*record), stop).map(Some),
        Lookup::Stopped => Ok(Some(Restored::Stopped)),
        Lookup::Nothing => Ok(None),
    }
}

/// The dead letter in words: first the failure, then the headers, then the value. Absent facts have
/// no line.
fn describe(dead_letter: &DeadLetterRecord, replayed: Option<&Replayed>) -> String {
    let failure = &dead_letter.failure;
    let mut text = String::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<14} {}", visible(&value));
        }
    };
    let source = failure.topic.as_ref().map(|topic| {
        let number =
            |number: Option<i64>| number.map_or("?".to_owned(), |number| number.to_string());
        let partition = number(failure.partition.map(i64::from));
        format!("{topic}/{partition}@{}", number(failure.offset))
    });
    line("dead letter", Some(dead_letter.position().to_string()));
    line("failed on", source);
    line("group", failure.group.clone());
    line("service", failure.service.clone());
    line("instance", failure.instance.clone());
    line("class", failure.class.clone());
    line("stage", failure.stage.clone());
    line("message", failure.message.clone());
    line(
        "attempts",
        failure.attempts.map(|attempts| attempts.to_string()),
    );
    line("failed at", dead_letter.time().map(|time| time.to_string()));
    let first = failure
        .first_failure
        .filter(|first| Some(*first) != failure.last_failure);
    line("first failure", first.map(|time| time.to_string()));
    let replays = Some(failure.replay_count).filter(|count| *count > 0);
    line("replays before", replays.map(|count| count.to_string()));
    line(
        "replayed",
        Some(replayed.map_or("no".to_owned(), |replayed| {
            format!("to {} by {} at {}", replayed.to, replayed.by, replayed.at)
        })),
    );
    let key = dead_letter.record.key.as_deref();
    line(
        "key",
        Some(key.map_or("none".to_owned(), |key| content(key).0)),
    );
    text.push_str("\nheaders\n");
    for (name, value) in dead_letter.record.headers.iter() {
        let mark = if failure.is_failure_header(name) {
            '!'
        } else {
            ' '
        };
        let value = value.map_or("(none)".to_owned(), |value| content(value).0);
        let _ = writeln!(
            text,
            "{mark} {} = {}",
            visible(&content(name).0),
            visible(&value)
        );
    }
    match dead_letter.record.value.as_deref().map(content) {
        None if dead_letter.is_empty_without_original() => {
            text.push_str("\nno value: this dead letter refers to a record that is gone");
        }
        None => text.push_str("\nno value: a tombstone"),
        Some((value, kind)) => {
            let _ = write!(text, "\nvalue, {kind}\n{value}");
        }
    }
    text.push('\n');
    text
}

/// Bytes in human form, and their kind.
fn content(bytes: &[u8]) -> (String, &'static str) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return (dump(bytes), "bytes in hexadecimal");
    };
    // Binary numbers may be valid UTF-8 of control characters.
    if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return (dump(bytes), "bytes in hexadecimal");
    }
    // Printed unchanged: reformatting would change large numbers and drop duplicate members.
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(_) | Value::Array(_)) => (text.to_owned(), "JSON"),
        _ => (text.to_owned(), "text"),
    }
}

/// Sixteen bytes per line.
fn dump(bytes: &[u8]) -> String {
    let line = |line: &[u8]| {
        let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.join(" ")
    };
    let lines: Vec<String> = bytes.chunks(16).map(line).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_is_named_in_one_word_or_three() {
        let check = |words: &[&str], expected: Option<&str>| {
            let args = ShowArgs {
                dead_letter: words.iter().map(|word| (*word).to_owned()).collect(),
                output: ShowOutput::Text,
            };
            let position = args.position().ok().map(|position| position.to_string());
            assert_eq!(position.as_deref(), expected, "{words:?}");
        };
        check(&["dlq.g.t/1@2"], Some("dlq.g.t/1@2"));
        check(&["dlq.g.t", "1", "2"], Some("dlq.g.t/1@2"));
        check(&["dlq.g.t", "1"], None);
        check(&["dlq.g.t"], None);
    }

    #[test]
    fn bytes_are_shown_as_what_they_are() {
        let check = |bytes: &[u8], expected: &str, kind: &str| {
            assert_eq!(content(bytes), (expected.to_owned(), kind));
        };
        check(b"plain", "plain", "text");
        check(b"17", "17", "text");
        check(b"{\"a\":1}", "{\"a\":1}", "JSON");
        check(&[0, 0, 0, 3], "00 00 00 03", "bytes in hexadecimal");
        check(
            &[0xff; 17],
            &format!("{}\nff", ["ff"; 16].join(" ")),
            "bytes in hexadecimal",
        );
    }
}

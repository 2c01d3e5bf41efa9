//! `evenkeel dlq show`: one letter, whole.

use super::Cluster;
use super::letters::{Letter, Look, look};
use super::marks;
use super::originals::{Restored, restore};
use crate::envelope;
use crate::exit::{Ending, Usage};
use crate::format::{printable, without_control};
use crate::stop::Stop;
use clap::{Args, ValueEnum};
use evenkeel::kafka::admin::Admin;
use evenkeel::recovery::{Position, Replayed, is_failure_header};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

/// Show one letter: what failed, its headers and its value.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The letter, for example dlq.payments.orders/0@17, or its topic, partition and offset.
    #[arg(required = true, num_args = 1..=3, value_name = "TOPIC/PARTITION@OFFSET")]
    letter: Vec<String>,

    /// How to write it.
    #[arg(short, long, value_enum, default_value = "text")]
    output: LetterOutput,
}

/// How a letter is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LetterOutput {
    /// For people.
    Text,
    /// The object that export writes.
    Json,
}

impl ShowArgs {
    /// The letter that is meant.
    pub(super) fn position(&self) -> Result<Position, Usage> {
        let text = match self.letter.as_slice() {
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

/// Reads and shows the letter.
pub(super) async fn run(
    args: ShowArgs,
    cluster: Cluster,
    admin: &Admin,
    stop: Stop,
) -> anyhow::Result<Ending> {
    let position = args.position()?;
    let replayed = marks::of_letter(&cluster, admin, &position).await?;
    let wanted = position.clone();
    let find = move || find(&cluster, &wanted, &stop);
    let (letter, gone) = match tokio::task::spawn_blocking(find).await?? {
        Some(Restored::Whole(letter)) => (letter, None),
        Some(Restored::Gone(letter, why)) => (letter, Some(why)),
        Some(Restored::Stopped(signal)) => return Ok(Ending::Stopped(signal)),
        None => anyhow::bail!(
            "there is no record at {position}: it was deleted, compacted away or not written yet"
        ),
    };
    // Of a reference this is the original by now, and not the letter.
    let is_reference = letter.failure.is_reference;
    let replayed =
        replayed.filter(|replayed| is_reference || replayed.is_of(letter.record.timestamp_ms));
    let mut text = match args.output {
        LetterOutput::Text => describe(&letter, replayed.as_ref()),
        LetterOutput::Json => {
            serde_json::to_string_pretty(&envelope::of(&letter.record, Some(&letter.failure)))?
        }
    };
    text.push('\n');
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        out.write_all(&without_control(text.as_bytes()))?;
    } else {
        out.write_all(text.as_bytes())?;
    }
    out.flush()?;
    Ok(match gone {
        None => Ending::Done,
        Some(why) => {
            anstream::eprintln!("evenkeel: {position}: {why}");
            Ending::SomeFailed
        }
    })
}

/// The letter at that position, with its value if it is a reference and that is to be had.
fn find(cluster: &Cluster, at: &Position, stop: &Stop) -> anyhow::Result<Option<Restored>> {
    match look(cluster, at, stop)? {
        Look::Record(record) => restore(cluster, Letter::new(*record), stop).map(Some),
        Look::Stopped(signal) => Ok(Some(Restored::Stopped(signal))),
        Look::Nothing => Ok(None),
    }
}

/// The letter in words.
fn describe(letter: &Letter, replayed: Option<&Replayed>) -> String {
    let failure = &letter.failure;
    let mut text = String::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{name:<14} {}", printable(&value));
        }
    };
    let source = failure.topic.as_ref().map(|topic| {
        let number =
            |number: Option<i64>| number.map_or("?".to_owned(), |number| number.to_string());
        let partition = number(failure.partition.map(i64::from));
        format!("{topic}/{partition}@{}", number(failure.offset))
    });
    line("letter", Some(letter.position().to_string()));
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
    line("failed at", letter.time().map(|time| time.to_string()));
    let first = failure
        .first_failure
        .filter(|first| Some(*first) != failure.last_failure);
    line("first failure", first.map(|time| time.to_string()));
    let trips = Some(failure.replay_count).filter(|count| *count > 0);
    line("trips before", trips.map(|count| count.to_string()));
    line(
        "replayed",
        Some(replayed.map_or("no".to_owned(), |replayed| {
            format!("to {} by {} at {}", replayed.to, replayed.by, replayed.at)
        })),
    );
    let key = letter.record.key.as_deref();
    line(
        "key",
        Some(key.map_or("none".to_owned(), |key| content(key).0)),
    );
    text.push_str("\nheaders\n");
    for (name, value) in letter.record.headers.iter() {
        let mark = if is_failure_header(name) { '!' } else { ' ' };
        let value = value.map_or("(none)".to_owned(), |value| content(value).0);
        let _ = writeln!(
            text,
            "{mark} {} = {}",
            printable(&content(name).0),
            printable(&value)
        );
    }
    match letter.record.value.as_deref().map(content) {
        None if failure.is_reference => {
            text.push_str("\nno value: this letter refers to a record that is gone");
        }
        None => text.push_str("\nno value: a tombstone"),
        Some((value, kind)) => {
            let _ = write!(text, "\nvalue, {kind}\n{value}");
        }
    }
    text
}

/// Bytes for people, and what they are.
fn content(bytes: &[u8]) -> (String, &'static str) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return (dump(bytes), "bytes in hexadecimal");
    };
    // Binary numbers are valid text of control characters.
    if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return (dump(bytes), "bytes in hexadecimal");
    }
    // Shown as it stands: written anew, large numbers and members that are there twice would change.
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(_) | Value::Array(_)) => (text.to_owned(), "JSON"),
        _ => (text.to_owned(), "text"),
    }
}

/// Sixteen bytes a line.
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
    fn a_letter_is_named_in_one_word_or_in_three() {
        let check = |words: &[&str], expected: Option<&str>| {
            let args = ShowArgs {
                letter: words.iter().map(|word| (*word).to_owned()).collect(),
                output: LetterOutput::Text,
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

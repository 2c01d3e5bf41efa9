//! Which letters a command is about: topics, and filters that all have to match.

use super::letters::Letter;
use crate::time;
use crate::wildcard::matches;
use clap::Args;
use evenkeel::event::decode;
use evenkeel::kafka::admin::Admin;
use jiff::Timestamp;

/// What the names of dead-letter topics begin with.
const PREFIX: &str = "dlq.";

/// Where the letters are.
#[derive(Debug, Args)]
pub(super) struct TopicArgs {
    /// Dead-letter topics.
    #[arg(value_name = "TOPIC")]
    pub(super) topics: Vec<String>,

    /// What this group gave up: its topics dlq.GROUP.*, and of a named topic its letters.
    #[arg(short, long)]
    pub(super) group: Option<String>,
}

/// Which of the letters; all filters that are given have to match.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct FilterArgs {
    /// Only letters with this key; the pattern may hold * and ?.
    #[arg(long, value_name = "PATTERN")]
    key: Option<String>,

    /// Only failures of this class, for example permanent or *TimeoutException.
    #[arg(long, value_name = "PATTERN")]
    class: Option<String>,

    /// Only failures at this stage, for example decode, schema or handler.
    #[arg(long, value_name = "PATTERN")]
    stage: Option<String>,

    /// Only events of this type, for example shop.order-*.
    #[arg(long = "type", value_name = "PATTERN")]
    ty: Option<String>,

    /// Only failures whose message contains this text.
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,

    /// Only failures of this time or later: 2026-05-01T12:00:00Z, or an age such as -1h.
    #[arg(long, value_name = "TIME", value_parser = time::parse, allow_hyphen_values = true)]
    since: Option<Timestamp>,

    /// Only failures before this time.
    #[arg(long, value_name = "TIME", value_parser = time::parse, allow_hyphen_values = true)]
    until: Option<Timestamp>,

    /// Only these partitions of the dead-letter topics.
    #[arg(short, long, value_name = "NUMBER")]
    partition: Vec<i32>,
}

impl TopicArgs {
    /// Whether anything was named.
    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.group.is_none()
    }

    /// The topics, sorted: those that are named, or those that exist.
    pub(super) async fn resolve(&self, admin: &Admin) -> anyhow::Result<Vec<String>> {
        let mut topics = self.topics.clone();
        if topics.is_empty() {
            topics = self.among(admin.topics().await?);
            if let (true, Some(group)) = (topics.is_empty(), &self.group) {
                anyhow::bail!(
                    "no topic begins with {PREFIX}{group}. ; see what there is with: evenkeel dlq list"
                );
            }
        }
        topics.sort_unstable();
        topics.dedup();
        Ok(topics)
    }

    fn among(&self, mut existing: Vec<String>) -> Vec<String> {
        let prefix = match &self.group {
            Some(group) => format!("{PREFIX}{group}."),
            None => PREFIX.to_owned(),
        };
        existing.retain(|topic| topic.starts_with(&prefix));
        existing
    }
}

/// The filters of a command.
#[derive(Debug)]
pub(super) struct Filter {
    args: FilterArgs,
    group: Option<String>,
}

impl Filter {
    pub(super) fn new(args: FilterArgs, topics: &TopicArgs) -> Self {
        let group = topics.group.clone();
        Self { args, group }
    }

    /// Whether the command is about this letter. What a letter does not say matches nothing, but its group: `dlq.a.b.c` may
    /// be a topic of the groups `a` and `a.b`, and only letters that say so can be told apart.
    pub(super) fn admits(&self, letter: &Letter) -> bool {
        let args = &self.args;
        let failure = &letter.failure;
        let fits = |pattern: &Option<String>, text: Option<&[u8]>| {
            let matches =
                |pattern: &String| text.is_some_and(|text| matches(pattern.as_bytes(), text));
            pattern.as_ref().is_none_or(matches)
        };
        let bytes = |text: &Option<String>| text.clone().map(String::into_bytes);
        let group_fits = match (&self.group, &failure.group) {
            (Some(wanted), Some(group)) => wanted == group,
            _ => true,
        };
        let contains = |text: &String| {
            let message = failure.message.as_deref();
            message.is_some_and(|message| message.contains(text.as_str()))
        };
        let time = letter.time();
        group_fits
            && (args.partition.is_empty() || args.partition.contains(&letter.record.partition))
            && fits(&args.key, letter.record.key.as_deref())
            && fits(&args.class, bytes(&failure.class).as_deref())
            && fits(&args.stage, bytes(&failure.stage).as_deref())
            && args.grep.as_ref().is_none_or(contains)
            && args
                .since
                .is_none_or(|since| time.is_some_and(|time| time >= since))
            && args
                .until
                .is_none_or(|until| time.is_some_and(|time| time < until))
            && (args.ty.is_none() || fits(&args.ty, event_type(letter).as_deref()))
    }
}

/// The event's type, also of a record that is no valid event but says one.
fn event_type(letter: &Letter) -> Option<Vec<u8>> {
    let record = &letter.record;
    match record.headers.last("ce_type") {
        Some(ty) => Some(ty.to_vec()),
        None => {
            let event = decode(record.headers.iter(), record.value.as_deref()).ok()?;
            Some(event.attributes.ty.into_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use evenkeel::event::Headers;
    use evenkeel::kafka::reader::{LogRecord, TimestampKind};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        topics: TopicArgs,
        #[command(flatten)]
        filter: FilterArgs,
    }

    fn parse(args: &[&str]) -> Line {
        Line::try_parse_from([&["test"], args].concat()).unwrap()
    }

    fn letter() -> Letter {
        let mut headers = Headers::new();
        for (name, value) in [
            ("ce_type", "shop.order-placed.v1"),
            ("__dlq.errors.group", "payments"),
            ("__dlq.errors.message", "card 17 refused"),
            ("evenkeel.dlq.error.class", "permanent"),
            ("evenkeel.dlq.error.stage", "handler"),
            ("evenkeel.dlq.error.timestamp", "2026-11-21T10:00:00Z"),
        ] {
            headers.push(name, Some(value.as_bytes()));
        }
        Letter::new(LogRecord {
            topic: "dlq.payments.orders".into(),
            partition: 2,
            offset: 7,
            timestamp_kind: TimestampKind::Create,
            timestamp_ms: Some(0),
            key: Some(b"o-1".to_vec()),
            value: Some(b"{}".to_vec()),
            headers,
        })
    }

    #[test]
    fn every_filter_that_is_given_has_to_match() {
        let check = |args: &[&str], expected| {
            let line = parse(args);
            let filter = Filter::new(line.filter, &line.topics);
            assert_eq!(filter.admits(&letter()), expected, "{args:?}");
        };
        check(&[], true);
        check(&["--key", "o-?"], true);
        check(&["--key", "o"], false);
        check(&["--class", "perm*", "--stage", "handler"], true);
        check(&["--class", "permanent", "--stage", "decode"], false);
        check(&["--type", "shop.order-*"], true);
        check(&["--type", "shop.stock-*"], false);
        check(&["--grep", "17 ref"], true);
        check(&["--grep", "18"], false);
        check(&["-p", "1", "-p", "2"], true);
        check(&["-p", "1"], false);
        check(&["--since", "2026-11-21T10:00:00Z"], true);
        check(&["--since", "2026-11-21T10:00:01Z"], false);
        check(&["--until", "2026-11-21T10:00:01Z"], true);
        check(&["--until", "2026-11-21T10:00:00Z"], false);
        check(&["--group", "payments"], true);
        check(&["--group", "pay"], false);
    }

    #[test]
    fn what_a_letter_does_not_say_matches_nothing() {
        let mut silent = letter();
        silent.record.headers = Headers::new();
        silent.record.timestamp_ms = None;
        let silent = Letter::new(silent.record);
        let check = |args: &[&str], expected| {
            let line = parse(args);
            let filter = Filter::new(line.filter, &line.topics);
            assert_eq!(filter.admits(&silent), expected, "{args:?}");
        };
        for flag in ["--class", "--stage", "--type"] {
            check(&[flag, "*"], false);
        }
        check(&["--grep", ""], false);
        check(&["--since", "0"], false);
        check(&["--group", "payments"], true);
    }

    #[test]
    fn a_group_has_the_topics_that_are_named_after_it() {
        let existing = ["dlq.a.t", "dlq.ab.t", "a.t", "replays.dlq.a.t"].map(str::to_owned);
        let check = |args: &[&str], expected: &[&str]| {
            assert_eq!(parse(args).topics.among(existing.to_vec()), expected);
        };
        check(&[], &["dlq.a.t", "dlq.ab.t"]);
        check(&["-g", "a"], &["dlq.a.t"]);
        check(&["-g", "b"], &[]);
    }
}

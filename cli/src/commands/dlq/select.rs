//! The dead letters of a command: topics and filters. All filters must match.
//!
//! Without topics and group, the topics are those whose names begin with `dlq.`; commands that
//! change something require one of them.

use crate::arguments::timestamp;
use crate::output::observer::Stderr;
use clap::Args;
use evenkeel::kafka::admin::Admin;
use evenkeel_ops::dead_letters::DeadLetterError;
use evenkeel_ops::dead_letters::select::{Filter, Topics};
use jiff::Timestamp;

/// The topics of the dead letters.
#[derive(Debug, Args)]
pub(super) struct TopicArgs {
    /// Dead-letter topics.
    #[arg(value_name = "TOPIC")]
    pub(super) topics: Vec<String>,

    /// The group that dead-lettered the records: its topics dlq.GROUP.*; of a named topic, only its
    /// dead letters.
    #[arg(short, long)]
    pub(super) group: Option<String>,
}

/// Filters. A dead letter must match all that are given.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct FilterArgs {
    /// Only dead letters with this key; * and ? are wildcards.
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

    /// Only failures at or after this time: 2026-05-01T12:00:00Z, or an age such as -1h.
    #[arg(long, value_name = "TIME", value_parser = timestamp::parse, allow_hyphen_values = true)]
    since: Option<Timestamp>,

    /// Only failures before this time, in the same form.
    #[arg(long, value_name = "TIME", value_parser = timestamp::parse, allow_hyphen_values = true)]
    until: Option<Timestamp>,

    /// Only this partition of the dead-letter topics; may be repeated.
    #[arg(short, long, value_name = "NUMBER")]
    partition: Vec<i32>,
}

impl TopicArgs {
    /// Whether any topic or group was named.
    pub(super) fn is_empty(&self) -> bool {
        self.of_group().is_empty()
    }

    /// The selection as the operations take it.
    fn of_group(&self) -> Topics {
        Topics::default()
            .with_named(self.topics.iter().cloned())
            .with_group(self.group.clone())
    }

    /// The sorted topics: the named ones, or those that exist. Topics that the user may not see are
    /// announced on standard error, because a missing topic and a hidden one look the same.
    pub(super) async fn resolve(&self, admin: &Admin) -> Result<Vec<String>, DeadLetterError> {
        self.of_group().resolve(admin, &Stderr).await
    }
}

impl FilterArgs {
    /// The filter of these flags for the dead letters of `topics`.
    pub(super) fn of(self, topics: &TopicArgs) -> Filter {
        Filter::default()
            .with_group(topics.group.clone())
            .with_partitions(self.partition)
            .with_key(self.key)
            .with_class(self.class)
            .with_stage(self.stage)
            .with_event_type(self.ty)
            .with_message_contains(self.grep)
            .with_since(self.since)
            .with_until(self.until)
    }
}

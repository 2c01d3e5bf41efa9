//! The scope of a command, from its arguments. Pure.
//!
//! Three structs, each with one more choice: a place (group, topic, partition), a place or a key, a
//! place or a key or a record. A command takes the one whose scopes its action allows.

use clap::Args;
use evenkeel::control::Scope;
use evenkeel::kafka::RecordPosition;
use evenkeel_program::exit::Usage;

/// A topic or a partition. Without either flag, the whole group.
#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    /// Only this topic.
    #[arg(short, long, value_name = "TOPIC")]
    topic: Option<String>,

    /// Only this partition of --topic.
    #[arg(short, long, value_name = "NUMBER", requires = "topic")]
    partition: Option<i32>,
}

impl PlaceArgs {
    /// The scope that the arguments name.
    pub(super) fn scope(&self) -> Result<Scope, Usage> {
        let Some(topic) = &self.topic else {
            return Ok(Scope::Group);
        };
        let text = match self.partition {
            Some(partition) => format!("partition/{topic}/{partition}"),
            None => format!("topic/{topic}"),
        };
        text.parse().map_err(Usage)
    }
}

/// The scope of [`PlaceArgs`], or one key.
#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    #[command(flatten)]
    place: PlaceArgs,

    /// Only this key of --topic; its parked records continue even if the key is held.
    #[arg(
        long,
        value_name = "KEY",
        requires = "topic",
        conflicts_with = "partition"
    )]
    key: Option<String>,
}

impl TargetArgs {
    /// The scope that the arguments name.
    pub(super) fn scope(&self) -> Result<Scope, Usage> {
        match (&self.place.topic, &self.key) {
            (Some(topic), Some(key)) => Ok(Scope::Key {
                topic: topic.clone(),
                key: key.as_bytes().to_vec(),
            }),
            _ => self.place.scope(),
        }
    }
}

/// The scope of [`TargetArgs`], or one record.
#[derive(Debug, Args)]
pub(super) struct RecordOrTargetArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Only this record.
    #[arg(
        long,
        value_name = "TOPIC/PARTITION@OFFSET",
        conflicts_with_all = ["topic", "partition", "key"]
    )]
    record: Option<RecordPosition>,
}

impl RecordOrTargetArgs {
    /// The scope that the arguments name.
    pub(super) fn scope(&self) -> Result<Scope, Usage> {
        match &self.record {
            Some(record) => Ok(Scope::Record(record.clone())),
            None => self.target.scope(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_name_a_scope_or_are_refused() {
        let check = |topic: Option<&str>, partition, key: Option<&str>, expected: Option<&str>| {
            let args = TargetArgs {
                place: PlaceArgs {
                    topic: topic.map(str::to_owned),
                    partition,
                },
                key: key.map(str::to_owned),
            };
            let scope = args.scope().ok().map(|scope| scope.to_string());
            assert_eq!(scope.as_deref(), expected, "{args:?}");
        };
        check(None, None, None, Some("group"));
        check(Some("t"), None, None, Some("topic/t"));
        check(Some("t"), Some(3), None, Some("partition/t/3"));
        check(Some("t"), None, Some("k 1"), Some("key/t/k%201"));
        check(Some("a b"), None, None, None);
        check(Some("t"), Some(-1), None, None);
    }
}

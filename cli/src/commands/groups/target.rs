//! What a command is about, as arguments say it. Pure.

use crate::exit::Usage;
use clap::Args;
use evenkeel::control::Scope;
use evenkeel::recovery::Position;

/// The whole group, unless a topic, a partition or a key is named.
#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// Only this topic.
    #[arg(short, long, value_name = "TOPIC")]
    topic: Option<String>,

    /// Only this partition of --topic.
    #[arg(short, long, value_name = "NUMBER", requires = "topic")]
    partition: Option<i32>,

    /// Only this key of --topic: its parked records go on, also where it is held. A key cannot be paused.
    #[arg(
        long,
        value_name = "KEY",
        requires = "topic",
        conflicts_with = "partition"
    )]
    key: Option<String>,
}

impl TargetArgs {
    /// The scope that they name.
    pub(super) fn scope(&self) -> Result<Scope, Usage> {
        let Some(topic) = &self.topic else {
            return Ok(Scope::Group);
        };
        let text = match (self.partition, &self.key) {
            (Some(partition), _) => format!("partition/{topic}/{partition}"),
            (None, Some(key)) => {
                return Ok(Scope::Key {
                    topic: topic.clone(),
                    key: key.as_bytes().to_vec(),
                });
            }
            (None, None) => format!("topic/{topic}"),
        };
        text.parse().map_err(Usage)
    }
}

/// One record, or what [`TargetArgs`] says.
#[derive(Debug, Args)]
pub(super) struct RecordOrTargetArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Only this record.
    #[arg(long, value_name = "TOPIC/PARTITION@OFFSET", conflicts_with_all = ["topic", "partition", "key"])]
    record: Option<Position>,
}

impl RecordOrTargetArgs {
    /// The scope that they name.
    pub(super) fn scope(&self) -> Result<Scope, Usage> {
        match &self.record {
            Some(record) => Ok(Scope::Record(record.clone())),
            None => self.target.scope(),
        }
    }
}

/// What a scope is in a sentence.
pub(super) fn in_words(scope: &Scope) -> String {
    match scope {
        Scope::Group => "the whole group".to_owned(),
        Scope::Topic(topic) => format!("the topic {topic}"),
        Scope::Partition { topic, partition } => format!("{topic}/{partition}"),
        Scope::Record(record) => format!("the record {record}"),
        Scope::Key { topic, key } => {
            format!("the key {} of {topic}", String::from_utf8_lossy(key))
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
                topic: topic.map(str::to_owned),
                partition,
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

//! The required configuration of a group's own topics.
//!
//! Pure. Records in these topics must stay until they are settled or an operator has dealt with
//! them. So no setting is left to a default of the brokers that could delete, refuse or reorder
//! them.
//!
//! Replication and `min.insync.replicas` follow the source topics, so that a parked record is as
//! safe as the record that it replaces.

use crate::consumer::group_topics::kinds::GroupTopicKind;
use crate::control::control_topic_config;
use crate::kafka::admin::Settings;
use std::collections::BTreeMap;

/// The least record size that a topic of the group's own accepts. A source whose limit is unknown,
/// or is raised later, then still fits in most cases.
const RECORD_BYTES_MIN: u32 = 8 << 20;
/// Room for the headers that this library adds, at creation.
const HEADERS_BYTES: u32 = 1 << 20;
/// Kafka's own default: every record fits into a segment.
const SEGMENT_BYTES: u64 = 1 << 30;

/// The properties of a source topic that the group's own topics depend on.
///
/// Own topics with several sources (a single dead-letter topic, the control topic) take the largest
/// value of each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Source {
    pub(crate) partitions: usize,
    pub(crate) replicas: usize,
    /// Empty if the brokers do not show them.
    pub(crate) settings: Settings,
}

impl Source {
    /// The largest record that it accepts, in bytes. None if the brokers do not show it.
    fn record_bytes(&self) -> Option<u32> {
        numeric_setting(&self.settings, "max.message.bytes")
            .and_then(|bytes| u32::try_from(bytes).ok())
    }
}

/// A setting's value as a number. None if it has none, or is not shown.
pub(crate) fn numeric_setting(settings: &Settings, name: &str) -> Option<i64> {
    settings.get(name)?.value.parse().ok()
}

/// The required configuration of a topic.
///
/// `essential` and `further` are separate, because a cluster may refuse some settings (a policy, an
/// old broker): the topic is then created with the essential ones, and faults in the others are
/// reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) partitions: usize,
    /// -1 for the brokers' default.
    pub(crate) replication: i32,
    /// Settings without which the topic must not be created.
    pub(crate) essential: BTreeMap<String, String>,
    /// Further settings that protect it from the brokers' defaults. Not every cluster accepts all
    /// of them.
    pub(crate) further: BTreeMap<String, String>,
    /// The largest record that must fit, in bytes, without this library's headers. None if unknown.
    pub(crate) record_bytes: Option<u32>,
}

/// The required configuration of the topic of this kind that belongs to these sources.
///
/// | setting | retry, dead letters | control | reason |
/// |---|---|---|---|
/// | partitions | as the source | 1 | same numbers; one order of commands |
/// | replicas | as the source | as the source | as safe as the source |
/// | `cleanup.policy` | `delete` | `compact` | nothing is replaced by key; the latest counts |
/// | `retention.*` | unlimited | | no record goes by age or size |
/// | `max.message.bytes` | the source's and 1 MiB, at least 9 MiB | | room for our headers |
/// | `compression.type` | `producer` | | stored as it was sent |
/// | `message.timestamp.*` | `CreateTime`, no limits | `LogAppendTime` | whose clock counts |
/// | `segment.bytes` | 1 GiB | 1 GiB | every record fits |
/// | `min.insync.replicas` | as the source | as the source | as safe as the source |
/// | `unclean.leader.election.enable` | `false` | `false` | acknowledged means kept |
pub(crate) fn required_spec(kind: GroupTopicKind, sources: &[&Source]) -> Spec {
    let partitions = sources.iter().map(|source| source.partitions).max();
    let replicas = sources.iter().map(|source| source.replicas).max();
    let replication = match replicas {
        // As many replicas as the source.
        Some(replicas) if replicas > 0 => i32::try_from(replicas).unwrap_or(-1),
        _ => -1,
    };
    if kind == GroupTopicKind::Control {
        return Spec {
            partitions: 1,
            replication,
            essential: control_topic_config(),
            further: protective_settings(sources),
            record_bytes: None,
        };
    }
    let record_bytes = sources
        .iter()
        .filter_map(|source| source.record_bytes())
        .max();
    let bytes_max = record_bytes.unwrap_or(0).max(RECORD_BYTES_MIN);
    let bytes_max = bytes_max.saturating_add(HEADERS_BYTES).min(i32::MAX as u32);
    let mut further = protective_settings(sources);
    further.extend([
        ("compression.type".to_owned(), "producer".to_owned()),
        ("message.timestamp.type".to_owned(), "CreateTime".to_owned()),
    ]);
    let limits = [
        "message.timestamp.before.max.ms",
        "message.timestamp.after.max.ms",
        "message.timestamp.difference.max.ms",
    ];
    // Brokers refuse a topic with a setting that they do not know.
    let known = limits
        .iter()
        .filter(|name| sources.iter().any(|it| it.settings.contains_key(**name)));
    further.extend(known.map(|name| ((*name).to_owned(), i64::MAX.to_string())));
    Spec {
        partitions: partitions.unwrap_or(1),
        replication,
        essential: BTreeMap::from([
            ("cleanup.policy".to_owned(), "delete".to_owned()),
            ("retention.ms".to_owned(), "-1".to_owned()),
            ("retention.bytes".to_owned(), "-1".to_owned()),
            ("max.message.bytes".to_owned(), bytes_max.to_string()),
        ]),
        further,
        record_bytes,
    }
}

/// The settings that protect every own topic, whatever the brokers' defaults.
fn protective_settings(sources: &[&Source]) -> BTreeMap<String, String> {
    let mut protective = BTreeMap::from([
        ("segment.bytes".to_owned(), SEGMENT_BYTES.to_string()),
        (
            "unclean.leader.election.enable".to_owned(),
            "false".to_owned(),
        ),
    ]);
    let in_sync = sources
        .iter()
        .filter_map(|source| numeric_setting(&source.settings, "min.insync.replicas"))
        .max();
    if let Some(in_sync) = in_sync {
        protective.insert("min.insync.replicas".to_owned(), in_sync.to_string());
    }
    protective
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kafka::admin::Setting;

    pub(crate) fn settings(values: &[(&str, &str)]) -> Settings {
        let set = |(name, value): &(&str, &str)| {
            let setting = Setting {
                value: (*value).to_owned(),
                is_own: true,
            };
            ((*name).to_owned(), setting)
        };
        values.iter().map(set).collect()
    }

    pub(crate) fn source(values: &[(&str, &str)]) -> Source {
        Source {
            partitions: 6,
            replicas: 3,
            settings: settings(values),
        }
    }

    #[test]
    fn no_unsafe_default_of_the_brokers_applies() {
        let small = source(&[
            ("max.message.bytes", "1048588"),
            ("min.insync.replicas", "2"),
        ]);
        let mut large = source(&[
            ("max.message.bytes", "20000000"),
            ("message.timestamp.after.max.ms", "3600000"),
        ]);
        large.partitions = 12;
        let made = required_spec(GroupTopicKind::Retry, &[&small, &large]);
        assert_eq!((made.partitions, made.replication), (12, 3));
        for (name, value) in [
            ("cleanup.policy", "delete"),
            ("retention.ms", "-1"),
            ("retention.bytes", "-1"),
            ("max.message.bytes", "21048576"),
        ] {
            assert_eq!(
                made.essential.get(name).map(String::as_str),
                Some(value),
                "{name}"
            );
        }
        for (name, value) in [
            ("segment.bytes", "1073741824"),
            ("compression.type", "producer"),
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
            ("message.timestamp.after.max.ms", "9223372036854775807"),
        ] {
            assert_eq!(
                made.further.get(name).map(String::as_str),
                Some(value),
                "{name}"
            );
        }
        assert!(
            !made.further.contains_key("message.timestamp.before.max.ms"),
            "these brokers do not know it"
        );
    }
}

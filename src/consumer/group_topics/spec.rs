//! The required configuration of a group's own topics, and the faults of an actual one.
//!
//! Pure. Records in these topics must stay until they are settled or an operator has dealt with
//! them. So no setting is left to a default of the brokers that could delete, refuse or reorder
//! them.
//!
//! Replication and `min.insync.replicas` follow the source topics, so that a parked record is as
//! safe as the record that it replaces.

use crate::consumer::group_topics::kinds::{GroupTopicKind, TopicFault};
use crate::control::control_topic_config;
use crate::kafka::admin::Settings;
use std::collections::BTreeMap;
use std::time::Duration;

/// The least record size that a topic of the group's own accepts. A source whose limit is unknown,
/// or is raised later, then still fits in most cases.
const RECORD_BYTES_MIN: u32 = 8 << 20;
/// Room for the headers that this library adds, at creation.
const HEADERS_BYTES: u32 = 1 << 20;
/// The least room for these headers and a short message, required of an existing topic.
const HEADERS_BYTES_MIN: u32 = 16 << 10;
/// Kafka's own default: every record fits into a segment.
const SEGMENT_BYTES: u64 = 1 << 30;
/// A limit on timestamps below this is a fault: a clock that is slightly off must not cost a
/// record. Copies keep the timestamp of their source record, which may be old.
const CLOCK_SKEW_MS: i64 = 600_000;

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
        number(&self.settings, "max.message.bytes").and_then(|bytes| u32::try_from(bytes).ok())
    }
}

/// A setting's value as a number. None if it has none, or is not shown.
fn number(settings: &Settings, name: &str) -> Option<i64> {
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
pub(crate) fn spec(kind: GroupTopicKind, sources: &[&Source]) -> Spec {
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
            further: guards(sources),
            record_bytes: None,
        };
    }
    let record_bytes = sources
        .iter()
        .filter_map(|source| source.record_bytes())
        .max();
    let bytes_max = record_bytes.unwrap_or(0).max(RECORD_BYTES_MIN);
    let bytes_max = bytes_max.saturating_add(HEADERS_BYTES).min(i32::MAX as u32);
    let mut further = guards(sources);
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
fn guards(sources: &[&Source]) -> BTreeMap<String, String> {
    let mut guards = BTreeMap::from([
        ("segment.bytes".to_owned(), SEGMENT_BYTES.to_string()),
        (
            "unclean.leader.election.enable".to_owned(),
            "false".to_owned(),
        ),
    ]);
    let in_sync = sources
        .iter()
        .filter_map(|source| number(&source.settings, "min.insync.replicas"))
        .max();
    if let Some(in_sync) = in_sync {
        guards.insert("min.insync.replicas".to_owned(), in_sync.to_string());
    }
    guards
}

/// The faults in the effective settings of a topic of this kind. `kept_min` is how long dead
/// letters must be kept at least; none means for ever.
///
/// Only effective values count, whoever set them. A value that is better than the specification is
/// no fault.
pub(crate) fn faults(
    kind: GroupTopicKind,
    spec: &Spec,
    settings: &Settings,
    replicas: usize,
    kept_min: Option<Duration>,
) -> Vec<TopicFault> {
    let check = SettingsCheck { settings, spec };
    let mut faults = match kind {
        GroupTopicKind::Control => check.control_faults(),
        GroupTopicKind::Retry => {
            check.retention_faults("Kafka deletes parked records before they are handled", None)
        }
        GroupTopicKind::DeadLetters => check.retention_faults(
            "Kafka deletes dead letters before an operator has examined them",
            kept_min,
        ),
    };
    faults.extend(check.write_faults(kind, replicas));
    faults
}

/// The effective settings of a topic, compared with its specification.
struct SettingsCheck<'a> {
    settings: &'a Settings,
    spec: &'a Spec,
}

impl SettingsCheck<'_> {
    /// The effective value of a setting. Empty if the brokers do not know it.
    fn text(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", |set| set.value.as_str())
    }

    /// Whether `cleanup.policy`, a list, contains this policy.
    fn has_policy(&self, policy: &str) -> bool {
        self.text("cleanup.policy")
            .split(',')
            .any(|it| it.trim() == policy)
    }

    /// A fault of this setting, with its value and the one of the specification.
    fn fault(&self, setting: &str, loses: bool, effect: &str) -> TopicFault {
        let found = self.settings.get(setting);
        let wanted = self.spec.essential.get(setting);
        let wanted = wanted.or_else(|| self.spec.further.get(setting));
        TopicFault {
            setting: setting.to_owned(),
            value: found.map_or_else(String::new, |set| set.value.clone()),
            is_default: found.is_none_or(|set| !set.is_own),
            wanted: wanted.cloned().unwrap_or_default(),
            loses,
            effect: effect.to_owned(),
        }
    }

    /// Faults that delete records. A retention of at least `accepted` is no fault.
    ///
    /// Compaction and deletion may be combined (`compact,delete`): both are reported.
    fn retention_faults(&self, effect: &str, accepted: Option<Duration>) -> Vec<TopicFault> {
        let mut faults = Vec::new();
        if self.has_policy("compact") {
            let effect = "compaction deletes records whose key is written again, and refuses records without a key";
            faults.push(self.fault("cleanup.policy", true, effect));
        }
        if !self.has_policy("delete") {
            return faults;
        }
        let is_long =
            |ms: i64| accepted.is_some_and(|min| u128::from(ms.unsigned_abs()) >= min.as_millis());
        if number(self.settings, "retention.ms").is_some_and(|ms| ms >= 0 && !is_long(ms)) {
            faults.push(self.fault("retention.ms", true, effect));
        }
        // A limit by size guarantees no time.
        let is_any = accepted == Some(Duration::ZERO);
        if number(self.settings, "retention.bytes").is_some_and(|bytes| bytes >= 0 && !is_any) {
            faults.push(self.fault("retention.bytes", true, effect));
        }
        faults
    }

    /// Faults that delete commands in force. Compaction alone keeps the latest command of a scope;
    /// with deletion by time or size, a pause that nobody cancelled would end by itself.
    fn control_faults(&self) -> Vec<TopicFault> {
        let is_bounded = ["retention.ms", "retention.bytes"]
            .iter()
            .any(|name| number(self.settings, name).is_some_and(|bound| bound >= 0));
        if !(self.has_policy("delete") && is_bounded) {
            return Vec::new();
        }
        let effect = "Kafka deletes pauses and rates that are still in force";
        vec![self.fault("cleanup.policy", true, effect)]
    }

    /// Faults that prevent records from being written.
    ///
    /// None of them loses a record that was written. A record that cannot be written is
    /// dead-lettered instead of parked, or waits unsettled.
    fn write_faults(&self, kind: GroupTopicKind, replicas: usize) -> Vec<TopicFault> {
        let mut faults = Vec::new();
        let bytes = |name| number(self.settings, name);
        let needed = self
            .spec
            .record_bytes
            .map(|record| record.saturating_add(HEADERS_BYTES_MIN));
        let needed = needed.map(i64::from);
        if let (Some(limit), Some(needed)) = (bytes("max.message.bytes"), needed)
            && limit < needed
        {
            let effect = match kind {
                GroupTopicKind::Retry => {
                    "a large record of the source cannot be parked and is dead-lettered instead"
                }
                _ => "the dead letter of a large record only refers to it",
            };
            faults.push(self.fault("max.message.bytes", false, effect));
        }
        if let (Some(segment), Some(limit)) = (bytes("segment.bytes"), bytes("max.message.bytes"))
            && segment < limit.min(needed.unwrap_or(limit))
        {
            faults.push(self.fault(
                "segment.bytes",
                false,
                "a record that is larger than a segment is refused",
            ));
        }
        if let Some(in_sync) = bytes("min.insync.replicas")
            && replicas > 0
            && in_sync > replicas as i64
        {
            let effect = "the topic has fewer replicas than must be in sync, so that every record is refused";
            faults.push(self.fault("min.insync.replicas", false, effect));
        }
        if self.text("message.timestamp.type") == "CreateTime" {
            for name in [
                "message.timestamp.before.max.ms",
                "message.timestamp.after.max.ms",
                "message.timestamp.difference.max.ms",
            ] {
                if bytes(name).is_some_and(|limit| limit < CLOCK_SKEW_MS) {
                    faults.push(self.fault(
                        name,
                        false,
                        "records of a service whose clock is slightly off are refused",
                    ));
                }
            }
        }
        if self.text("unclean.leader.election.enable") == "true" {
            faults.push(self.fault(
                "unclean.leader.election.enable",
                false,
                "acknowledged records are lost when a replica that lags becomes the leader",
            ));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::admin::Setting;

    fn settings(values: &[(&str, &str)]) -> Settings {
        let set = |(name, value): &(&str, &str)| {
            let setting = Setting {
                value: (*value).to_owned(),
                is_own: true,
            };
            ((*name).to_owned(), setting)
        };
        values.iter().map(set).collect()
    }

    fn source(values: &[(&str, &str)]) -> Source {
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
        let made = spec(GroupTopicKind::Retry, &[&small, &large]);
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

    #[test]
    fn a_topic_that_is_made_so_has_no_fault() {
        let source = source(&[
            ("max.message.bytes", "1048588"),
            ("min.insync.replicas", "2"),
        ]);
        for kind in [
            GroupTopicKind::Retry,
            GroupTopicKind::DeadLetters,
            GroupTopicKind::Control,
        ] {
            let spec = spec(kind, &[&source]);
            let all = spec.essential.iter().chain(&spec.further);
            let all: Vec<(&str, &str)> = all.map(|(name, value)| (&**name, &**value)).collect();
            assert_eq!(faults(kind, &spec, &settings(&all), 3, None), []);
        }
    }

    /// The settings with faults, and whether each loses records.
    fn found(
        kind: GroupTopicKind,
        values: &[(&str, &str)],
        kept_min: Option<Duration>,
    ) -> Vec<(String, bool)> {
        let source = source(&[("max.message.bytes", "1048588")]);
        let spec = spec(kind, &[&source]);
        let faults = faults(kind, &spec, &settings(values), 1, kept_min);
        faults
            .into_iter()
            .map(|fault| (fault.setting, fault.loses))
            .collect()
    }

    #[test]
    fn a_setting_that_deletes_parked_records_loses_them() {
        let check = |values: &[(&str, &str)], expected: &[&str]| {
            let found = found(GroupTopicKind::Retry, values, Some(Duration::ZERO));
            let expected: Vec<_> = expected
                .iter()
                .map(|name| ((*name).to_owned(), true))
                .collect();
            assert_eq!(found, expected, "{values:?}");
        };
        check(
            &[
                ("cleanup.policy", "delete"),
                ("retention.ms", "-1"),
                ("retention.bytes", "-1"),
            ],
            &[],
        );
        check(
            &[("cleanup.policy", "delete"), ("retention.ms", "604800000")],
            &["retention.ms"],
        );
        check(
            &[
                ("cleanup.policy", "delete"),
                ("retention.bytes", "1073741824"),
            ],
            &["retention.bytes"],
        );
        check(
            &[("cleanup.policy", "compact"), ("retention.ms", "604800000")],
            &["cleanup.policy"],
        );
        check(
            &[("cleanup.policy", "compact,delete"), ("retention.ms", "0")],
            &["cleanup.policy", "retention.ms"],
        );
        check(
            &[("cleanup.policy", ""), ("retention.ms", "604800000")],
            &[],
        );
        // Without shown settings there are no known faults.
        check(&[], &[]);
    }

    #[test]
    fn an_operator_may_accept_that_dead_letters_expire() {
        const DAY: Duration = Duration::from_secs(86_400);
        let weekly = [("cleanup.policy", "delete"), ("retention.ms", "604800000")];
        let dead_letters = |values: &[(&str, &str)], kept_min| {
            found(GroupTopicKind::DeadLetters, values, kept_min)
        };
        let by_time = [("retention.ms".to_owned(), true)];
        assert_eq!(dead_letters(&weekly, None), by_time);
        assert_eq!(dead_letters(&weekly, Some(8 * DAY)), by_time);
        assert_eq!(dead_letters(&weekly, Some(7 * DAY)), []);
        let sized = [("cleanup.policy", "delete"), ("retention.bytes", "1000")];
        let by_size = [("retention.bytes".to_owned(), true)];
        assert_eq!(dead_letters(&sized, Some(DAY)), by_size);
        assert_eq!(dead_letters(&sized, Some(Duration::ZERO)), []);
    }

    #[test]
    fn a_setting_that_prevents_writes_is_a_fault() {
        let check = |values: &[(&str, &str)], expected: &[&str]| {
            let found = found(GroupTopicKind::Retry, values, None);
            let expected: Vec<_> = expected
                .iter()
                .map(|name| ((*name).to_owned(), false))
                .collect();
            assert_eq!(found, expected, "{values:?}");
        };
        check(&[("max.message.bytes", "1048588")], &["max.message.bytes"]);
        check(&[("max.message.bytes", "1064972")], &[]);
        check(
            &[
                ("max.message.bytes", "9437184"),
                ("segment.bytes", "1000000"),
            ],
            &["segment.bytes"],
        );
        check(&[("min.insync.replicas", "2")], &["min.insync.replicas"]);
        let limited = ("message.timestamp.after.max.ms", "1000");
        check(
            &[("message.timestamp.type", "CreateTime"), limited],
            &["message.timestamp.after.max.ms"],
        );
        check(&[("message.timestamp.type", "LogAppendTime"), limited], &[]);
        check(
            &[
                ("message.timestamp.type", "CreateTime"),
                ("message.timestamp.after.max.ms", "3600000"),
            ],
            &[],
        );
        check(
            &[("unclean.leader.election.enable", "true")],
            &["unclean.leader.election.enable"],
        );
    }

    #[test]
    fn a_control_topic_must_keep_lasting_commands() {
        let check = |values: &[(&str, &str)], is_fault| {
            let found = found(GroupTopicKind::Control, values, None);
            assert_eq!(!found.is_empty(), is_fault, "{values:?}");
        };
        check(
            &[("cleanup.policy", "compact"), ("retention.ms", "604800000")],
            false,
        );
        check(
            &[("cleanup.policy", "delete"), ("retention.ms", "604800000")],
            true,
        );
        check(
            &[
                ("cleanup.policy", "compact,delete"),
                ("retention.ms", "604800000"),
            ],
            true,
        );
        check(
            &[
                ("cleanup.policy", "delete"),
                ("retention.ms", "-1"),
                ("retention.bytes", "-1"),
            ],
            false,
        );
    }
}

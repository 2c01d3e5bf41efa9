//! What a group's own topics have to be like, and what is wrong with one that is not.
//!
//! Pure. What stands in these topics stays until it is settled or someone has looked at it, so nothing may be left to a
//! default of the brokers that could delete, refuse or reorder it.

use super::{OwnTopicKind, TopicFault};
use crate::control::control_topic_config;
use crate::kafka::admin::Settings;
use std::collections::BTreeMap;
use std::time::Duration;

/// No topic of the group's own takes less a record than this.
const RECORD_BYTES_MIN: u32 = 8 << 20;
/// Room for headers of our own, at creation.
const HEADERS_BYTES: u32 = 1 << 20;
/// What our own headers and a short message take at least, of a topic that exists.
const HEADERS_BYTES_MIN: u32 = 16 << 10;
/// Kafka's own default: every record fits into a segment.
const SEGMENT_BYTES: u64 = 1 << 30;
/// A clock that is further off than this is wrong; one that is less off must not cost a record.
const CLOCK_SKEW_MS: i64 = 600_000;

/// A topic that is read, as far as the group's own topics depend on it.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    pub(super) partitions: usize,
    pub(super) replicas: usize,
    /// Empty where the brokers do not show them.
    pub(super) settings: Settings,
}

impl Source {
    /// Bytes of the largest record that it takes; none where the brokers do not say.
    fn record_bytes(&self) -> Option<u32> {
        number(&self.settings, "max.message.bytes").and_then(|bytes| u32::try_from(bytes).ok())
    }
}

fn number(settings: &Settings, name: &str) -> Option<i64> {
    settings.get(name)?.value.parse().ok()
}

/// A topic as it has to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) partitions: usize,
    /// -1 for the brokers' default.
    pub(super) replication: i32,
    /// What it cannot do without.
    pub(super) essential: BTreeMap<String, String>,
    /// What guards it from defaults of the brokers beside that. Not every cluster lets everything be set.
    pub(super) further: BTreeMap<String, String>,
    /// Bytes of the largest record that is to fit in without our headers; none where that is not known.
    pub(super) record_bytes: Option<u32>,
}

/// What the topic of this kind has to be like that belongs to these sources.
pub(super) fn spec(kind: OwnTopicKind, sources: &[&Source]) -> Spec {
    let partitions = sources.iter().map(|source| source.partitions).max();
    let replicas = sources.iter().map(|source| source.replicas).max();
    let replication = match replicas {
        // As safe as what it is about.
        Some(replicas) if replicas > 0 => i32::try_from(replicas).unwrap_or(-1),
        _ => -1,
    };
    if kind == OwnTopicKind::Control {
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

/// What every own topic is guarded from.
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

/// What is wrong with the settings in force for a topic of this kind. `kept_min` is how long dead letters are to be kept at
/// least; none for ever.
pub(super) fn faults(
    kind: OwnTopicKind,
    spec: &Spec,
    settings: &Settings,
    replicas: usize,
    kept_min: Option<Duration>,
) -> Vec<TopicFault> {
    let judge = Judge { settings, spec };
    let mut faults = match kind {
        OwnTopicKind::Control => judge.of_control(),
        OwnTopicKind::Retry => judge.of_retention(
            "Kafka deletes parked records that are still to be handled",
            None,
        ),
        OwnTopicKind::DeadLetters => judge.of_retention(
            "Kafka deletes dead letters that nobody has looked at",
            kept_min,
        ),
    };
    faults.extend(judge.of_writes(kind, replicas));
    faults
}

struct Judge<'a> {
    settings: &'a Settings,
    spec: &'a Spec,
}

impl Judge<'_> {
    fn text(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", |set| set.value.as_str())
    }

    fn has_policy(&self, policy: &str) -> bool {
        self.text("cleanup.policy")
            .split(',')
            .any(|it| it.trim() == policy)
    }

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

    /// Of a topic from which nothing may be deleted. What is kept for `accepted` at least is kept long enough.
    fn of_retention(&self, effect: &str, accepted: Option<Duration>) -> Vec<TopicFault> {
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
        // A bound by size says nothing of how long something is kept.
        let is_any = accepted == Some(Duration::ZERO);
        if number(self.settings, "retention.bytes").is_some_and(|bytes| bytes >= 0 && !is_any) {
            faults.push(self.fault("retention.bytes", true, effect));
        }
        faults
    }

    fn of_control(&self) -> Vec<TopicFault> {
        let is_bounded = ["retention.ms", "retention.bytes"]
            .iter()
            .any(|name| number(self.settings, name).is_some_and(|bound| bound >= 0));
        if !(self.has_policy("delete") && is_bounded) {
            return Vec::new();
        }
        let effect = "Kafka deletes pauses and rates that nobody has taken back";
        vec![self.fault("cleanup.policy", true, effect)]
    }

    /// What keeps records from being written.
    fn of_writes(&self, kind: OwnTopicKind, replicas: usize) -> Vec<TopicFault> {
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
                OwnTopicKind::Retry => {
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
            let effect =
                "it has fewer replicas than have to be in sync, so that every record is refused";
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
                        "records of a service whose clock is a little off are refused",
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
    fn nothing_that_could_spoil_it_is_left_to_the_brokers() {
        let small = source(&[
            ("max.message.bytes", "1048588"),
            ("min.insync.replicas", "2"),
        ]);
        let mut large = source(&[
            ("max.message.bytes", "20000000"),
            ("message.timestamp.after.max.ms", "3600000"),
        ]);
        large.partitions = 12;
        let made = spec(OwnTopicKind::Retry, &[&small, &large]);
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
            OwnTopicKind::Retry,
            OwnTopicKind::DeadLetters,
            OwnTopicKind::Control,
        ] {
            let spec = spec(kind, &[&source]);
            let all = spec.essential.iter().chain(&spec.further);
            let all: Vec<(&str, &str)> = all.map(|(name, value)| (&**name, &**value)).collect();
            assert_eq!(faults(kind, &spec, &settings(&all), 3, None), []);
        }
    }

    /// The settings that are at fault, and whether they lose something.
    fn found(
        kind: OwnTopicKind,
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
    fn what_deletes_parked_records_loses_them() {
        let check = |values: &[(&str, &str)], expected: &[&str]| {
            let found = found(OwnTopicKind::Retry, values, Some(Duration::ZERO));
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
        // Nothing is shown: nothing is said.
        check(&[], &[]);
    }

    #[test]
    fn an_operator_may_accept_that_dead_letters_expire() {
        const DAY: Duration = Duration::from_secs(86_400);
        let weekly = [("cleanup.policy", "delete"), ("retention.ms", "604800000")];
        let letters =
            |values: &[(&str, &str)], kept_min| found(OwnTopicKind::DeadLetters, values, kept_min);
        let by_time = [("retention.ms".to_owned(), true)];
        assert_eq!(letters(&weekly, None), by_time);
        assert_eq!(letters(&weekly, Some(8 * DAY)), by_time);
        assert_eq!(letters(&weekly, Some(7 * DAY)), []);
        let sized = [("cleanup.policy", "delete"), ("retention.bytes", "1000")];
        let by_size = [("retention.bytes".to_owned(), true)];
        assert_eq!(letters(&sized, Some(DAY)), by_size);
        assert_eq!(letters(&sized, Some(Duration::ZERO)), []);
    }

    #[test]
    fn what_keeps_records_from_being_written_is_a_fault() {
        let check = |values: &[(&str, &str)], expected: &[&str]| {
            let found = found(OwnTopicKind::Retry, values, None);
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
    fn a_control_topic_keeps_what_lasts() {
        let check = |values: &[(&str, &str)], is_fault| {
            let found = found(OwnTopicKind::Control, values, None);
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

//! The faults in the settings of an actual topic, compared with its required configuration.
//!
//! Pure. Only effective values count, whoever set them. A value that is better than the
//! specification is no fault.

use crate::consumer::group_topics::kinds::{GroupTopicKind, TopicFault};
use crate::consumer::group_topics::spec::{Spec, numeric_setting};
use crate::kafka::admin::Settings;
use std::time::Duration;

/// The least room for the headers that this library adds and a short message, required of an
/// existing topic.
const HEADERS_BYTES_MIN: u32 = 16 << 10;
/// A limit on timestamps below this is a fault: a clock that is slightly off must not cost a
/// record. Copies keep the timestamp of their source record, which may be old.
const CLOCK_SKEW_MS: i64 = 600_000;

/// The faults in the effective settings of a topic of this kind. `kept_min` is how long dead
/// letters must be kept at least; none means for ever.
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
    fn value_of(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", |set| set.value.as_str())
    }

    /// Whether `cleanup.policy`, a list, contains this policy.
    fn has_policy(&self, policy: &str) -> bool {
        self.value_of("cleanup.policy")
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
        if numeric_setting(self.settings, "retention.ms").is_some_and(|ms| ms >= 0 && !is_long(ms))
        {
            faults.push(self.fault("retention.ms", true, effect));
        }
        // A limit by size guarantees no time.
        let is_any = accepted == Some(Duration::ZERO);
        if numeric_setting(self.settings, "retention.bytes")
            .is_some_and(|bytes| bytes >= 0 && !is_any)
        {
            faults.push(self.fault("retention.bytes", true, effect));
        }
        faults
    }

    /// Faults that delete commands in force. Compaction alone keeps the latest command of a scope;
    /// with deletion by time or size, a pause that nobody cancelled would end by itself.
    fn control_faults(&self) -> Vec<TopicFault> {
        let is_bounded = ["retention.ms", "retention.bytes"]
            .iter()
            .any(|name| numeric_setting(self.settings, name).is_some_and(|bound| bound >= 0));
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
        let bytes = |name| numeric_setting(self.settings, name);
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
        if self.value_of("message.timestamp.type") == "CreateTime" {
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
        if self.value_of("unclean.leader.election.enable") == "true" {
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
    use crate::consumer::group_topics::spec::required_spec;
    use crate::consumer::group_topics::spec::tests::{settings, source};

    #[test]
    fn a_topic_created_from_its_spec_has_no_fault() {
        let source = source(&[
            ("max.message.bytes", "1048588"),
            ("min.insync.replicas", "2"),
        ]);
        for kind in [
            GroupTopicKind::Retry,
            GroupTopicKind::DeadLetters,
            GroupTopicKind::Control,
        ] {
            let spec = required_spec(kind, &[&source]);
            let all = spec.essential.iter().chain(&spec.further);
            let all: Vec<(&str, &str)> = all.map(|(name, value)| (&**name, &**value)).collect();
            assert_eq!(faults(kind, &spec, &settings(&all), 3, None), []);
        }
    }

    /// The settings with faults, and whether each loses records.
    fn faulty_settings(
        kind: GroupTopicKind,
        values: &[(&str, &str)],
        kept_min: Option<Duration>,
    ) -> Vec<(String, bool)> {
        let source = source(&[("max.message.bytes", "1048588")]);
        let spec = required_spec(kind, &[&source]);
        let faults = faults(kind, &spec, &settings(values), 1, kept_min);
        faults
            .into_iter()
            .map(|fault| (fault.setting, fault.loses))
            .collect()
    }

    #[test]
    fn a_setting_that_deletes_parked_records_loses_them() {
        let check = |values: &[(&str, &str)], expected: &[&str]| {
            let found = faulty_settings(GroupTopicKind::Retry, values, Some(Duration::ZERO));
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
            faulty_settings(GroupTopicKind::DeadLetters, values, kept_min)
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
            let found = faulty_settings(GroupTopicKind::Retry, values, None);
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
            let found = faulty_settings(GroupTopicKind::Control, values, None);
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

//! The kinds of a group's own topics, and the faults of their settings.

use std::fmt;

/// The purpose of one of a group's own topics.
///
/// Each source topic has a retry topic and, by default, a dead-letter topic. The group has one
/// control topic.
///
/// ```
/// use evenkeel::consumer::GroupTopicKind;
///
/// assert_eq!(GroupTopicKind::DeadLetters.as_str(), "dead-letters");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GroupTopicKind {
    /// `retry.<group>.<topic>`: records that wait for their next attempt. Kafka must never delete
    /// from it by itself; the group deletes settled records.
    Retry,
    /// `dlq.<group>.<topic>`, or the one topic of the group: records that failed for good. Kept for
    /// ever, unless the service accepts less.
    DeadLetters,
    /// `control.<group>`: commands to the group. One partition, compacted.
    Control,
}

impl GroupTopicKind {
    /// The name of the kind, as output and JSON use it: `retry`, `dead-letters` or `control`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::DeadLetters => "dead-letters",
            Self::Control => "control",
        }
    }
}

/// An effective topic setting whose value is unsafe.
///
/// [`Display`](fmt::Display) names the setting, its value, its origin and the effect. A fault that
/// [deletes records](Self::loses) from a retry topic keeps a member from starting; all others are
/// warnings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct TopicFault {
    /// The name of the setting.
    pub setting: String,
    /// Its effective value. Empty if the brokers do not know the setting.
    pub value: String,
    /// Whether the value is the brokers' default.
    pub is_default: bool,
    /// The value that it must have, which [`GroupTopic::repair`](super::GroupTopic::repair) sets.
    /// Empty if another value cannot repair it.
    pub wanted: String,
    /// Whether it deletes records. Otherwise it prevents some from being written.
    pub loses: bool,
    /// The consequence of the value, in words.
    pub effect: String,
}

impl TopicFault {
    /// Whether another value of the setting repairs it. Otherwise an operator has to change the
    /// topic, for example its number of replicas.
    pub fn is_repairable(&self) -> bool {
        !self.wanted.is_empty() && self.wanted != self.value
    }
}

impl fmt::Display for TopicFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.is_default {
            ", the brokers' default"
        } else {
            ""
        };
        let (setting, value) = (&self.setting, &self.value);
        write!(f, "{setting} is {value}{whose}: {}", self.effect)
    }
}

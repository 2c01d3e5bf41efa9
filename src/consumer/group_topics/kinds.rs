//! The kinds of a group's own topics, and the faults of their settings.

use std::fmt;

/// The purpose of one of a group's own topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GroupTopicKind {
    /// Records that wait for their next attempt.
    Retry,
    /// Records that failed for good.
    DeadLetters,
    /// Commands to the group.
    Control,
}

impl GroupTopicKind {
    /// The name of the kind, as output and JSON use it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::DeadLetters => "dead-letters",
            Self::Control => "control",
        }
    }
}

/// An effective topic setting whose value is unsafe.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct TopicFault {
    /// The name of the setting.
    pub setting: String,
    /// Its effective value.
    pub value: String,
    /// Whether the value is the brokers' default.
    pub is_default: bool,
    /// The value that it must have. Empty if another value cannot mend it.
    pub wanted: String,
    /// Whether it deletes records. Otherwise it prevents some from being written.
    pub loses: bool,
    /// The consequence of the value, in words.
    pub effect: String,
}

impl TopicFault {
    /// Whether another value of the setting mends it.
    pub fn can_be_mended(&self) -> bool {
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

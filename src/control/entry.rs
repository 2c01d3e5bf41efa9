//! Commands and acknowledgements, and their form on the log: JSON under a key that says what compaction may take.
//!
//! Reading is total: whoever may write the topic may write anything, and one bad entry must not stop a group.

#[cfg(test)]
mod tests;

use super::Scope;
use crate::event::new_id;
use crate::recovery::Position;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

/// An entry is no longer than this.
const ENTRY_BYTES_MAX: usize = 64 << 10;
/// Bytes of a name, or of a reason, at most: they go to headers of dead letters.
const TEXT_BYTES_MAX: usize = 1024;

/// What an operator wants of a running group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Its own id, a UUIDv7: later commands have greater ones.
    pub id: String,
    /// Who gave it.
    pub by: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
    /// What is to be done.
    #[serde(flatten)]
    pub action: Action,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Handle nothing of it until it is resumed. Lasts.
    Pause {
        /// The group, a topic, a partition or a key.
        scope: Scope,
    },
    /// Take back the pause of exactly this scope.
    Resume {
        /// What was paused.
        scope: Scope,
    },
    /// Settle one record without handling it; it goes to the dead-letter topic, marked as skipped.
    Skip {
        /// The record.
        #[serde(with = "as_text")]
        record: Position,
    },
    /// Try again at once what waits for its next attempt, in place or parked; a key that is held goes on.
    RetryNow {
        /// Which records.
        scope: Scope,
    },
    /// Settle the first parked record of a key without handling it; it goes to the dead-letter topic, marked as skipped.
    Drop {
        /// The key.
        scope: Scope,
    },
    /// Give up the entries of retry topics that Kafka deleted before they were settled.
    AcceptLoss {
        /// Of which source topics and partitions.
        scope: Scope,
    },
    /// Handle no more records a second and member than that; none takes the limit away. Lasts.
    Rate {
        /// Records per second.
        records_per_second: Option<NonZeroU32>,
    },
}

impl Action {
    /// The action's name, as the tool's commands have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Skip { .. } => "skip",
            Self::RetryNow { .. } => "retry-now",
            Self::Drop { .. } => "drop",
            Self::AcceptLoss { .. } => "accept-loss",
            Self::Rate { .. } => "rate",
        }
    }

    /// What it is about.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Pause { scope }
            | Self::Resume { scope }
            | Self::RetryNow { scope }
            | Self::Drop { scope }
            | Self::AcceptLoss { scope } => scope.clone(),
            Self::Skip { record } => Scope::Record(record.clone()),
            Self::Rate { .. } => Scope::Group,
        }
    }

    /// The key under which it stands, if it lasts: the latest under a key is what holds.
    pub(super) fn lasting_key(&self) -> Option<String> {
        match self {
            Self::Pause { scope } | Self::Resume { scope } => Some(format!("pause/{scope}")),
            Self::Rate { .. } => Some("rate".to_owned()),
            Self::Skip { .. }
            | Self::RetryNow { .. }
            | Self::Drop { .. }
            | Self::AcceptLoss { .. } => None,
        }
    }
}

/// What a member did about a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The command's id.
    pub command: String,
    /// The member's id in its group.
    pub member: String,
    /// Partitions that it speaks for.
    pub partitions: Vec<Scope>,
    /// What became of the command there.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// What was done, in words.
    pub detail: String,
    /// The id of the topic that it was done in: a topic of that name that is created later has records of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
}

/// What became of a command on some partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is in force.
    Applied,
    /// It was taken note of, and another acknowledgement follows.
    Pending,
    /// The record was written to the dead-letter topic and counts as settled.
    Skipped,
    /// The record had been settled before.
    AlreadySettled,
    /// This member cannot do that.
    Refused,
}

impl Outcome {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Skipped => "skipped",
            Self::AlreadySettled => "already-settled",
            Self::Refused => "refused",
        }
    }

    /// Whether nothing more follows.
    pub fn is_final(self) -> bool {
        self != Self::Pending
    }
}

/// What a member has found to be down. It is taken back when that answers again, or the member stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The member's id in its group.
    pub member: String,
    /// What is down, as handlers name it.
    pub dependency: String,
    /// How that shows.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
}

impl Status {
    /// The key under which it stands on the log.
    pub fn key(&self) -> String {
        format!("status/{}/{}", self.member, self.dependency)
    }

    /// Its form on the log.
    ///
    /// # Errors
    /// None that its types allow; JSON's writer has the last word.
    pub fn value(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

/// What stands on a control topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A command.
    Command(Command),
    /// An acknowledgement.
    Ack(Ack),
    /// What a member has found to be down.
    Status(Status),
    /// What stood under this key was deleted.
    Deleted(String),
}

/// Why an entry says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    pub(super) fn new(reason: String) -> Self {
        Self(reason)
    }
}

impl Command {
    /// A command given now.
    ///
    /// # Errors
    /// A name or a reason that is empty or longer than 1024 bytes, or an action that cannot be about its scope.
    pub fn new(by: &str, why: &str, action: Action) -> Result<Self, Malformed> {
        let command = Self {
            id: new_id(),
            by: by.to_owned(),
            why: why.to_owned(),
            at: Timestamp::now(),
            action,
        };
        command.check()?;
        Ok(command)
    }

    /// The key under which it stands on the log.
    pub fn key(&self) -> String {
        let lasting = self.action.lasting_key();
        lasting.unwrap_or_else(|| format!("command/{}", self.id))
    }

    /// Its form on the log.
    ///
    /// # Errors
    /// None that its types allow; JSON's writer has the last word.
    pub fn value(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    fn check(&self) -> Result<(), Malformed> {
        for (what, text) in [("who gives it", &self.by), ("the reason", &self.why)] {
            if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX {
                return Err(Malformed(format!(
                    "{what} is empty, or longer than {TEXT_BYTES_MAX} bytes"
                )));
            }
        }
        check_id(&self.id)?;
        match &self.action {
            Action::Pause { scope } | Action::Resume { scope }
                if matches!(scope, Scope::Record(_)) =>
            {
                Err(Malformed("a record alone cannot be paused".to_owned()))
            }
            Action::AcceptLoss {
                scope: Scope::Record(_) | Scope::Key { .. },
            } => {
                let reason = "a loss is accepted for a partition, a topic or the group";
                Err(Malformed(reason.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

impl Ack {
    /// The key under which it stands on the log: no acknowledgement replaces another.
    pub fn key(&self) -> String {
        format!("ack/{}/{}", self.command, new_id())
    }

    /// Its form on the log.
    ///
    /// # Errors
    /// None that its types allow; JSON's writer has the last word.
    pub fn value(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

impl Entry {
    /// What a record of a control topic says.
    ///
    /// # Errors
    /// A key or a value that is none of ours, such as a command of a later version: to be passed over.
    pub fn read(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Self, Malformed> {
        let key = key.ok_or_else(|| Malformed("it has no key".to_owned()))?;
        let key =
            std::str::from_utf8(key).map_err(|_| Malformed("its key is no text".to_owned()))?;
        let Some(value) = value else {
            return Ok(Self::Deleted(key.to_owned()));
        };
        if value.len() > ENTRY_BYTES_MAX {
            return Err(Malformed(format!(
                "it is longer than {ENTRY_BYTES_MAX} bytes"
            )));
        }
        if key.starts_with("ack/") {
            let ack: Ack = parse(value)?;
            check_id(&ack.command)?;
            return match key.starts_with(&format!("ack/{}/", ack.command)) {
                true => Ok(Self::Ack(ack)),
                false => Err(Malformed("its key belongs to another command".to_owned())),
            };
        }
        if key.starts_with("status/") {
            let status: Status = parse(value)?;
            return match status.key() == key {
                true => Ok(Self::Status(status)),
                false => Err(Malformed("its key is another status's".to_owned())),
            };
        }
        let command: Command = parse(value)?;
        command.check()?;
        // Under another key compaction would let it hide, or outlive, what it does not replace.
        match command.key() == key {
            true => Ok(Self::Command(command)),
            false => Err(Malformed("its key is not that of its command".to_owned())),
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, Malformed> {
    serde_json::from_slice(value).map_err(|error| Malformed(error.to_string()))
}

/// An id is part of keys.
fn check_id(id: &str) -> Result<(), Malformed> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    match (1..=64).contains(&id.len()) && id.bytes().all(allowed) {
        true => Ok(()),
        false => Err(Malformed("its id is none".to_owned())),
    }
}

/// A position as `topic/partition@offset`.
mod as_text {
    use super::Position;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        position: &Position,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(position)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Position, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

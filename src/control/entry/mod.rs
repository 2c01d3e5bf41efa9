//! Commands and acknowledgements in their encoded form: JSON under a key that determines which
//! entries compaction removes.
//!
//! Reading is total: a client with write access may write any bytes, and an invalid entry must not
//! stop a group.
//!
//! | entry | key | kept until |
//! |---|---|---|
//! | pause, resume | `pause/<scope>` | the next command for the scope |
//! | rate | `rate` | the next rate |
//! | other command | `command/<id>` | a later command, after `HISTORY_DAYS`, deletes it |
//! | acknowledgement | `ack/<command>/<id>` | the same |
//! | outage | `status/<member>/<dependency>` | the dependency answers, or the member stops |
//! | member | `member/<id>` | the member stops |
//!
//! The key is checked against the value on reading: under another key, compaction could remove a
//! command too early or keep it too long.

#[cfg(test)]
mod tests;

use super::Scope;
use super::member::{self, MemberInfo};
use crate::event::new_id;
use crate::kafka::RecordPosition;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

/// The most bytes of an entry.
const ENTRY_BYTES_MAX: usize = 64 << 10;
/// The most bytes of a name or a reason: they become headers of dead letters.
const TEXT_BYTES_MAX: usize = 1024;

/// An operator's command to a running group.
///
/// ```
/// use evenkeel::control::{Action, Command, Scope};
///
/// let scope = Scope::Topic("shop.orders".to_owned());
/// let command = Command::new("ada", "the stock service is down", Action::Pause { scope })?;
/// assert_eq!(command.action.name(), "pause");
/// # Ok::<(), evenkeel::control::Malformed>(())
/// ```
///
/// Write it to the control topic under [`Command::key`] with [`Command::value`], in partition 0.
/// Every member reads it, acts on the partitions it owns, and acknowledges it with an [`Ack`]. A
/// member that starts later applies lasting commands as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Command {
    /// The id of the command, a UUIDv7: later commands have greater ids, within the precision of
    /// the writers' clocks. 1 to 64 ASCII letters, digits and hyphens.
    pub id: String,
    /// The operator who gave the command. 1 to 1,024 bytes. Becomes a header of the dead letter of
    /// a skipped record.
    pub by: String,
    /// The operator's reason. 1 to 1,024 bytes. Becomes a header of the dead letter of a skipped
    /// record.
    pub why: String,
    /// When the command was given.
    pub at: Timestamp,
    /// The action to take.
    #[serde(flatten)]
    pub action: Action,
}

/// The action of a command.
///
/// *Lasting* actions are a desired state: they hold until another command replaces them, also for
/// members that start later. All others happen once, in the members that own the records at that
/// time; if no member runs, they have no effect, except for a skip, which waits for its record.
///
/// An unknown action, of a later release, is [`Malformed`] to this one and is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Action {
    /// Handle no records of the scope until it is resumed. Lasting.
    ///
    /// Running handlers are given the revoke timeout to finish, and are not cancelled. The
    /// partitions stay assigned. Members ignore a pause of a key: pause its partition.
    Pause {
        /// The group, a topic, a partition or a key.
        scope: Scope,
    },
    /// Cancel the pause of exactly this scope.
    ///
    /// A partition that another pause covers stays paused.
    Resume {
        /// The paused scope.
        scope: Scope,
    },
    /// Settle one record without handling it. It is written to the dead-letter topic, marked as
    /// skipped.
    ///
    /// A running attempt is not cancelled: the record is skipped if that fails. A record that is
    /// already settled or parked is not skipped; drop a parked one with [`Action::Drop`].
    Skip {
        /// The position of the record.
        #[serde(with = "as_text")]
        record: RecordPosition,
    },
    /// Retry at once the records that wait for their next attempt, in place or parked. A held key
    /// continues.
    ///
    /// For the whole group it also releases the flood guard. A paused partition retries nothing. An
    /// open breaker still holds the records.
    RetryNow {
        /// The records to retry.
        scope: Scope,
    },
    /// Settle the first parked record of a key without handling it. It is written to the
    /// dead-letter topic, marked as skipped.
    Drop {
        /// The key.
        scope: Scope,
    },
    /// Accept the loss of entries that Kafka deleted from retry topics before they were settled.
    ///
    /// It ends the alarm, and lets the committed offset of the retry partition pass the lost
    /// entries. The scope must not be a key or a record.
    AcceptLoss {
        /// The source topics and partitions of the entries.
        scope: Scope,
    },
    /// Limit the rate at which each member handles records. None removes the limit. Lasting.
    ///
    /// It counts records that are taken from Kafka. Parked records that become due are not counted.
    Rate {
        /// Records per second and member.
        records_per_second: Option<NonZeroU32>,
    },
}

impl Action {
    /// The name of the action, as in the tool's commands and in the JSON of a command.
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

    /// The scope of the action. A record for a skip, the group for a rate.
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

    /// The key of a lasting command. The latest entry under the key is in force.
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

/// A member's acknowledgement of a command.
///
/// A member acknowledges a command for the partitions it owns, so that a command to a group of
/// several members has several acknowledgements. A partition that moves to another member is
/// acknowledged again by that member. No partition is acknowledged as applied before the command is
/// in force there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ack {
    /// The id of the command.
    pub command: String,
    /// The id of the member in its group.
    pub member: String,
    /// The partitions that the acknowledgement covers.
    pub partitions: Vec<Scope>,
    /// The outcome of the command on these partitions.
    pub outcome: CommandOutcome,
    /// When the member wrote the acknowledgement.
    pub at: Timestamp,
    /// A description of the member's action, for people. Its text may change between releases.
    pub detail: String,
    /// The id of the topic on which the member acted: a recreated topic of the same name has other
    /// records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
}

/// The outcome of a command on some partitions.
///
/// An unknown outcome, of a later release, makes the acknowledgement [`Malformed`] to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CommandOutcome {
    /// The command is in force.
    Applied,
    /// The command was received, and another acknowledgement follows: the record of a skip still
    /// runs or waits, or its partition is paused.
    Pending,
    /// The record was written to the dead-letter topic and counts as settled.
    Skipped,
    /// The record was already settled.
    AlreadySettled,
    /// This member cannot execute the command. The detail names the reason and the alternative.
    Refused,
}

impl CommandOutcome {
    /// The name of the outcome, as in JSON: `applied`, `pending`, `skipped`, `already-settled` or
    /// `refused`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Skipped => "skipped",
            Self::AlreadySettled => "already-settled",
            Self::Refused => "refused",
        }
    }

    /// Whether no further acknowledgement follows.
    pub fn is_final(self) -> bool {
        self != Self::Pending
    }
}

/// A member's report that a dependency is down. The member deletes it when the dependency answers
/// again, or when it stops.
///
/// It is written when the breaker of the dependency opens. A killed member cannot delete it: ask
/// the brokers whether it is still a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The id of the member in its group.
    pub member: String,
    /// The dependency that is down, by its name in handlers.
    pub dependency: String,
    /// The symptom.
    pub reason: String,
    /// When the outage began.
    pub at: Timestamp,
}

impl Status {
    /// The key of the entry on the log.
    pub fn key(&self) -> String {
        format!("status/{}/{}", self.member, self.dependency)
    }

    /// Encodes the entry.
    ///
    /// # Errors
    /// Returns an error only if JSON encoding fails, which its types exclude.
    pub fn value(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

/// An entry of a control topic.
///
/// [`Entry::read`] decodes it; [`ControlState::apply`](super::ControlState::apply) and
/// [`History::apply`](super::History::apply) use it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry {
    /// A command.
    Command(Command),
    /// An acknowledgement of a command.
    Ack(Ack),
    /// A member's report that a dependency is down.
    Status(Status),
    /// The identity of a member.
    Member(MemberInfo),
    /// The entry under this key was deleted: its record has no value.
    Deleted(String),
}

/// Why an entry is invalid.
///
/// Skip such an entry and log the reason: anyone with write access may have written it, or a later
/// release. Reading it again gives the same result. The error of [`Command::new`] is the operator's
/// to correct.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    pub(super) fn new(reason: String) -> Self {
        Self(reason)
    }
}

impl Command {
    /// Creates a command with a new id and the present time.
    ///
    /// # Errors
    /// Returns an error for a name or reason that is empty or longer than 1024 bytes, or for an
    /// action that does not apply to its scope.
    ///
    /// # Examples
    /// ```
    /// use evenkeel::control::{Action, Command, Scope};
    ///
    /// let scope: Scope = "record/shop.orders/3@17".parse().expect("a scope");
    /// let error = Command::new("ada", "a test", Action::Pause { scope }).expect_err("refused");
    /// assert!(error.to_string().contains("skip the record"));
    /// ```
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

    /// The key of the entry on the log.
    pub fn key(&self) -> String {
        let lasting = self.action.lasting_key();
        lasting.unwrap_or_else(|| format!("command/{}", self.id))
    }

    /// Encodes the entry.
    ///
    /// # Errors
    /// Returns an error only if JSON encoding fails, which its types exclude.
    pub fn value(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Checks what compaction and the readers depend on. Applied to new and to read commands.
    fn check(&self) -> Result<(), Malformed> {
        for (what, text) in [("the operator's name", &self.by), ("the reason", &self.why)] {
            if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX {
                return Err(Malformed(format!(
                    "{what} must not be blank or longer than {TEXT_BYTES_MAX} bytes"
                )));
            }
        }
        check_id(&self.id)?;
        match &self.action {
            Action::Pause { scope } | Action::Resume { scope }
                if matches!(scope, Scope::Record(_)) =>
            {
                Err(Malformed(
                    "a single record cannot be paused; pause its partition, or skip the record"
                        .to_owned(),
                ))
            }
            Action::AcceptLoss {
                scope: Scope::Record(_) | Scope::Key { .. },
            } => {
                let reason = "a loss can be accepted for a partition, a topic or the group only";
                Err(Malformed(reason.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

impl Ack {
    /// The key of the entry on the log. No acknowledgement replaces another.
    pub fn key(&self) -> String {
        format!("ack/{}/{}", self.command, new_id())
    }

    /// Encodes the entry.
    ///
    /// # Errors
    /// Returns an error only if JSON encoding fails, which its types exclude.
    pub fn value(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

impl Entry {
    /// Decodes a record of a control topic.
    ///
    /// # Errors
    /// Returns an error for an unknown key or value, such as a command of a later version. Skip
    /// such a record.
    pub fn read(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Self, Malformed> {
        let key = key.ok_or_else(|| Malformed("the entry has no key".to_owned()))?;
        let key =
            std::str::from_utf8(key).map_err(|_| Malformed("the key is not UTF-8".to_owned()))?;
        let Some(value) = value else {
            return Ok(Self::Deleted(key.to_owned()));
        };
        if value.len() > ENTRY_BYTES_MAX {
            return Err(Malformed(format!(
                "the entry is longer than {ENTRY_BYTES_MAX} bytes"
            )));
        }
        if key.starts_with("ack/") {
            let ack: Ack = parse(value)?;
            check_id(&ack.command)?;
            return match key.starts_with(&format!("ack/{}/", ack.command)) {
                true => Ok(Self::Ack(ack)),
                false => Err(Malformed(
                    "the key is of an acknowledgement of another command".to_owned(),
                )),
            };
        }
        if key.starts_with("status/") {
            let status: Status = parse(value)?;
            return match status.key() == key {
                true => Ok(Self::Status(status)),
                false => Err(Malformed("the key is of another status".to_owned())),
            };
        }
        if key.starts_with(member::PREFIX) {
            let info: MemberInfo = parse(value)?;
            return match info.key() == key {
                true => Ok(Self::Member(info)),
                false => Err(Malformed("the key is of another member".to_owned())),
            };
        }
        let command: Command = parse(value)?;
        command.check()?;
        // Under another key compaction could remove it too early, or keep it too long.
        match command.key() == key {
            true => Ok(Self::Command(command)),
            false => Err(Malformed(
                "the key is not the key of this command".to_owned(),
            )),
        }
    }
}

/// Decodes JSON. Unknown fields are ignored, so that later releases may add some.
fn parse<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, Malformed> {
    serde_json::from_slice(value).map_err(|error| Malformed(error.to_string()))
}

/// Validates an id, as it is part of keys.
fn check_id(id: &str) -> Result<(), Malformed> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    match (1..=64).contains(&id.len()) && id.bytes().all(allowed) {
        true => Ok(()),
        false => Err(Malformed(
            "the id must have 1 to 64 letters, digits and hyphens".to_owned(),
        )),
    }
}

/// Encodes a position as `topic/partition@offset`.
mod as_text {
    use super::RecordPosition;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        position: &RecordPosition,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(position)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<RecordPosition, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

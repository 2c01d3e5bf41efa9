//! Commands and acknowledgements, and their form on the log: JSON under a key that says what compaction may take.
//!
//! Reading is total: whoever may write the topic may write anything, and one bad entry must not stop a group.

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
            Self::Rate { .. } => "rate",
        }
    }

    /// What it is about.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Pause { scope }
            | Self::Resume { scope }
            | Self::RetryNow { scope }
            | Self::Drop { scope } => scope.clone(),
            Self::Skip { record } => Scope::Record(record.clone()),
            Self::Rate { .. } => Scope::Group,
        }
    }

    /// The key under which it stands, if it lasts: the latest under a key is what holds.
    pub(super) fn lasting_key(&self) -> Option<String> {
        match self {
            Self::Pause { scope } | Self::Resume { scope } => Some(format!("pause/{scope}")),
            Self::Rate { .. } => Some("rate".to_owned()),
            Self::Skip { .. } | Self::RetryNow { .. } | Self::Drop { .. } => None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command(action: Action) -> Command {
        Command::new("ada", "a bad deploy", action).expect("a command")
    }

    fn read(command: &Command) -> Result<Entry, Malformed> {
        let value = command.value().expect("JSON");
        Entry::read(Some(command.key().as_bytes()), Some(&value))
    }

    fn actions() -> Vec<Action> {
        let scope = |text: &str| -> Scope { text.parse().expect("a scope") };
        let pause = |text: &str| Action::Pause { scope: scope(text) };
        vec![
            pause("group"),
            pause("topic/orders"),
            pause("partition/orders/3"),
            pause("key/orders/a%20b"),
            Action::Resume {
                scope: Scope::Group,
            },
            Action::Skip {
                record: "orders/3@17".parse().expect("a position"),
            },
            Action::RetryNow {
                scope: scope("record/orders/3@17"),
            },
            Action::Rate {
                records_per_second: NonZeroU32::new(5),
            },
            Action::Rate {
                records_per_second: None,
            },
        ]
    }

    #[test]
    fn every_command_reads_back_as_written() {
        for action in actions() {
            let command = command(action);
            assert_eq!(read(&command), Ok(Entry::Command(command)));
        }
    }

    #[test]
    fn a_command_looks_like_this() {
        let mut command = command(Action::Pause {
            scope: Scope::Topic("orders".to_owned()),
        });
        command.id = "0199".to_owned();
        command.at = Timestamp::UNIX_EPOCH;
        let value = String::from_utf8(command.value().expect("JSON")).expect("text");
        let expected = r#"{"id":"0199","by":"ada","why":"a bad deploy","at":"1970-01-01T00:00:00Z","action":"pause","scope":"topic/orders"}"#;
        assert_eq!(value, expected);
    }

    #[test]
    fn only_what_lasts_shares_a_key_with_what_it_replaces() {
        let key = |action| command(action).key();
        let scope = Scope::Topic("orders".to_owned());
        assert_eq!(
            key(Action::Pause {
                scope: scope.clone()
            }),
            key(Action::Resume {
                scope: scope.clone()
            })
        );
        let retry = || Action::RetryNow {
            scope: scope.clone(),
        };
        assert_ne!(key(retry()), key(retry()));
    }

    #[test]
    fn an_acknowledgement_reads_back_as_written() {
        let ack = Ack {
            command: "0199".to_owned(),
            member: "payments-1/x y".to_owned(),
            partitions: vec!["partition/orders/3".parse().expect("a scope")],
            outcome: Outcome::AlreadySettled,
            at: Timestamp::UNIX_EPOCH,
            detail: "it had been".to_owned(),
        };
        let value = ack.value().expect("JSON");
        let entry = Entry::read(Some(ack.key().as_bytes()), Some(&value));
        assert_eq!(entry, Ok(Entry::Ack(ack)));
    }

    #[test]
    fn what_is_no_entry_is_refused_and_never_taken_for_another() {
        let good = command(Action::Pause {
            scope: Scope::Group,
        });
        let text = String::from_utf8(good.value().expect("JSON")).expect("text");
        let refused = |key: Option<&[u8]>, value: &str| {
            let entry = Entry::read(key, Some(value.as_bytes()));
            assert!(entry.is_err(), "{entry:?}");
        };
        let key = Some(&b"pause/group"[..]);
        assert!(Entry::read(key, Some(text.as_bytes())).is_ok());
        refused(None, &text);
        refused(Some(b"\xff"), &text);
        refused(Some(b"pause/topic/orders"), &text);
        refused(Some(b"ack/1/2"), &text);
        refused(key, "");
        refused(key, &"[".repeat(10_000));
        refused(key, &text.replace("\"pause\"", "\"explode\""));
        refused(key, &text.replace("\"group\"", "\"record/a/0@1\""));
        refused(key, &text.replace("a bad deploy", " "));
        refused(key, &text.replace("a bad deploy", &"x".repeat(2000)));
        refused(key, &text.replace("\"ada\"", "7"));
        let long = text.replace(
            "\"ada\"",
            &format!("\"ada\",\"x\":\"{}\"", "x".repeat(70_000)),
        );
        refused(key, &long);
        let later = text.replace("\"ada\"", "\"ada\",\"of-a-later-version\":{}");
        assert!(Entry::read(key, Some(later.as_bytes())).is_ok());
        assert_eq!(
            Entry::read(key, None),
            Ok(Entry::Deleted("pause/group".to_owned()))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(key: Option<Vec<u8>>, value: Option<Vec<u8>>) {
            let _ = Entry::read(key.as_deref(), value.as_deref());
        }

        #[test]
        fn any_damage_to_a_command_is_read_or_refused(which in 0..9_usize, at: usize, byte: u8, cut: bool) {
            let command = command(actions().swap_remove(which));
            let mut value = command.value().expect("JSON");
            let at = at % value.len();
            if cut { value.truncate(at) } else { value[at] = byte }
            if let Ok(Entry::Command(read)) = Entry::read(Some(command.key().as_bytes()), Some(&value)) {
                prop_assert_eq!(read.key(), command.key());
            }
        }
    }
}

//! Commands with their acknowledgements, for listings.
//!
//! It keeps everything that the topic still has, for the tool; members keep a
//! [`ControlState`](super::ControlState), which is bounded.

use super::{Ack, Command, Entry};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// The content of a control topic, for listings.
///
/// ```
/// use evenkeel::control::{Action, Command, Entry, History, Scope};
///
/// let pause = Command::new("ada", "a test", Action::Pause { scope: Scope::Group })?;
/// let mut history = History::default();
/// history.apply(&pause.key(), Entry::Command(pause.clone()));
/// let recorded: Vec<_> = history.recorded().collect();
/// assert_eq!(recorded[0].command, pause);
/// assert!(recorded[0].acks.is_empty());
/// # Ok::<(), evenkeel::control::Malformed>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct History {
    /// By id, which is the order in which they were given.
    recorded: BTreeMap<String, Recorded>,
    /// Acknowledgements by the id of their command, each with its key.
    acks: BTreeMap<String, Vec<(String, Ack)>>,
    /// The id of the command in force under each key of lasting commands.
    latest: BTreeMap<String, String>,
    /// When each report of an outage or of a member was written, by its key. A killed member
    /// deletes none of its reports.
    reported: BTreeMap<String, Timestamp>,
}

/// A command with its acknowledgements.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded {
    /// The command.
    pub command: Command,
    /// The members' acknowledgements, in the order of their arrival.
    pub acks: Vec<Ack>,
}

impl History {
    /// Adds the next entry, with its key. Call it in the order of the offsets.
    pub fn apply(&mut self, key: &str, entry: Entry) {
        match entry {
            Entry::Command(command) => {
                if command.action.lasting_key().is_some() {
                    self.latest.insert(key.to_owned(), command.id.clone());
                }
                let recorded = Recorded {
                    command,
                    acks: Vec::new(),
                };
                self.recorded.insert(recorded.command.id.clone(), recorded);
            }
            Entry::Ack(ack) => {
                let acks = self.acks.entry(ack.command.clone()).or_default();
                acks.push((key.to_owned(), ack));
            }
            Entry::Status(status) => {
                self.reported.insert(key.to_owned(), status.at);
            }
            Entry::Member(info) => {
                self.reported.insert(key.to_owned(), info.at);
            }
            Entry::Deleted(key) => {
                self.reported.remove(&key);
                if let Some(id) = key.strip_prefix("command/") {
                    self.recorded.remove(id);
                }
                for acks in self.acks.values_mut() {
                    acks.retain(|(at, _)| *at != key);
                }
            }
        }
    }

    /// All commands, the latest last. Clones them.
    pub fn recorded(&self) -> impl Iterator<Item = Recorded> {
        self.recorded.values().map(|recorded| Recorded {
            command: recorded.command.clone(),
            acks: self.acks_of(&recorded.command.id).cloned().collect(),
        })
    }

    /// The members' acknowledgements of the command with this id, in the order of their arrival.
    pub fn acks_of(&self, id: &str) -> impl Iterator<Item = &Ack> {
        self.acks.get(id).into_iter().flatten().map(|(_, ack)| ack)
    }

    /// The keys of entries that are older than `before` and no longer in force: completed commands,
    /// acknowledgements of all commands that are not in force, and reports of outages and members.
    ///
    /// The writer of a command deletes them with tombstones, after
    /// [`HISTORY_DAYS`](super::HISTORY_DAYS): the topic is compacted by key, and these entries have
    /// keys of their own.
    pub fn outdated(&self, before: Timestamp) -> Vec<String> {
        let in_force: BTreeSet<&String> = self.latest.values().collect();
        let old = |id: &String, at: Timestamp| at < before && !in_force.contains(id);
        let mut keys: Vec<String> = self
            .recorded
            .values()
            .map(|recorded| &recorded.command)
            .filter(|command| command.action.lasting_key().is_none())
            .filter(|command| old(&command.id, command.at))
            .map(Command::key)
            .collect();
        for (id, acks) in &self.acks {
            let acks = acks.iter().filter(|(_, ack)| old(id, ack.at));
            keys.extend(acks.map(|(key, _)| key.clone()));
        }
        let old = self.reported.iter().filter(|(_, at)| **at < before);
        keys.extend(old.map(|(key, _)| key.clone()));
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Action, CommandOutcome, Scope, Status};
    use super::*;

    fn command(action: Action, at: i64) -> Command {
        let mut command = Command::new("ada", "because", action).expect("a command");
        command.at = Timestamp::from_second(at).expect("a time");
        command
    }

    fn ack(command: &Command, at: i64) -> Ack {
        Ack {
            command: command.id.clone(),
            member: "m".to_owned(),
            partitions: Vec::new(),
            outcome: CommandOutcome::Applied,
            at: Timestamp::from_second(at).expect("a time"),
            detail: String::new(),
            topic_id: None,
        }
    }

    fn pause(at: i64) -> Command {
        command(
            Action::Pause {
                scope: Scope::Group,
            },
            at,
        )
    }

    fn retry(at: i64) -> Command {
        command(
            Action::RetryNow {
                scope: Scope::Group,
            },
            at,
        )
    }

    #[test]
    fn commands_are_listed_in_their_order_each_with_its_acknowledgements() {
        let mut history = History::default();
        let (first, second) = (pause(1), retry(2));
        let acks = [ack(&second, 3), ack(&first, 4), ack(&second, 5)];
        for command in [&first, &second] {
            history.apply(&command.key(), Entry::Command(command.clone()));
        }
        for ack in &acks {
            history.apply(&ack.key(), Entry::Ack(ack.clone()));
        }
        let listed: Vec<Recorded> = history.recorded().collect();
        let expected = [
            (first, vec![acks[1].clone()]),
            (second, vec![acks[0].clone(), acks[2].clone()]),
        ];
        let expected = expected.map(|(command, acks)| Recorded { command, acks });
        assert_eq!(listed, expected);
    }

    #[test]
    fn reports_of_members_that_are_long_gone_are_outdated() {
        let mut history = History::default();
        let report = |member: &str, at: i64| Status {
            member: member.to_owned(),
            dependency: "store".to_owned(),
            reason: "refused".to_owned(),
            at: Timestamp::from_second(at).expect("a time"),
        };
        let (killed, alive) = (report("killed", 3), report("alive", 100));
        for status in [&killed, &alive] {
            history.apply(&status.key(), Entry::Status(status.clone()));
        }
        let before = Timestamp::from_second(50).expect("a time");
        assert_eq!(history.outdated(before), [killed.key()]);
        history.apply(&killed.key(), Entry::Deleted(killed.key()));
        assert!(history.outdated(before).is_empty());
    }

    #[test]
    fn only_what_is_old_and_holds_no_more_is_outdated() {
        let mut history = History::default();
        let (superseded, in_force) = (pause(1), pause(2));
        let (old, new) = (retry(3), retry(100));
        let mut keys = Vec::new();
        for command in [superseded, in_force, old, new] {
            let ack = ack(&command, command.at.as_second());
            let key = ack.key();
            history.apply(&command.key(), Entry::Command(command.clone()));
            history.apply(&key, Entry::Ack(ack));
            keys.push((command.key(), key));
        }
        let mut outdated = history.outdated(Timestamp::from_second(50).expect("a time"));
        outdated.sort();
        let mut expected = vec![keys[0].1.clone(), keys[2].0.clone(), keys[2].1.clone()];
        expected.sort();
        assert_eq!(outdated, expected);
        for key in outdated {
            history.apply(&key, Entry::Deleted(key.clone()));
        }
        assert!(
            history
                .outdated(Timestamp::from_second(50).expect("a time"))
                .is_empty()
        );
    }
}

//! The state of a control topic: the pauses, the rate, and the records to skip.
//!
//! Pure. The same entries in the same order result in the same state, in every member and in the
//! tool.
//!
//! Anyone with write access may fill the topic. So every collection has a limit, beyond which new
//! commands are refused, or the oldest reports and identities make room. Lasting commands and skips
//! are never forgotten silently.

#[cfg(test)]
mod tests;

use super::{Ack, Action, Command, CommandOutcome, Entry, Malformed, MemberInfo, Scope, Status};
use crate::kafka::RecordPosition;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

/// The most skips that are kept. An operator has examined each of these records, so more are a
/// mistake, and memory is bounded.
const SKIPS_MAX: usize = 10_000;
/// The most reports of outages that are kept: the latest ones.
const STATUS_MAX: usize = 10_000;
/// The most members whose identity is kept: the latest ones.
const MEMBERS_MAX: usize = 1_000;
/// The most scopes with a lasting command that are kept.
const LASTING_MAX: usize = 10_000;
/// The most partitions per command for which acknowledgements of others are kept.
const ACKNOWLEDGED_MAX: usize = 10_000;

/// The state of a group's control topic, updated entry by entry.
///
/// Members keep one and act on its differences; the tool builds one to show what is in force. Read
/// the topic from its beginning up to its end with `is_live` false, then follow it with `is_live`
/// true.
///
/// ```
/// use evenkeel::control::{Action, Command, ControlState, Entry, Scope};
/// use std::num::NonZeroU32;
///
/// let mut state = ControlState::default();
/// let records_per_second = NonZeroU32::new(50);
/// let rate = Command::new("ada", "a slow bank", Action::Rate { records_per_second })?;
/// state.apply(Entry::Command(rate), true)?;
/// assert_eq!(state.rate().map(|(rate, _)| rate.get()), Some(50));
/// assert_eq!(state.paused().count(), 0);
/// # Ok::<(), evenkeel::control::Malformed>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct ControlState {
    /// The latest lasting command under each key.
    lasting: BTreeMap<String, LastingCommand>,
    /// By the command's id, which is their order.
    skips: BTreeMap<String, Skip>,
    /// The reports of outages, by key.
    down: BTreeMap<String, Status>,
    /// The identities of members, by key.
    members: BTreeMap<String, MemberInfo>,
}

/// A command that is in force until another replaces it.
#[derive(Debug, Clone)]
struct LastingCommand {
    command: Command,
    /// Whether it arrived while the topic was followed, and not from its past.
    is_live: bool,
    acknowledged: BTreeSet<(String, i32)>,
}

/// A record to skip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) record: RecordPosition,
    pub(crate) command: Command,
    /// The owner's last acknowledgement.
    pub(crate) outcome: Option<CommandOutcome>,
    /// The id of the topic in which its owner found it. None before an owner has acknowledged the
    /// command.
    pub(crate) topic_id: Option<String>,
}

impl Skip {
    /// Whether the topic with this id is another one than that of the record, with the same name.
    pub(crate) fn is_of_other_topic(&self, topic_id: Option<&str>) -> bool {
        let pair = self.topic_id.as_deref().zip(topic_id);
        pair.is_some_and(|(was, is)| was != is)
    }
}

impl ControlState {
    /// Applies the next entry, in the order of the offsets. `is_live` means that it arrived while
    /// the topic was followed. Returns a command that must be executed once and changes no state;
    /// one from the past is not returned, because it was executed at its time.
    ///
    /// # Errors
    /// Returns an error for a skip or a lasting command beyond the limits (10,000 each). The state
    /// is unchanged. Log it, and continue with the next entry.
    pub fn apply(&mut self, entry: Entry, is_live: bool) -> Result<Option<Command>, Malformed> {
        match entry {
            Entry::Command(command) => self.command(command, is_live),
            Entry::Ack(ack) => {
                self.ack(&ack);
                Ok(None)
            }
            Entry::Status(status) => {
                self.update_status(status);
                Ok(None)
            }
            Entry::Member(info) => {
                self.update_member(info);
                Ok(None)
            }
            Entry::Deleted(key) => {
                self.down.remove(&key);
                self.members.remove(&key);
                self.lasting.remove(&key);
                if let Some(id) = key.strip_prefix("command/") {
                    self.skips.remove(id);
                }
                Ok(None)
            }
        }
    }

    /// Applies a command: a lasting one replaces its predecessor, a skip is kept, all others are
    /// returned if they are live.
    fn command(&mut self, command: Command, is_live: bool) -> Result<Option<Command>, Malformed> {
        if let Some(key) = command.action.lasting_key() {
            self.make_room(&key, &command, is_live)?;
            if !is_live && matches!(command.action, Action::Resume { .. }) {
                // The cancelled command is deleted, and no one waits for its acknowledgement.
                self.lasting.remove(&key);
                return Ok(None);
            }
            let lasting = LastingCommand {
                command,
                is_live,
                acknowledged: BTreeSet::new(),
            };
            self.lasting.insert(key, lasting);
            return Ok(None);
        }
        let Action::Skip { record } = &command.action else {
            return Ok(is_live.then_some(command));
        };
        if self.skips.len() >= SKIPS_MAX {
            return Err(Malformed::new(format!(
                "{SKIPS_MAX} skips are already open"
            )));
        }
        let skip = Skip {
            record: record.clone(),
            outcome: None,
            topic_id: None,
            command: command.clone(),
        };
        self.skips.insert(command.id, skip);
        Ok(None)
    }

    /// Makes room for one more lasting command. Commands that cancelled another are removed first:
    /// they have no effect any more.
    fn make_room(&mut self, key: &str, command: &Command, is_live: bool) -> Result<(), Malformed> {
        let is_resume = |command: &Command| matches!(command.action, Action::Resume { .. });
        let is_kept = is_live || !is_resume(command);
        if !is_kept || self.lasting.len() < LASTING_MAX || self.lasting.contains_key(key) {
            return Ok(());
        }
        self.lasting
            .retain(|_, lasting| !is_resume(&lasting.command));
        if self.lasting.len() < LASTING_MAX {
            return Ok(());
        }
        Err(Malformed::new(format!(
            "{LASTING_MAX} scopes are already paused"
        )))
    }

    /// A killed member deletes none of its reports: the oldest make room for new ones.
    fn update_status(&mut self, status: Status) {
        let key = status.key();
        if self.down.len() >= STATUS_MAX && !self.down.contains_key(&key) {
            let oldest = self.down.iter().min_by_key(|(_, status)| status.at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.down.remove(&oldest);
            }
        }
        self.down.insert(key, status);
    }

    /// A killed member does not delete its entry: the oldest make room for new ones.
    fn update_member(&mut self, info: MemberInfo) {
        let key = info.key();
        if self.members.len() >= MEMBERS_MAX && !self.members.contains_key(&key) {
            let oldest = self.members.iter().min_by_key(|(_, info)| info.at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.members.remove(&oldest);
            }
        }
        self.members.insert(key, info);
    }

    /// The members' own descriptions. A killed member cannot delete its entry: ask the brokers
    /// whether it is still a member.
    pub fn members(&self) -> impl Iterator<Item = &MemberInfo> {
        self.members.values()
    }

    /// The description of the member with this id, if it has written one.
    pub fn member(&self, id: &str) -> Option<&MemberInfo> {
        self.members.get(&MemberInfo::key_of(id))
    }

    fn ack(&mut self, ack: &Ack) {
        self.set_skip_outcome(&ack.command, ack.outcome);
        if let Some(skip) = self.skips.get_mut(&ack.command) {
            skip.topic_id = skip.topic_id.take().or_else(|| ack.topic_id.clone());
        }
        if !ack.outcome.is_final() {
            return;
        }
        for scope in &ack.partitions {
            if let Scope::Partition { topic, partition } = scope {
                self.note_acknowledged(&ack.command, topic, *partition, ACKNOWLEDGED_MAX);
            }
        }
    }

    /// Notes that a lasting command was acknowledged for a partition.
    pub(crate) fn acknowledge(&mut self, id: &str, topic: &str, partition: i32) {
        self.note_acknowledged(id, topic, partition, usize::MAX);
    }

    /// Any client may write acknowledgements: at most `most` of those from the topic are kept. A
    /// member that takes over a partition of the others acknowledges once more.
    fn note_acknowledged(&mut self, id: &str, topic: &str, partition: i32, most: usize) {
        let lasting = self.lasting.values_mut();
        for lasting in lasting.filter(|lasting| lasting.command.id == id) {
            let is_about_it = lasting.command.action.scope().covers(topic, partition);
            if is_about_it && lasting.acknowledged.len() < most {
                lasting.acknowledged.insert((topic.to_owned(), partition));
            }
        }
    }

    /// The pause that is in force for a partition, if there is one.
    pub fn pause_of(&self, topic: &str, partition: i32) -> Option<&Command> {
        self.paused()
            .find(|(scope, _)| scope.covers(topic, partition))
            .map(|(_, command)| command)
    }

    /// All pauses in force, with their commands.
    pub fn paused(&self) -> impl Iterator<Item = (&Scope, &Command)> {
        self.lasting
            .values()
            .filter_map(|lasting| match &lasting.command.action {
                Action::Pause { scope } => Some((scope, &lasting.command)),
                _ => None,
            })
    }

    /// The members' reports of outages. A killed member cannot delete its report: ask the brokers
    /// whether it is still a member.
    pub fn down(&self) -> impl Iterator<Item = &Status> {
        self.down.values()
    }

    /// The limit in records per second and member, with its command. None without a limit.
    pub fn rate(&self) -> Option<(NonZeroU32, &Command)> {
        let command = &self.lasting.get("rate")?.command;
        match command.action {
            Action::Rate { records_per_second } => Some((records_per_second?, command)),
            _ => None,
        }
    }

    /// The lasting commands for a partition that have no acknowledgement for it. Commands that
    /// cancel another count only if they arrived live.
    pub(crate) fn unacknowledged(&self, topic: &str, partition: i32) -> Vec<Command> {
        let is_open = |lasting: &&LastingCommand| {
            let restricts = match lasting.command.action {
                Action::Pause { .. } => true,
                Action::Rate { records_per_second } => records_per_second.is_some(),
                _ => false,
            };
            (restricts || lasting.is_live)
                && lasting.command.action.scope().covers(topic, partition)
                && !lasting
                    .acknowledged
                    .contains(&(topic.to_owned(), partition))
        };
        let open = self.lasting.values().filter(is_open);
        open.map(|lasting| lasting.command.clone()).collect()
    }

    /// The records to skip, including those that their owner has skipped: a record that is
    /// redelivered, because its offset was not committed in time, is skipped again.
    pub(crate) fn skips(&self) -> impl Iterator<Item = &Skip> {
        self.skips.values()
    }

    /// Notes the owner's acknowledgement for a record to skip.
    pub(crate) fn set_skip_outcome(&mut self, id: &str, outcome: CommandOutcome) {
        if let Some(skip) = self.skips.get_mut(id) {
            // A late acknowledgement of a former owner does not replace a final one.
            if skip.outcome.is_none_or(|before| !before.is_final()) {
                skip.outcome = Some(outcome);
            }
        }
    }
}

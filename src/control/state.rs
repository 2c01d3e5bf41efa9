//! The state of a control topic: the pauses, the rate, and the records to skip.
//!
//! Pure. The same entries in the same order result in the same state, in every member and in the
//! tool.
//!
//! Anyone with write access may fill the topic. So every collection has a limit, beyond which new
//! commands are refused, or the oldest reports and identities make room. Lasting commands and skips
//! are never forgotten silently.

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
    lasting: BTreeMap<String, Lasting>,
    /// By the command's id, which is their order.
    skips: BTreeMap<String, Skip>,
    /// The reports of outages, by key.
    down: BTreeMap<String, Status>,
    /// The identities of members, by key.
    members: BTreeMap<String, MemberInfo>,
}

/// A command that is in force until another replaces it.
#[derive(Debug, Clone)]
struct Lasting {
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
    pub(crate) fn is_outlived_by(&self, topic_id: Option<&str>) -> bool {
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
                self.status(status);
                Ok(None)
            }
            Entry::Member(info) => {
                self.member_is(info);
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
            let lasting = Lasting {
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
    fn status(&mut self, status: Status) {
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
    fn member_is(&mut self, info: MemberInfo) {
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
        self.skip_was(&ack.command, ack.outcome);
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
        let is_open = |lasting: &&Lasting| {
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
    pub(crate) fn skip_was(&mut self, id: &str, outcome: CommandOutcome) {
        if let Some(skip) = self.skips.get_mut(id) {
            // A late acknowledgement of a former owner does not replace a final one.
            if skip.outcome.is_none_or(|before| !before.is_final()) {
                skip.outcome = Some(outcome);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command(action: Action) -> Command {
        Command::new("ada", "because", action).expect("a command")
    }

    fn scope(text: &str) -> Scope {
        text.parse().expect("a scope")
    }

    fn pause(text: &str) -> Command {
        command(Action::Pause { scope: scope(text) })
    }

    fn resume(text: &str) -> Command {
        command(Action::Resume { scope: scope(text) })
    }

    fn skip(record: &str) -> Command {
        command(Action::Skip {
            record: record.parse().expect("a position"),
        })
    }

    fn ack(command: &Command, partition: &str, outcome: CommandOutcome) -> Entry {
        Entry::Ack(Ack {
            command: command.id.clone(),
            member: "m".to_owned(),
            partitions: vec![scope(partition)],
            outcome,
            at: jiff::Timestamp::UNIX_EPOCH,
            detail: String::new(),
            topic_id: None,
        })
    }

    fn state(entries: impl IntoIterator<Item = Entry>) -> ControlState {
        let mut state = ControlState::default();
        for entry in entries {
            state.apply(entry, true).expect("applied");
        }
        state
    }

    #[test]
    fn a_partition_is_paused_while_any_pause_covers_it() {
        let mut state = state([pause("topic/a"), pause("partition/a/1")].map(Entry::Command));
        let mut paused_after = |command: Command| {
            state.apply(Entry::Command(command), true).expect("applied");
            [("a", 0), ("a", 1), ("b", 0)]
                .map(|(topic, number)| state.pause_of(topic, number).is_some())
        };
        assert_eq!(paused_after(resume("group")), [true, true, false]);
        assert_eq!(paused_after(resume("topic/a")), [false, true, false]);
        assert_eq!(paused_after(pause("group")), [true, true, true]);
        assert_eq!(paused_after(resume("partition/a/1")), [true, true, true]);
        assert_eq!(paused_after(resume("group")), [false, false, false]);
    }

    #[test]
    fn deleted_commands_are_no_longer_in_force() {
        let pause = pause("group");
        let skip = skip("a/0@1");
        let deleted = [pause.key(), skip.key()].map(Entry::Deleted);
        let entries = [pause, skip].map(Entry::Command);
        let state = state(entries.into_iter().chain(deleted));
        assert!(state.pause_of("a", 0).is_none());
        assert_eq!(state.skips().count(), 0);
    }

    #[test]
    fn the_latest_rate_holds_and_off_takes_it_away() {
        let rate = |records| {
            Entry::Command(command(Action::Rate {
                records_per_second: NonZeroU32::new(records),
            }))
        };
        let of = |entries: Vec<Entry>| state(entries).rate().map(|(rate, _)| rate.get());
        assert_eq!(of(vec![]), None);
        assert_eq!(of(vec![rate(5), rate(7)]), Some(7));
        assert_eq!(of(vec![rate(5), rate(0)]), None);
    }

    #[test]
    fn each_partition_owes_one_acknowledgement_per_command_in_force() {
        let paused = pause("topic/a");
        let mut state = state([Entry::Command(paused.clone())]);
        let owed = |state: &ControlState, topic, partition| {
            let open = state.unacknowledged(topic, partition);
            open.into_iter()
                .map(|command| command.id)
                .collect::<Vec<_>>()
        };
        assert_eq!(owed(&state, "a", 0), std::slice::from_ref(&paused.id));
        assert!(owed(&state, "b", 0).is_empty());
        let pending = ack(&paused, "partition/a/0", CommandOutcome::Pending);
        state.apply(pending, true).expect("applied");
        assert_eq!(owed(&state, "a", 0), std::slice::from_ref(&paused.id));
        let applied = ack(&paused, "partition/a/0", CommandOutcome::Applied);
        state.apply(applied, true).expect("applied");
        assert!(owed(&state, "a", 0).is_empty());
        assert_eq!(owed(&state, "a", 1), [paused.id]);
    }

    #[test]
    fn a_resume_from_the_past_is_owed_no_acknowledgement() {
        let mut state = ControlState::default();
        let mut owed_after = |is_live| {
            let resume = Entry::Command(resume("group"));
            state.apply(resume, is_live).expect("applied");
            state.unacknowledged("a", 0).len()
        };
        assert_eq!(owed_after(false), 0);
        assert_eq!(owed_after(true), 1);
    }

    #[test]
    fn a_retry_runs_when_it_arrives_and_never_from_history() {
        let retry = command(Action::RetryNow {
            scope: Scope::Group,
        });
        let mut state = ControlState::default();
        let given = |state: &mut ControlState, is_live| {
            let entry = Entry::Command(retry.clone());
            state.apply(entry, is_live).expect("applied").is_some()
        };
        assert!(!given(&mut state, false));
        assert!(given(&mut state, true));
    }

    #[test]
    fn a_completed_skip_stays_in_force_and_keeps_its_outcome() {
        let skip = skip("a/0@1");
        let [done, late] = [CommandOutcome::Skipped, CommandOutcome::Pending]
            .map(|outcome| ack(&skip, "partition/a/0", outcome));
        let state = state([Entry::Command(skip), done, late]);
        let outcomes: Vec<_> = state.skips().map(|skip| skip.outcome).collect();
        assert_eq!(outcomes, [Some(CommandOutcome::Skipped)]);
    }

    #[test]
    fn skips_beyond_the_limit_are_refused() {
        let mut state = ControlState::default();
        let mut apply = |offset: usize| {
            let skip = Entry::Command(skip(&format!("a/0@{offset}")));
            state.apply(skip, true)
        };
        assert!((0..SKIPS_MAX).all(|offset| apply(offset).is_ok()));
        assert!(apply(SKIPS_MAX).is_err());
    }

    #[test]
    fn resumes_from_the_past_take_no_room() {
        let mut state = ControlState::default();
        for number in 0..3 * LASTING_MAX {
            let scope = format!("partition/a/{number}");
            for command in [pause(&scope), resume(&scope)] {
                let entry = Entry::Command(command);
                state.apply(entry, false).expect("applied");
            }
        }
        assert!(state.lasting.is_empty());
    }

    #[test]
    fn pauses_beyond_the_limit_are_refused_and_others_hold() {
        let mut state = ControlState::default();
        let mut apply = |command| state.apply(Entry::Command(command), true);
        for number in 0..LASTING_MAX {
            let command = match number % 2 {
                0 => pause(&format!("partition/a/{number}")),
                _ => resume(&format!("partition/a/{number}")),
            };
            apply(command).expect("applied");
        }
        // Cancelled commands make room.
        for number in 0..LASTING_MAX / 2 {
            let command = pause(&format!("partition/b/{number}"));
            apply(command).expect("applied");
        }
        assert!(apply(pause("group")).is_err());
        apply(resume("partition/a/0")).expect("one that is known is taken back");
        assert!(state.pause_of("a", 0).is_none());
        assert!(state.pause_of("a", 2).is_some());
        assert!(state.pause_of("b", 0).is_some());
        assert_eq!(state.lasting.len(), LASTING_MAX);
    }

    #[test]
    fn acknowledgements_by_others_are_bounded_and_own_ones_count() {
        let paused = pause("topic/a");
        let mut state = state([Entry::Command(paused.clone())]);
        for number in 0..2 * ACKNOWLEDGED_MAX {
            let partition = format!("partition/a/{number}");
            let told = ack(&paused, &partition, CommandOutcome::Applied);
            state.apply(told, true).expect("applied");
        }
        let told = ack(&paused, "partition/b/0", CommandOutcome::Applied);
        state.apply(told, true).expect("applied");
        let kept = |state: &ControlState| {
            let mut lasting = state.lasting.values();
            lasting
                .next()
                .map_or(0, |lasting| lasting.acknowledged.len())
        };
        assert_eq!(kept(&state), ACKNOWLEDGED_MAX);
        let own = i32::MAX;
        state.acknowledge(&paused.id, "a", own);
        assert!(state.unacknowledged("a", own).is_empty());
    }

    #[test]
    fn the_latest_reports_of_what_is_down_are_kept() {
        let mut state = ControlState::default();
        let of = |number: usize| Status {
            member: format!("m{number}"),
            dependency: "store".to_owned(),
            reason: "refused".to_owned(),
            at: jiff::Timestamp::from_second(number as i64).expect("a time"),
        };
        for number in 0..STATUS_MAX + 3 {
            state
                .apply(Entry::Status(of(number)), true)
                .expect("applied");
        }
        assert_eq!(state.down().count(), STATUS_MAX);
        let has = |member: &str| state.down().any(|status| status.member == member);
        assert!(!has("m2") && has("m3") && has(&format!("m{}", STATUS_MAX + 2)));
    }

    #[test]
    fn the_latest_members_are_known_until_they_stop() {
        let mut state = ControlState::default();
        let of = |number: usize| MemberInfo {
            member: format!("m{number}"),
            host: "vm".to_owned(),
            pid: 7,
            version: "0.1.0".to_owned(),
            client_id: "payments".to_owned(),
            instance_id: None,
            admin: Some("127.0.0.1:9101".to_owned()),
            at: jiff::Timestamp::from_second(number as i64).expect("a time"),
        };
        for number in 0..MEMBERS_MAX + 3 {
            let key = of(number).key();
            let value = of(number).value().expect("written");
            let entry = Entry::read(Some(key.as_bytes()), Some(&value)).expect("read");
            assert_eq!(entry, Entry::Member(of(number)));
            state.apply(entry, true).expect("applied");
        }
        assert_eq!(state.members().count(), MEMBERS_MAX);
        assert!(state.member("m2").is_none());
        let place = state.member("m3").map(MemberInfo::place);
        let expected = "host vm, pid 7, admin 127.0.0.1:9101";
        assert_eq!(place.as_deref(), Some(expected));
        let gone = Entry::Deleted(of(3).key());
        state.apply(gone, true).expect("applied");
        assert!(state.member("m3").is_none());
    }

    /// Pauses and resumes of a few scopes.
    fn changes() -> impl Strategy<Value = Vec<(bool, usize)>> {
        proptest::collection::vec((any::<bool>(), 0..5_usize), 0..40)
    }

    const SCOPES: [&str; 5] = [
        "group",
        "topic/a",
        "topic/b",
        "partition/a/0",
        "partition/b/1",
    ];

    proptest! {
        /// The compacted topic, with the latest entry of each key, results in the same state as all
        /// entries.
        #[test]
        fn a_compacted_log_means_the_same(changes in changes()) {
            let commands: Vec<Command> = changes
                .iter()
                .map(|(paused, at)| if *paused { pause(SCOPES[*at]) } else { resume(SCOPES[*at]) })
                .collect();
            let is_latest = |at: usize| {
                commands[at + 1..].iter().all(|later| later.key() != commands[at].key())
            };
            let left = (0..commands.len()).filter(|at| is_latest(*at)).map(|at| commands[at].clone());
            let compacted = state(left.map(Entry::Command));
            let mut paused = BTreeSet::new();
            for (is_pause, at) in changes {
                if is_pause { paused.insert(SCOPES[at]); } else { paused.remove(SCOPES[at]); }
            }
            let whole = state(commands.into_iter().map(Entry::Command));
            for (topic, partition) in [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0)] {
                let expected = paused.iter().any(|text| scope(text).covers(topic, partition));
                prop_assert_eq!(whole.pause_of(topic, partition).is_some(), expected);
                prop_assert_eq!(compacted.pause_of(topic, partition).is_some(), expected);
            }
        }
    }
}

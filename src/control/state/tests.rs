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

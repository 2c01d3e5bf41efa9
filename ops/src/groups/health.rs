//! Problems of a group, as reported by the brokers and its control topic. Pure.
//!
//! A check prints the lines of [`problems`] and fails if there is one. The lines are for people;
//! their text may change. [`Restriction`] is the stable form of a pause or a rate limit.

use super::members;
use super::scope::Target;
use evenkeel::control::{Command, ControlState, Status};
use evenkeel::kafka::admin::{GroupDescription, PartitionLag};
use jiff::Timestamp;
use serde::Serialize;

/// A pause or a rate limit in force. Its serialised form is stable: the target's fields, then
/// `records_per_second`, `by`, `why` and `at`.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Restriction {
    /// Its scope.
    #[serde(flatten)]
    pub target: Target,
    /// The rate limit, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_per_second: Option<u32>,
    /// The operator who commanded it.
    pub by: String,
    /// The reason.
    pub why: String,
    /// The time of the command.
    pub at: Timestamp,
}

impl Restriction {
    /// The pause of a command. The caller makes sure that the command pauses.
    pub fn pause(command: &Command) -> Self {
        Self {
            target: Target::from(&command.action.scope()),
            records_per_second: None,
            by: command.by.clone(),
            why: command.why.clone(),
            at: command.at,
        }
    }

    /// The rate limit of a command.
    pub fn rate(records_per_second: u32, command: &Command) -> Self {
        Self {
            records_per_second: Some(records_per_second),
            ..Self::pause(command)
        }
    }

    /// One line about a pause.
    fn in_words(&self) -> String {
        let Self {
            target,
            by,
            why,
            at,
            ..
        } = self;
        format!("{target} is paused since {}, by {by}: {why}", seconds(*at))
    }
}

/// All pauses of a group in a state of its control topic. A partition may be covered by several of
/// them; it continues when all of them are resumed.
pub fn pauses(control: &ControlState) -> Vec<Restriction> {
    control
        .paused()
        .map(|(_, command)| Restriction::pause(command))
        .collect()
}

/// The dependencies for which members wait, as the members report them: one status for each member
/// and dependency. Statuses of killed members are dropped, because those members could not withdraw
/// them. If the brokers list no members, all statuses are returned.
pub fn outages(control: &ControlState, group: &GroupDescription) -> Vec<Status> {
    let is_member = |status: &&Status| {
        let mut members = group.members.iter();
        group.members.is_empty() || members.any(|member| member.member_id == status.member)
    };
    control.down().filter(is_member).cloned().collect()
}

/// One line about a dependency that is down.
pub fn outage_in_words(control: &ControlState, status: &Status) -> String {
    let Status {
        dependency,
        member,
        at,
        reason,
        ..
    } = status;
    format!(
        "{dependency} is down for {} since {}: {reason}",
        members::name(control, member),
        seconds(*at)
    )
}

/// A time to the second.
fn seconds(time: Timestamp) -> String {
    time.strftime("%FT%TZ").to_string()
}

/// All problems of a group, one line each: pauses, outages, records that wait for a group without
/// members, and partitions that cannot be read. Each line begins with the group's name. Empty for a
/// healthy group.
///
/// A lag is no problem by itself, however large: [`violated_limit`](super::lag::violated_limit)
/// compares it with limits. A rate limit is no problem either: an operator set it.
pub fn problems(
    group: &GroupDescription,
    control: &ControlState,
    lag: &[PartitionLag],
) -> Vec<String> {
    let name = &group.group;
    let paused = pauses(control);
    let paused = paused.iter().map(Restriction::in_words);
    let down = outages(control, group);
    let down = down.iter().map(|status| outage_in_words(control, status));
    let records: i64 = lag.iter().map(|at| at.lag).sum();
    let empty = (group.state == "Empty" && records > 0)
        .then(|| format!("no member runs, and {records} records wait"));
    let unreadable = lag.iter().filter_map(|at| at.unreadable.clone());
    let all = paused.chain(down).chain(empty).chain(unreadable);
    all.map(|line| format!("{name}: {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::control::{Action, Entry, Scope};

    fn group(state: &str) -> GroupDescription {
        let mut group = GroupDescription::new("g", state);
        group.protocol = "consumer".to_owned();
        group
    }

    fn lag(records: i64, unreadable: Option<&str>) -> PartitionLag {
        let mut lag = PartitionLag::new("t", 0);
        lag.committed = Some(0);
        lag.high = records;
        lag.lag = records;
        lag.unreadable = unreadable.map(str::to_owned);
        lag
    }

    fn paused(scope: Scope) -> ControlState {
        let mut control = ControlState::default();
        let command = Command::new("alice", "a test", Action::Pause { scope }).unwrap();
        control.apply(Entry::Command(command), false).unwrap();
        control
    }

    #[test]
    fn each_trouble_is_a_line_of_its_own() {
        let check = |group: &GroupDescription, control: &ControlState, lag, expected: &[&str]| {
            let found = problems(group, control, &[lag]);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (line, text) in found.iter().zip(expected) {
                assert!(line.starts_with("g: ") && line.contains(text), "{line}");
            }
        };
        let calm = ControlState::default();
        check(&group("Stable"), &calm, lag(7, None), &[]);
        check(&group("Empty"), &calm, lag(0, None), &[]);
        check(&group("Empty"), &calm, lag(7, None), &["7 records wait"]);
        let unreadable = lag(1, Some("t/0 cannot be read"));
        check(&group("Stable"), &calm, unreadable, &["cannot be read"]);
        let one = paused(Scope::Partition {
            topic: "t".to_owned(),
            partition: 3,
        });
        let expected = ["t/3 is paused since 2"];
        check(&group("Stable"), &one, lag(0, None), &expected);
        let all = paused(Scope::Group);
        let expected = ["by alice: a test", "no member runs"];
        check(&group("Empty"), &all, lag(1, None), &expected);
    }
}

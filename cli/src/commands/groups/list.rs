//! `evenkeel groups list`: the groups and their pauses.
//!
//! Groups that the user may not see are not returned by the brokers; a notice on standard error
//! says so if that may be the case.

use super::pauses;
use crate::arguments::check_flag::CheckArgs;
use crate::arguments::connection::ConnectionArgs;
use crate::output::observer::Stderr;
use crate::output::stderr::say;
use crate::output::{Column, Listing, OutputArgs, Row, name, number, or_dash, text};
use clap::Args;
use evenkeel::kafka::KafkaError;
use evenkeel_ops::groups::control_log;
use evenkeel_ops::groups::health::{self, Restriction};
use evenkeel_ops::groups::lag::lag_of;
use evenkeel_ops::visibility;
use evenkeel_program::exit::Ending;
use serde::Serialize;

/// List the groups: state, protocol, number of members, and pauses.
///
/// Changes nothing.
///
/// Exit codes: 0 listed; 1 with --check, if a group may not be read; 3 with --check, if anything is
/// paused, a dependency is down, or records wait for a group without members.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    check: CheckArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// A group as it is listed.
#[derive(Serialize)]
struct GroupRow {
    /// Name of the group.
    group: String,
    /// The brokers' state of the group, such as `Stable` or `Empty`.
    state: String,
    /// The kind of group, as the brokers name it.
    protocol: String,
    /// `None` if it cannot be read.
    members: Option<usize>,
    /// The pauses in force.
    paused: Vec<Restriction>,
}

impl Row for GroupRow {
    const COLUMNS: &'static [Column] = &[
        name("group"),
        name("state"),
        name("protocol"),
        number("members"),
        text("paused"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.group.clone(),
            self.state.clone(),
            self.protocol.clone(),
            or_dash(self.members),
            pauses::cell(&self.paused),
        ]]
    }
}

/// Lists the groups. Only with `--check` it reads their lag.
pub(super) async fn run(connection: &ConnectionArgs, args: ListArgs) -> anyhow::Result<Ending> {
    let admin = connection.admin().await?;
    let groups = admin.groups().await?;
    visibility::check_groups(&admin, groups.len(), &Stderr).await?;
    let states = control_log::states(&connection.cluster()?, &admin, &groups, &Stderr).await?;
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    let mut refused = args.check.check && states.is_partial;
    for group in groups {
        let control = states.of.get(&group.group).cloned().unwrap_or_default();
        if args.check.check {
            // The lag is read only for groups without members, because that takes a while.
            let lag = match group.state.as_str() {
                "Empty" => match lag_of(&admin, &group, &[], &Stderr).await {
                    Err(error @ KafkaError::Refused { .. }) => {
                        say!("{}: {error}", group.group);
                        refused = true;
                        Vec::new()
                    }
                    lag => lag?,
                },
                _ => Vec::new(),
            };
            wrong.extend(health::problems(&group, &control, &lag));
        }
        rows.push(GroupRow {
            members: group.are_members_known.then_some(group.members.len()),
            group: group.group,
            state: group.state,
            protocol: group.protocol,
            paused: health::pauses(&control),
        });
    }
    Listing::print(args.output, rows)?;
    let checked = args.check.ending_for(&wrong);
    Ok(match refused {
        true => Ending::SomeFailed,
        false => checked,
    })
}

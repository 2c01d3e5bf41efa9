//! `evenkeel groups lag`: number and age of the records that each group has not settled.

use super::in_force;
use crate::arguments::check_flag::CheckArgs;
use crate::arguments::connection::ConnectionArgs;
use crate::arguments::group_args::GroupsArg;
use crate::hints::all_groups_exist;
use crate::output::observer::Stderr;
use crate::output::stderr::say;
use crate::output::{Column, Listing, OutputArgs, Row, name, number, or_dash, text};
use clap::Args;
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::PartitionLag;
use evenkeel_ops::groups::control_log;
use evenkeel_ops::groups::health::{self, InForce};
use evenkeel_ops::groups::lag::{LagLimits, age, excess, lag_of};
use evenkeel_ops::visibility;
use evenkeel_program::duration::parse_duration_or_seconds;
use evenkeel_program::exit::Ending;
use serde::Serialize;
use std::time::Duration;

/// Records that groups have still to settle, and the age of the oldest, by partition.
///
/// Exits with 3 when a group is further behind than --threshold or --max-age allows; with either
/// also when the next record of a partition cannot be read. Parked records wait by design: they
/// count for --threshold, and for --max-age only where their retry topic is named with --topic.
/// With --check it is 3 as well when anything is paused, a dependency is down, or records wait for
/// a group without members.
#[derive(Debug, Args)]
pub(crate) struct LagArgs {
    #[command(flatten)]
    groups: GroupsArg,

    /// Only these topics.
    #[arg(short, long, value_name = "TOPIC")]
    topic: Vec<String>,

    /// Records that a group may be behind, all its partitions together.
    #[arg(long, value_name = "RECORDS")]
    threshold: Option<i64>,

    /// How old the oldest unsettled record may be, for example 5m.
    #[arg(long, value_name = "TIME", value_parser = parse_duration_or_seconds)]
    max_age: Option<Duration>,

    #[command(flatten)]
    check: CheckArgs,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Lagging {
    group: String,
    #[serde(flatten)]
    at: PartitionLag,
    /// The pause that covers the partition.
    paused: Option<InForce>,
}

impl Row for Lagging {
    const COLUMNS: &'static [Column] = &[
        name("group"),
        name("topic"),
        number("partition"),
        number("committed"),
        number("end"),
        number("lag"),
        number("age"),
        text("paused"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        vec![vec![
            self.group.clone(),
            self.at.topic.clone(),
            self.at.partition.to_string(),
            or_dash(self.at.committed),
            self.at.high.to_string(),
            self.at.lag.to_string(),
            match (&self.at.unreadable, self.at.age_ms) {
                (Some(_), _) => "unreadable".to_owned(),
                (None, age_ms) => or_dash(age_ms.map(age)),
            },
            in_force::cell_of_one(self.paused.as_ref()),
        ]]
    }
}

/// Lists the lag and checks it.
pub(super) async fn run(connection: &ConnectionArgs, args: LagArgs) -> anyhow::Result<Ending> {
    let admin = connection.admin().await?;
    let names = args.groups.names();
    let mut missing = Vec::new();
    let groups = match names.is_empty() {
        true => {
            let groups = admin.groups().await?;
            visibility::check_groups(&admin, groups.len(), &Stderr).await?;
            groups
        }
        false => {
            let mut groups = Vec::new();
            for name in &names {
                match admin.describe_group(name).await? {
                    Some(group) => groups.push(group),
                    None => missing.push(name.clone()),
                }
            }
            if groups.is_empty() {
                all_groups_exist(&admin, &missing).await?;
            }
            groups
        }
    };
    let states = control_log::states(&connection.cluster()?, &admin, &groups, &Stderr).await?;
    let (mut complaints, mut wrong) = (Vec::new(), Vec::new());
    // Control topics that cannot be read may hide problems.
    let mut refused = args.check.check && states.is_partial;
    let limits = LagLimits::default()
        .with_records(args.threshold)
        .with_age(args.max_age);
    let mut listing = Listing::stdout(args.output);
    for group in groups {
        let lag = match lag_of(&admin, &group, &args.topic, &Stderr).await {
            Ok(lag) => lag,
            // The results for the other groups are still useful.
            Err(error @ KafkaError::Refused { .. }) if names.is_empty() => {
                say!("{}: {error}", group.group);
                refused = true;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let control = states.of.get(&group.group).cloned().unwrap_or_default();
        if let Some(complaint) = excess(&lag, &group.group, &args.topic, limits) {
            complaints.push(format!("{}: {complaint}", group.group));
        }
        if args.check.check {
            wrong.extend(health::found(&group, &control, &lag));
        }
        for at in lag {
            let pause = control.pause_of(&at.topic, at.partition);
            listing.push(&Lagging {
                group: group.group.clone(),
                paused: pause.map(InForce::pause),
                at,
            })?;
        }
    }
    listing.finish()?;
    for complaint in &complaints {
        say!("{complaint}");
    }
    let checked = args.check.judge(&wrong);
    all_groups_exist(&admin, &missing).await?;
    Ok(match (refused, complaints.is_empty()) {
        (true, _) => Ending::SomeFailed,
        (false, true) => checked,
        (false, false) => Ending::FoundBad,
    })
}

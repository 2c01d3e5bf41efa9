//! `evenkeel groups lag`: number and age of the records that each group has not settled.
//!
//! The lag of a partition is the distance from the committed offset to the end. The age is that of
//! the first record behind the committed offset; to read it, the user needs an ACL for READ on the
//! topic.

use super::pauses;
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
use evenkeel_ops::groups::health::{self, Restriction};
use evenkeel_ops::groups::lag::{LagLimits, age, lag_of, violated_limit};
use evenkeel_ops::visibility;
use evenkeel_program::duration::parse_duration_or_seconds;
use evenkeel_program::exit::Ending;
use serde::Serialize;
use std::time::Duration;

/// Show how many records groups have not settled, and the age of the oldest, by partition.
///
/// Without a group, shows all groups. Parked records wait by design: they count for --threshold,
/// and for --max-age only if their retry topic is named with --topic. Changes nothing.
///
/// Exit codes: 0 within the limits; 1 a group does not exist or may not be read; 3 the lag is above
/// --threshold or --max-age, or, with either, the next record of a partition cannot be read; 3 also
/// with --check, if anything is paused, a dependency is down, a partition cannot be read, or
/// records wait for a group without members.
#[derive(Debug, Args)]
pub(crate) struct LagArgs {
    #[command(flatten)]
    groups: GroupsArg,

    /// Only this topic; may be repeated.
    #[arg(short, long, value_name = "TOPIC")]
    topic: Vec<String>,

    /// Maximum lag of a group in records, over all its partitions [default: no limit].
    #[arg(long, value_name = "RECORDS")]
    threshold: Option<i64>,

    /// Maximum age of the oldest unsettled record, such as 5m; a bare number is seconds [default:
    /// no limit].
    #[arg(long, value_name = "TIME", value_parser = parse_duration_or_seconds)]
    max_age: Option<Duration>,

    #[command(flatten)]
    check: CheckArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// A partition with its lag.
#[derive(Serialize)]
struct LagRow {
    /// Name of the group.
    group: String,
    #[serde(flatten)]
    at: PartitionLag,
    /// The pause that covers the partition.
    paused: Option<Restriction>,
}

impl Row for LagRow {
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
            pauses::partition_cell(self.paused.as_ref()),
        ]]
    }
}

/// Lists the lag and checks it against the limits.
///
/// If all groups are listed, a group that may not be read is named and left out, and the exit code
/// is 1; a named group that may not be read is an error at once.
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
    let (mut violations, mut wrong) = (Vec::new(), Vec::new());
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
        if let Some(violation) = violated_limit(&lag, &group.group, &args.topic, limits) {
            violations.push(format!("{}: {violation}", group.group));
        }
        if args.check.check {
            wrong.extend(health::problems(&group, &control, &lag));
        }
        for at in lag {
            let pause = control.pause_of(&at.topic, at.partition);
            listing.push(&LagRow {
                group: group.group.clone(),
                paused: pause.map(Restriction::pause),
                at,
            })?;
        }
    }
    listing.finish()?;
    for violation in &violations {
        say!("{violation}");
    }
    let checked = args.check.ending_for(&wrong);
    all_groups_exist(&admin, &missing).await?;
    Ok(match (refused, violations.is_empty()) {
        (true, _) => Ending::SomeFailed,
        (false, true) => checked,
        (false, false) => Ending::FoundBad,
    })
}

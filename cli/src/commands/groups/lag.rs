//! `evenkeel groups lag`: how many records, and how old, each group has still to settle.

use super::{lag_of, unknown};
use crate::connection::{ConnectionArgs, parse_duration};
use crate::exit::Ending;
use crate::output::{Listing, OutputArgs, Row};
use clap::Args;
use evenkeel::kafka::admin::PartitionLag;
use serde::Serialize;
use std::time::Duration;

/// Records that groups have still to settle, and the age of the oldest, by partition.
///
/// Exits with 3 when a group is further behind than --threshold or --max-age allows; with either also when the next record of a
/// partition cannot be read.
#[derive(Debug, Args)]
pub(crate) struct LagArgs {
    /// Groups to look at; all when left out.
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,

    /// Only these topics.
    #[arg(short, long, value_name = "TOPIC")]
    topic: Vec<String>,

    /// Records that a group may be behind, all its partitions together.
    #[arg(long, value_name = "RECORDS")]
    threshold: Option<i64>,

    /// How old the oldest unsettled record may be, for example 5m.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    max_age: Option<Duration>,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Lagging {
    group: String,
    #[serde(flatten)]
    at: PartitionLag,
}

impl Row for Lagging {
    const COLUMNS: &'static [&'static str] = &[
        "group",
        "topic",
        "partition",
        "committed",
        "end offset",
        "lag",
        "age",
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let absent = || "-".to_owned();
        vec![vec![
            self.group.clone(),
            self.at.topic.clone(),
            self.at.partition.to_string(),
            self.at
                .committed
                .map_or_else(absent, |offset| offset.to_string()),
            self.at.high.to_string(),
            self.at.lag.to_string(),
            match (&self.at.unreadable, self.at.age_ms) {
                (Some(_), _) => "unreadable".to_owned(),
                (None, age_ms) => age_ms.map_or_else(absent, age),
            },
        ]]
    }
}

/// `1h 3m 20s`, to the second.
fn age(ms: i64) -> String {
    let seconds = jiff::SignedDuration::from_secs(ms / 1000);
    format!("{seconds:#}")
}

/// Lists the lag and judges it.
pub(super) async fn run(connection: &ConnectionArgs, args: LagArgs) -> anyhow::Result<Ending> {
    let admin = connection.admin().await?;
    let groups = match args.groups.is_empty() {
        true => admin.groups().await?,
        false => {
            let mut groups = Vec::new();
            for name in &args.groups {
                let group = admin.describe_group(name).await?;
                groups.push(group.ok_or_else(|| unknown(name))?);
            }
            groups
        }
    };
    let mut ending = Ending::Done;
    let mut listing = Listing::stdout(args.output.output);
    for group in groups {
        let lag = lag_of(&admin, &group, &args.topic).await?;
        if let Some(complaint) = complaint(&lag, args.threshold, args.max_age) {
            anstream::eprintln!("evenkeel: {}: {complaint}", group.group);
            ending = Ending::FoundBad;
        }
        for at in lag {
            listing.push(&Lagging {
                group: group.group.clone(),
                at,
            })?;
        }
    }
    listing.finish()?;
    Ok(ending)
}

/// What is wrong with a group's lag, if anything.
fn complaint(
    lag: &[PartitionLag],
    threshold: Option<i64>,
    max_age: Option<Duration>,
) -> Option<String> {
    let records: i64 = lag.iter().map(|at| at.lag).sum();
    if let Some(threshold) = threshold.filter(|threshold| records > *threshold) {
        return Some(format!("{records} records behind, {threshold} allowed"));
    }
    if threshold.is_some() || max_age.is_some() {
        let mut unreadable = lag.iter().filter_map(|at| at.unreadable.as_ref());
        if let Some(unreadable) = unreadable.next() {
            return Some(unreadable.clone());
        }
    }
    let oldest = lag.iter().filter_map(|at| at.age_ms).max()?;
    let allowed = i64::try_from(max_age?.as_millis()).unwrap_or(i64::MAX);
    (oldest > allowed).then(|| {
        format!(
            "the oldest unsettled record is {} old, {} allowed",
            age(oldest),
            age(allowed)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lag: i64, age_ms: Option<i64>) -> PartitionLag {
        PartitionLag {
            topic: "t".to_owned(),
            partition: 0,
            committed: Some(0),
            low: 0,
            high: lag,
            lag,
            age_ms,
            unreadable: None,
        }
    }

    #[test]
    fn a_group_is_judged_by_its_sum_and_by_its_oldest_record() {
        let lag = [at(3, Some(2_000)), at(4, None)];
        let check = |threshold, max_age, bad: bool| {
            assert_eq!(
                complaint(&lag, threshold, max_age).is_some(),
                bad,
                "{threshold:?} {max_age:?}"
            );
        };
        check(None, None, false);
        check(Some(7), None, false);
        check(Some(6), None, true);
        check(None, Some(Duration::from_secs(2)), false);
        check(None, Some(Duration::from_millis(1_999)), true);
        assert_eq!(complaint(&[], Some(0), Some(Duration::from_secs(1))), None);
        let lag = [PartitionLag {
            unreadable: Some("t/0 cannot be read".to_owned()),
            ..at(1, None)
        }];
        let hour = Some(Duration::from_secs(3600));
        assert!(complaint(&lag, None, hour).is_some());
        assert!(complaint(&lag, Some(10), None).is_some());
        assert_eq!(complaint(&lag, None, None), None);
    }

    #[test]
    fn an_age_is_written_in_words() {
        assert_eq!(age(3_800_999), "1h 3m 20s");
        assert_eq!(age(0), "0s");
    }
}

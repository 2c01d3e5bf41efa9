//! Number and age of the records that a group has not settled.
//!
//! The lag of a partition is its end offset less the committed offset, and its age that of the
//! record at the committed offset. Records above it may be settled already: the commit metadata has
//! them.

use crate::{Observer, visibility};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::{Admin, GroupDescription, PartitionLag};
use evenkeel::recovery::retry_topic;
use std::collections::BTreeSet;
use std::time::Duration;

/// The lag of the group on `topics`, or on all topics to which it has committed or is assigned. A
/// partition without a committed offset has all its records as lag.
///
/// A partition whose next record cannot be read has no age but [`PartitionLag::unreadable`], and does
/// not fail the listing.
///
/// # Errors
/// If a request to the cluster fails, or if the client may see none of the topics.
pub async fn lag_of(
    admin: &Admin,
    group: &GroupDescription,
    topics: &[String],
    observer: &dyn Observer,
) -> Result<Vec<PartitionLag>, KafkaError> {
    let mut lag = admin.group_lag(&group.group, topics).await?;
    let uncommitted: BTreeSet<String> = group
        .members
        .iter()
        .flat_map(|member| member.assignment.keys())
        .filter(|topic| topics.is_empty() && lag.iter().all(|at| at.topic != **topic))
        .cloned()
        .collect();
    if !uncommitted.is_empty() {
        let uncommitted: Vec<String> = uncommitted.into_iter().collect();
        lag.extend(admin.group_lag(&group.group, &uncommitted).await?);
    }
    if topics.is_empty() {
        visibility::check_topics_of(admin, &group.group, lag.len(), observer).await?;
    }
    Ok(lag)
}

/// An age in milliseconds as text such as `1h 3m 20s`, to the second.
///
/// ```
/// use evenkeel_ops::groups::lag::age;
///
/// assert_eq!(age(3_800_500), "1h 3m 20s");
/// ```
pub fn age(ms: i64) -> String {
    let seconds = jiff::SignedDuration::from_secs(ms / 1000);
    format!("{seconds:#}")
}

/// The partitions whose age is checked. Those of retry topics only if they are named.
fn with_checked_age<'a>(
    lag: &'a [PartitionLag],
    group: &str,
    named: &[String],
) -> Vec<&'a PartitionLag> {
    let own = retry_topic(group, "");
    let is_age_checked =
        |at: &&PartitionLag| named.contains(&at.topic) || !at.topic.starts_with(&own);
    lag.iter().filter(is_age_checked).collect()
}

/// Limits of a group's lag. Default: none.
///
/// ```
/// use evenkeel_ops::groups::lag::{LagLimits, violated_limit};
/// use std::time::Duration;
///
/// let limits = LagLimits::default()
///     .with_records(1_000)
///     .with_age(Duration::from_secs(300));
/// assert_eq!(violated_limit(&[], "payments", &[], limits), None, "nothing waits");
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct LagLimits {
    /// Bounds the number of records, over all partitions of all topics, parked ones included.
    /// `None`: no limit.
    pub records: Option<i64>,
    /// Bounds the age of the oldest unsettled record. The age of parked records counts only if
    /// their retry topic is named. `None`: no limit.
    pub age: Option<Duration>,
}

impl LagLimits {
    /// Sets [`records`](Self::records).
    #[must_use]
    pub fn with_records(mut self, records: impl Into<Option<i64>>) -> Self {
        self.records = records.into();
        self
    }

    /// Sets [`age`](Self::age).
    #[must_use]
    pub fn with_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.age = age.into();
        self
    }
}

/// The first violated limit of a group's lag on the `named` topics, or on all its topics, in words.
/// `None` if there is none. Parked records wait by design: their age counts only if their retry
/// topic is named. With any limit, a partition whose next record cannot be read is a violation too,
/// because its age is unknown.
pub fn violated_limit(
    lag: &[PartitionLag],
    group: &str,
    named: &[String],
    limits: LagLimits,
) -> Option<String> {
    violation_in_words(
        lag,
        &with_checked_age(lag, group, named),
        limits.records,
        limits.age,
    )
}

/// The violation in words. Records are checked first, then partitions that cannot be read, then the
/// age.
fn violation_in_words(
    lag: &[PartitionLag],
    with_age: &[&PartitionLag],
    threshold: Option<i64>,
    max_age: Option<Duration>,
) -> Option<String> {
    let records: i64 = lag.iter().map(|at| at.lag).sum();
    if let Some(threshold) = threshold.filter(|threshold| records > *threshold) {
        let most = lag.iter().max_by_key(|at| at.lag);
        let most = most.map(|at| format!(", {} of them in {}/{}", at.lag, at.topic, at.partition));
        return Some(format!(
            "{records} records behind, {threshold} allowed{}",
            most.unwrap_or_default()
        ));
    }
    if threshold.is_some() || max_age.is_some() {
        let mut unreadable = lag.iter().filter_map(|at| at.unreadable.as_ref());
        if let Some(unreadable) = unreadable.next() {
            return Some(unreadable.clone());
        }
    }
    let ages = with_age.iter().filter_map(|at| Some((at.age_ms?, at)));
    let (oldest, at) = ages.max_by_key(|(age, _)| *age)?;
    let allowed = i64::try_from(max_age?.as_millis()).unwrap_or(i64::MAX);
    (oldest > allowed).then(|| {
        format!(
            "the oldest unsettled record, in {}/{}, is {} old, {} allowed",
            at.topic,
            at.partition,
            age(oldest),
            age(allowed)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lag: i64, age_ms: Option<i64>) -> PartitionLag {
        let mut at = PartitionLag::new("t", 0);
        at.committed = Some(0);
        at.high = lag;
        at.lag = lag;
        at.age_ms = age_ms;
        at
    }

    #[test]
    fn a_group_is_judged_by_total_and_by_oldest_record() {
        let lag = [at(3, Some(2_000)), at(4, None)];
        let violation_in_words = |lag: &[PartitionLag], threshold, max_age| {
            super::violation_in_words(lag, &with_checked_age(lag, "g", &[]), threshold, max_age)
        };
        let check = |threshold, max_age, bad: bool| {
            assert_eq!(
                violation_in_words(&lag, threshold, max_age).is_some(),
                bad,
                "{threshold:?} {max_age:?}"
            );
        };
        check(None, None, false);
        check(Some(7), None, false);
        check(Some(6), None, true);
        check(None, Some(Duration::from_secs(2)), false);
        check(None, Some(Duration::from_millis(1_999)), true);
        assert_eq!(
            violation_in_words(&[], Some(0), Some(Duration::from_secs(1))),
            None
        );
        let mut unreadable = at(1, None);
        unreadable.unreadable = Some("t/0 cannot be read".to_owned());
        let lag = [unreadable];
        let hour = Some(Duration::from_secs(3600));
        assert!(violation_in_words(&lag, None, hour).is_some());
        assert!(violation_in_words(&lag, Some(10), None).is_some());
        assert_eq!(violation_in_words(&lag, None, None), None);
    }

    #[test]
    fn a_complaint_names_the_partition_and_skips_parked_records() {
        let of = |topic: &str, partition, lag, age_ms| {
            let mut of = at(lag, Some(age_ms));
            of.topic = topic.to_owned();
            of.partition = partition;
            of
        };
        let lag = [
            of("orders", 0, 2, 1_000),
            of("orders", 3, 5, 90_000),
            of("retry.g.orders", 1, 1, 600_000),
        ];
        let minute = Some(Duration::from_secs(60));
        let violation = |named: &[&str], threshold| {
            let named: Vec<String> = named.iter().map(|topic| (*topic).to_owned()).collect();
            violation_in_words(
                &lag,
                &with_checked_age(&lag, "g", &named),
                threshold,
                minute,
            )
            .unwrap_or_default()
        };
        assert!(
            violation(&[], None).contains("in orders/3, is 1m 30s old"),
            "{}",
            violation(&[], None)
        );
        let named = violation(&["retry.g.orders"], None);
        assert!(named.contains("in retry.g.orders/1, is 10m old"), "{named}");
        let many = violation(&[], Some(7));
        assert!(
            many.contains("8 records behind, 7 allowed, 5 of them in orders/3"),
            "{many}"
        );
    }

    #[test]
    fn an_age_is_written_in_words() {
        assert_eq!(age(3_800_999), "1h 3m 20s");
        assert_eq!(age(0), "0s");
    }
}

//! Compares the accepted events with those on the topic: each once, in the order of its key.

use crate::spec::Spec;
use evenkeel::event::decode;
use evenkeel::testing::read_topic;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Time limit for reading the topic.
const WITHIN: Duration = Duration::from_secs(60);

/// An event on the topic.
pub(super) struct Logged {
    partition: i32,
    key: String,
    /// The number in its id.
    number: u64,
}

/// How the topic differs from what was accepted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Differences {
    /// Accepted, and not on the topic.
    pub(super) missing: u64,
    /// Further copies of an event.
    pub(super) repeated: u64,
    /// Behind a later event of its key, under another key, or in another partition than its key.
    pub(super) out_of_order: u64,
    /// On the topic, and not accepted.
    pub(super) not_accepted: u64,
}

/// The events of the topic, those of a partition in their order. A record that is no event of the
/// load has the number `u64::MAX`.
pub(super) async fn logged(spec: &Spec) -> anyhow::Result<Vec<Logged>> {
    let records = read_topic(&spec.kafka()?, &spec.topic, WITHIN).await;
    let event = records.into_iter().map(|record| {
        let envelope = decode(record.headers.iter(), record.value.as_deref()).ok();
        let number = envelope.and_then(|envelope| {
            let (_, number) = envelope.attributes.id.rsplit_once('-')?;
            number.parse().ok()
        });
        let key = record.key.as_deref().unwrap_or_default();
        Logged {
            partition: record.partition,
            key: String::from_utf8_lossy(key).into_owned(),
            number: number.unwrap_or(u64::MAX),
        }
    });
    Ok(event.collect())
}

/// Compares the accepted orders with the topic. The clients take turns with the numbers, each has a
/// key of its own, and sends the next order when it has the answer to its last one.
pub(super) fn compare(accepted: &BTreeSet<u64>, logged: &[Logged], clients: u64) -> Differences {
    let mut differences = Differences::default();
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<&str, (i32, u64)> = BTreeMap::new();
    for event in logged {
        if !seen.insert(event.number) {
            differences.repeated += 1;
            continue;
        }
        differences.not_accepted += u64::from(!accepted.contains(&event.number));
        let latest = last
            .entry(&event.key)
            .or_insert((event.partition, event.number));
        let is_in_order = latest.0 == event.partition
            && latest.1 <= event.number
            && event.key == (event.number % clients).to_string();
        differences.out_of_order += u64::from(!is_in_order);
        latest.1 = latest.1.max(event.number);
    }
    differences.missing = accepted.difference(&seen).count() as u64;
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_counted() {
        let accepted: BTreeSet<u64> = (0..6).collect();
        let at = |partition, number: u64| Logged {
            partition,
            key: (number % 2).to_string(),
            number,
        };
        let right = || [(0, 0), (1, 1), (0, 2), (1, 3), (0, 4), (1, 5)].map(|(p, n)| at(p, n));
        let differences = |logged: &[Logged]| compare(&accepted, logged, 2);
        assert_eq!(differences(&right()), Differences::default());
        let mut repeated = Vec::from(right());
        repeated.push(at(0, 2));
        assert_eq!(differences(&repeated).repeated, 1);
        assert_eq!(differences(&right()[1..]).missing, 1);
        let mut swapped = right();
        swapped.swap(0, 2);
        assert_eq!(differences(&swapped).out_of_order, 1);
        let mut more = Vec::from(right());
        more.push(at(0, 8));
        assert_eq!(differences(&more).not_accepted, 1);
        let mut moved = right();
        moved[4].partition = 1;
        assert_eq!(differences(&moved).out_of_order, 1);
    }
}

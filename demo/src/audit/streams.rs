//! Compares what a stream delivered with what is on the log: every record of its filter once, and
//! those of a partition, and thus of a key, in the order of the log.

use super::{Identity, Position, Published, Tally};
use std::collections::{BTreeMap, HashMap};

/// Offsets by topic and partition.
type Offsets = BTreeMap<(String, i32), i64>;

/// What a stream delivered, and the part of the log that it covers.
#[derive(Debug, Clone, Default)]
pub(crate) struct StreamRecord {
    /// Event types of its filter.
    pub(crate) types: Vec<String>,
    /// Key of its filter. `None`: all keys.
    pub(crate) key: Option<String>,
    /// Offsets at which it begins, by topic and partition.
    pub(crate) from: Offsets,
    /// Offsets before which it ends.
    pub(crate) to: Offsets,
    /// The events in the order of delivery.
    pub(crate) events: Vec<Identity>,
}

/// The differences between a stream and the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamFindings {
    /// Records that were not delivered.
    pub(crate) missing: Tally,
    /// Deliveries beyond the appearances on the log, and of events outside of the filter.
    pub(crate) surplus: Tally,
    /// Deliveries after that of a later record of the same partition.
    pub(crate) out_of_order: Tally,
}

impl StreamRecord {
    fn covers(&self, event: &Published) -> bool {
        let place = (event.at.topic.clone(), event.at.partition);
        let (Some(from), Some(to)) = (self.from.get(&place), self.to.get(&place)) else {
            return false;
        };
        self.types.contains(&event.ty)
            && (self.key.is_none() || self.key == event.key)
            && (*from..*to).contains(&event.at.offset)
    }

    /// A line for each partition in which the stream began and has no end.
    pub(crate) fn without_end(&self) -> impl Iterator<Item = String> {
        let open = self
            .from
            .keys()
            .filter(|place| !self.to.contains_key(*place));
        open.map(|(topic, partition)| format!("no end is known in {topic}/{partition}"))
    }
}

/// Compares a stream with all events on the topics. The second delivery of an event counts as its
/// second appearance on the log, and so on.
pub(crate) fn compare(stream: &StreamRecord, published: &[Published]) -> StreamFindings {
    let mut expected: BTreeMap<&Identity, Vec<&Position>> = BTreeMap::new();
    for event in published.iter().filter(|event| stream.covers(event)) {
        expected.entry(&event.identity).or_default().push(&event.at);
    }
    for appearances in expected.values_mut() {
        appearances.sort_unstable();
    }
    let mut findings = StreamFindings::default();
    let mut delivered: HashMap<&Identity, usize> = HashMap::new();
    let mut latest: HashMap<(&str, i32), i64> = HashMap::new();
    for identity in &stream.events {
        let times = delivered.entry(identity).or_default();
        let appearances = expected.get(identity);
        let at = appearances.and_then(|appearances| appearances.get(*times));
        *times += 1;
        let Some(at) = at else {
            findings
                .surplus
                .add(|| format!("delivery {times} of {identity}"));
            continue;
        };
        let lane = latest
            .entry((at.topic.as_str(), at.partition))
            .or_insert(at.offset);
        if at.offset < *lane {
            findings
                .out_of_order
                .add(|| format!("{at} after offset {lane}"));
        } else {
            *lane = at.offset;
        }
    }
    for (identity, appearances) in &expected {
        let times = delivered.get(identity).copied().unwrap_or_default();
        for at in appearances.iter().skip(times) {
            findings.missing.add(|| format!("{identity} at {at}"));
        }
    }
    findings
}

impl StreamFindings {
    /// A line for each kind of finding. Empty if the stream and the log are equal.
    pub(crate) fn lines(&self) -> Vec<String> {
        let kinds = [
            ("missing", &self.missing),
            ("surplus", &self.surplus),
            ("out of order", &self.out_of_order),
        ];
        let line = |(kind, tally): (&str, &Tally)| {
            let example = tally.examples.first()?;
            Some(format!("{} {kind}, such as {example}", tally.count))
        };
        kinds.into_iter().filter_map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(number: i64) -> Identity {
        Identity {
            source: "/shop".to_owned(),
            id: number.to_string(),
        }
    }

    /// The record at this offset: of partition 0 if it is even, else of partition 1. Every fourth
    /// is of another type. Records 8 and 4 are the same event.
    fn record(offset: i64) -> Published {
        Published {
            identity: identity(if offset == 8 { 4 } else { offset }),
            ty: if offset % 4 == 3 { "other" } else { "placed" }.to_owned(),
            key: Some((offset % 2).to_string()),
            at: Position {
                topic: "orders".to_owned(),
                partition: (offset % 2) as i32,
                offset,
            },
        }
    }

    fn stream(key: Option<&str>, events: &[i64]) -> StreamRecord {
        let offsets = |offset: i64| -> Offsets {
            let places = [("orders".to_owned(), 0), ("orders".to_owned(), 1)];
            places.map(|place| (place, offset)).into()
        };
        StreamRecord {
            types: vec!["placed".to_owned()],
            key: key.map(str::to_owned),
            from: offsets(2),
            to: offsets(10),
            events: events.iter().copied().map(identity).collect(),
        }
    }

    #[test]
    fn a_stream_has_every_record_once_and_in_the_order_of_partitions() {
        let published: Vec<Published> = (0..12).map(record).collect();
        let cases: [(Option<&str>, &[i64], [u64; 3]); 13] = [
            (None, &[2, 4, 5, 6, 4, 9], [0, 0, 0]),
            (None, &[5, 9, 2, 4, 6, 4], [0, 0, 0]),
            (Some("1"), &[5, 9], [0, 0, 0]),
            (Some("none"), &[], [0, 0, 0]),
            // A resumed stream that lost, repeated or reordered events.
            (None, &[2, 4, 5, 6, 9], [1, 0, 0]),
            (None, &[2, 4, 5, 6, 4, 4, 9], [0, 1, 0]),
            (None, &[2, 4, 5, 6, 4, 9, 9], [0, 1, 0]),
            (None, &[4, 2, 5, 6, 4, 9], [0, 0, 1]),
            (None, &[], [6, 0, 0]),
            // Before the beginning, after the end, of another type or key, and of no record.
            (None, &[0, 2, 4, 5, 6, 4, 9], [0, 1, 0]),
            (None, &[2, 4, 5, 6, 4, 9, 10], [0, 1, 0]),
            (None, &[2, 3, 4, 5, 6, 4, 9], [0, 1, 0]),
            (Some("1"), &[5, 6, 9, 77], [0, 2, 0]),
        ];
        for (key, events, expected) in cases {
            let findings = compare(&stream(key, events), &published);
            let counts = [
                findings.missing.count,
                findings.surplus.count,
                findings.out_of_order.count,
            ];
            assert_eq!(counts, expected, "{key:?} {events:?}: {findings:?}");
            let kinds = expected.iter().filter(|count| **count > 0).count();
            assert_eq!(findings.lines().len(), kinds, "{findings:?}");
        }
    }

    #[test]
    fn a_finding_names_the_record() {
        let published: Vec<Published> = (0..12).map(record).collect();
        let findings = compare(&stream(Some("1"), &[9, 5]), &published);
        assert_eq!(
            findings.lines(),
            ["1 out of order, such as orders/1@5 after offset 9"]
        );
    }
}

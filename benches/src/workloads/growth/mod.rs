//! `growth`: how each cost grows with one quantity, the others kept. Every contestant is a point of
//! a figure, and a turn of its own.
//!
//! - `members-N-STORE`: N members of a group on one store, one effect an event
//! - `keys-N`: N keys on the topic, empty handler
//! - `payload-SIZE`: bytes of a record's value, empty handler; `mb_per_second` is the value in
//!   megabytes
//! - `rows-N-STORE`: an inbox that has N rows already, one effect an event
//!
//! With `--figures` the medians are drawn as `members.svg`, `keys.svg`, `payload.svg` and
//! `rows.svg`. A point that was left out, as `rows-10m-sqlite` is by `--without rows-10m-sqlite`,
//! is missing there.
//!
//! **Time and disk.** A round takes about 5 minutes; a third is the time in which inboxes are
//! filled. Ten million rows take about a minute in each turn, and about 4 GB in `TMPDIR` until its
//! end. The topics take 6 GB on the brokers, and remain.
//! That is why `growth` is not part of `all`.
//!
//! - [`dimension`]: the four quantities; [`point`]: a point; [`mod@figures`]: their charts
//! - [`members`], [`records`] (keys and payload), [`rows`]: the turns

mod dimension;
mod figures;
mod members;
mod point;
mod records;
mod rows;

use super::throughput::consume;
use crate::spec::{Contestant, Data, Plan, Spec, Turn};
use anyhow::Context;
use dimension::Dimension;
pub(crate) use figures::figures;

/// What a contestant writes that has no prepared topic.
pub(crate) const WRITTEN: Data = members::DATA;

pub(crate) fn plan() -> Plan {
    let contestants = Dimension::ALL.into_iter().flat_map(|dimension| {
        dimension.points().iter().map(move |point| Contestant {
            name: point.contestant,
            data: dimension.data(point),
        })
    });
    Plan {
        title: "costs by members, keys, bytes of a payload, and rows of the inbox".to_owned(),
        unit: "events/s",
        contestants: contestants.collect(),
        aims: Vec::new(),
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let (dimension, point) = Dimension::of(&spec.contestant)
        .with_context(|| format!("there is no contestant {}", spec.contestant))?;
    match dimension {
        Dimension::Members => members::turn(spec, point).await,
        Dimension::Keys => consume::turn(spec).await,
        Dimension::Payload => records::turn_with_bytes(spec).await,
        Dimension::Rows => rows::turn(spec, point).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn contestants_are_found_by_their_different_names() {
        let contestants = plan().contestants;
        let names: BTreeSet<&str> = contestants.iter().map(|known| known.name).collect();
        assert_eq!(names.len(), 8 + 4 + 4 + 6);
        for name in names {
            let (_, point) = Dimension::of(name).expect("it is a point");
            assert_eq!(point.contestant, name);
        }
    }

    #[test]
    fn every_key_has_the_same_number_of_records() {
        for contestant in plan().contestants {
            let data = contestant.data.unwrap_or(WRITTEN);
            let keys = data.keys as u64;
            assert!(data.records >= keys, "{}", contestant.name);
            assert!(data.records.is_multiple_of(keys), "{}", contestant.name);
        }
    }
}

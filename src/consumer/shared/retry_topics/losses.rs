//! Entries of retry partitions that Kafka deleted before they were settled.
//!
//! Two kinds: entries that are missing at the beginning of a partition, and whole topics. A loss
//! stays in the health until an operator accepts it or the partition is revoked; the next owner of
//! the partition detects it again. The loss of a deleted topic cannot be accepted: the group's
//! offsets in it are gone as well.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The lost entries of a consumer.
#[derive(Default)]
pub(crate) struct Losses(Mutex<AllLosses>);

/// All losses of this member.
#[derive(Default)]
pub(crate) struct AllLosses {
    /// Lost entries by the epoch of their partition.
    pub(crate) entries: BTreeMap<u64, Loss>,
    /// Deleted retry topics, with the numbers of keys and records that were parked in them for this
    /// member.
    pub(crate) topics: BTreeMap<String, (usize, usize)>,
}

/// The lost entries of one retry partition.
pub(crate) struct Loss {
    /// The retry partition, as `topic/partition`.
    pub(crate) place: String,
    pub(crate) entries: u64,
    /// The offset of the first one.
    pub(crate) first: i64,
}

impl Losses {
    /// Changes the lost entries. Returns the state for the health.
    pub(crate) fn change(
        &self,
        group: &str,
        change: impl FnOnce(&mut BTreeMap<u64, Loss>),
    ) -> Result<(), String> {
        self.change_all(group, |all| change(&mut all.entries))
    }

    /// Changes all losses. Returns the state for the health.
    pub(crate) fn change_all(
        &self,
        group: &str,
        change: impl FnOnce(&mut AllLosses),
    ) -> Result<(), String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut all);
        deleted_topic(group, &all.topics)?;
        lost_entries(group, &all.entries)
    }
}

/// The state for deleted topics: the first is named.
fn deleted_topic(group: &str, topics: &BTreeMap<String, (usize, usize)>) -> Result<(), String> {
    let Some((topic, (keys, records))) = topics.first_key_value() else {
        return Ok(());
    };
    Err(format!(
        "{topic} was deleted while {records} records of {keys} keys were parked in it: they are lost; evenkeel audit names those of \
         the group {group}; handle them again from the source, then restart this member"
    ))
}

/// The state for lost entries: their number, and the first of them.
fn lost_entries(group: &str, losses: &BTreeMap<u64, Loss>) -> Result<(), String> {
    let Some(first) = losses.values().next() else {
        return Ok(());
    };
    let entries: u64 = losses.values().map(|loss| loss.entries).sum();
    Err(format!(
        "{entries} entries of {} retry partitions were deleted by Kafka before they were settled, from {}@{} on: the records \
         parked there are lost; find the cause with: evenkeel groups topics {group}; then accept the loss with: evenkeel groups \
         accept-loss {group} --why TEXT",
        losses.len(),
        first.place,
        first.first,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_names_how_many_are_lost_and_the_command() {
        let losses = Losses::default();
        let loss = |first| Loss {
            place: "retry.g.t/3".to_owned(),
            entries: 4,
            first,
        };
        let shown = losses.change("g", |losses| drop(losses.insert(1, loss(7))));
        let shown = shown.expect_err("lost");
        assert!(
            shown.starts_with("4 entries of 1 retry partitions"),
            "{shown}"
        );
        assert!(shown.contains("retry.g.t/3@7"), "{shown}");
        assert!(
            shown.ends_with("evenkeel groups accept-loss g --why TEXT"),
            "{shown}"
        );
        let shown = losses.change("g", |losses| drop(losses.insert(2, loss(9))));
        assert!(shown.is_err_and(|shown| shown.starts_with("8 entries of 2")));
        assert_eq!(losses.change("g", BTreeMap::clear), Ok(()));
    }
}

//! What an operator's commands do to parked records.

use super::super::engine::Engine;
use super::super::partition::Partition;
use super::clock::steady_ms;
use super::order_name;
use crate::control::{Command, Scope};

impl Engine {
    /// Lets parked keys of this partition go on that `scope` names; says how many. Only one that is named goes on although it is
    /// held.
    pub(crate) fn release_parked(&self, partition: &Partition, scope: &Scope) -> usize {
        let Some(retry) = partition.retry.as_ref().filter(|retry| !retry.is_empty()) else {
            return 0;
        };
        let released = retry.change(|state| match scope {
            Scope::Key { key, .. } => {
                let mut names = self.names(key);
                usize::from(names.any(|name| state.release(name)))
            }
            Scope::Record(_) => 0,
            _ => state.release_waiting(steady_ms()),
        });
        self.parking.wake_dispatcher();
        released
    }

    /// Has the first parked record of a key given up, as `command` says, when it would start next, which is at once; says what
    /// comes of it.
    pub(crate) fn drop_parked(
        &self,
        partition: &Partition,
        key: &[u8],
        command: &Command,
    ) -> Dropped {
        let Some(retry) = &partition.retry else {
            return Dropped::NothingThere;
        };
        let mut names = self.names(key);
        let first = |name| Some((name, retry.change(|state| state.first_of(name))?));
        let Some((name, (offset, is_held))) = names.find_map(first) else {
            return Dropped::NothingThere;
        };
        if is_held {
            return Dropped::IsHeld;
        }
        self.control.drop_parked(partition.epoch, offset, command);
        retry.change(|state| state.release(name));
        self.parking.wake_dispatcher();
        Dropped::First
    }

    /// What a command may mean by a key: by the empty one the records without a key, too.
    fn names<'a>(&self, key: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let keyless = key.is_empty().then(|| order_name(&self.settings, None));
        order_name(&self.settings, Some(key))
            .into_iter()
            .chain(keyless.flatten())
    }
}

/// What comes of a command to drop a parked record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// No record of the key is parked.
    NothingThere,
    /// The key waits for a dead letter's replay: what is first is not what it waits for.
    IsHeld,
    /// The first one is dropped.
    First,
}

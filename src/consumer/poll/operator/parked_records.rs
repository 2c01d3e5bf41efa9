//! Applies operators' commands to parked records.
//!
//! The commands change the parked set only; the dispatcher fetches what became due. Keys in
//! commands are bytes of a record's key. Under [`RecordOrdering`](crate::consumer::RecordOrdering)
//! other than by key they are mapped to the ordering keys of the group.
//!
//! | command | key waits for its next attempt | key is held for a replay |
//! |---|---|---|
//! | retry of the key | due at once | released, before its replay |
//! | retry of partition, topic or group | due at once | stays held |
//! | drop of the key | its first record is dead-lettered | refused |

use crate::consumer::shared::Shared;
use crate::consumer::shared::clock::steady_ms;
use crate::consumer::state::ordering_key::ordering_key;
use crate::consumer::state::partition::Partition;
use crate::control::{Command, Scope};

impl Shared {
    /// Releases the parked keys of this partition that `scope` includes. Returns their number. A
    /// key that is held for the replay of its dead letter is released only if `scope` names it.
    pub(crate) fn release_parked(&self, partition: &Partition, scope: &Scope) -> usize {
        let Some(retry) = partition.retry.as_ref().filter(|retry| !retry.is_empty()) else {
            return 0;
        };
        let released = retry.change(|state| match scope {
            Scope::Key { key, .. } => {
                let mut keys = self.ordering_keys(key);
                usize::from(keys.any(|key_name| state.release(key_name)))
            }
            Scope::Record(_) => 0,
            _ => state.release_waiting(steady_ms()),
        });
        self.retry_topics.wake_dispatcher();
        released
    }

    /// Marks the first parked record of a key to be dropped, as `command` requests, and starts it
    /// at once.
    pub(crate) fn drop_parked(
        &self,
        partition: &Partition,
        key: &[u8],
        command: &Command,
    ) -> DropOutcome {
        let Some(retry) = &partition.retry else {
            return DropOutcome::NotParked;
        };
        let mut keys = self.ordering_keys(key);
        let first = |key_name| Some((key_name, retry.change(|state| state.first_of(key_name))?));
        let Some((key_name, (offset, is_held))) = keys.find_map(first) else {
            return DropOutcome::NotParked;
        };
        if is_held {
            return DropOutcome::HeldForReplay;
        }
        self.control.drop_parked(partition.epoch, offset, command);
        retry.change(|state| state.release(key_name));
        self.retry_topics.wake_dispatcher();
        DropOutcome::Dropped
    }

    /// The ordering keys that a command's key may mean. The empty key includes the records without
    /// a key.
    fn ordering_keys<'a>(&self, key: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let keyless = key.is_empty().then(|| ordering_key(&self.settings, None));
        ordering_key(&self.settings, Some(key))
            .into_iter()
            .chain(keyless.flatten())
    }
}

/// The result of a command to drop a parked record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropOutcome {
    /// No record of the key is parked.
    NotParked,
    /// The key waits for the replay of its dead letter, not for its first parked record.
    HeldForReplay,
    /// The first parked record is dropped.
    Dropped,
}

//! Assigned partitions whose retry partitions are not read yet, with the times of their lookups.
//!
//! A partition is in one of three lists: to be looked up, being looked up, or without a retry
//! topic. An answer for a partition that is in none of them comes too late.
//!
//! | list | leaves it for | when |
//! |---|---|---|
//! | `to_look_up` | `in_lookup` | at once after an assignment; a second after a failure |
//! | `in_lookup` | the reader | the partition was found |
//! | `in_lookup` | `to_look_up` | the lookup failed |
//! | `in_lookup` | `without_topic` | the topic is absent |
//! | `without_topic` | `in_lookup` | every five seconds |

use crate::consumer::retry_reader::reader::lookup::LookupKind;
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::partition::Partition;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Assigned partitions whose retry partitions are not read.
#[derive(Default)]
pub(crate) struct UnreadPartitions {
    /// Partitions to be looked up, with the time of the next lookup.
    pub(crate) to_look_up: Vec<(Instant, Arc<Partition>)>,
    /// Partitions whose lookup is in progress.
    pub(crate) in_lookup: Vec<Arc<Partition>>,
    /// Partitions without a retry topic, with the time of the next lookup.
    pub(crate) without_topic: Vec<(Instant, Arc<Partition>)>,
}

impl UnreadPartitions {
    /// Adds assigned partitions, to be looked up at once.
    pub(crate) fn add(&mut self, partitions: Vec<Arc<Partition>>) {
        let now = Instant::now();
        let to_look_up = partitions.into_iter().map(|partition| (now, partition));
        self.to_look_up.extend(to_look_up);
    }

    /// Removes and returns the partitions of revoked epochs.
    pub(crate) fn forget(&mut self, epochs: &[Epoch]) -> Vec<Arc<Partition>> {
        let is_gone = |partition: &Partition| epochs.contains(&partition.epoch);
        let mut gone: Vec<Arc<Partition>> = Vec::new();
        gone.extend(
            self.in_lookup
                .extract_if(.., |partition| is_gone(partition)),
        );
        for list in [&mut self.to_look_up, &mut self.without_topic] {
            let of_list = list.extract_if(.., |(_, partition)| is_gone(partition));
            gone.extend(of_list.map(|(_, partition)| partition));
        }
        gone
    }

    /// When the next lookup is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        let timed = self.to_look_up.iter().chain(&self.without_topic);
        timed.map(|(at, _)| *at).min()
    }

    /// Ends the lookup of a partition. Returns false if the partition was revoked meanwhile.
    pub(crate) fn answered(&mut self, partition: &Arc<Partition>) -> bool {
        let at = self
            .in_lookup
            .iter()
            .position(|known| known.epoch == partition.epoch);
        at.map(|at| self.in_lookup.swap_remove(at)).is_some()
    }

    /// Takes the partitions whose lookup is due, by retry topic.
    pub(crate) fn due(&mut self) -> Vec<(LookupKind, Arc<str>, Vec<Arc<Partition>>)> {
        let now = Instant::now();
        let lists = [
            (LookupKind::Offsets, &mut self.to_look_up),
            (LookupKind::Existence, &mut self.without_topic),
        ];
        let mut due = Vec::new();
        for (kind, list) in lists {
            let mut topics: HashMap<Arc<str>, Vec<Arc<Partition>>> = HashMap::new();
            for (_, partition) in list.extract_if(.., |(at, _)| *at <= now) {
                if let Some(retry) = &partition.retry {
                    let of_topic = topics.entry(Arc::clone(&retry.topic)).or_default();
                    of_topic.push(partition);
                }
            }
            due.extend(topics.into_iter().map(|(topic, of)| (kind, topic, of)));
        }
        for (_, _, partitions) in &due {
            self.in_lookup.extend(partitions.iter().cloned());
        }
        due
    }
}

//! Assigned partitions whose retry partitions are not read yet, with the times of their lookups.
//!
//! A partition is in one of three lists: to be looked up, being looked up, or without a retry
//! topic. An answer for a partition that is in none of them comes too late.
//!
//! | list | leaves it for | when |
//! |---|---|---|
//! | `unknown` | `asked` | at once after an assignment; a second after trouble |
//! | `asked` | the reader | the partition was found |
//! | `asked` | `unknown` | trouble |
//! | `asked` | `without` | the topic is absent |
//! | `without` | `asked` | every five seconds |

use crate::consumer::retry_reader::reader::lookup::Question;
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::partition::Partition;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Assigned partitions whose retry partitions are not read.
#[derive(Default)]
pub(crate) struct UnreadPartitions {
    /// Partitions to be looked up, with the time of the next lookup.
    pub(crate) unknown: Vec<(Instant, Arc<Partition>)>,
    /// Partitions whose lookup is in progress.
    pub(crate) asked: Vec<Arc<Partition>>,
    /// Partitions without a retry topic, with the time of the next lookup.
    pub(crate) without: Vec<(Instant, Arc<Partition>)>,
}

impl UnreadPartitions {
    /// Adds assigned partitions, to be looked up at once.
    pub(crate) fn add(&mut self, partitions: Vec<Arc<Partition>>) {
        let now = Instant::now();
        let unknown = partitions.into_iter().map(|partition| (now, partition));
        self.unknown.extend(unknown);
    }

    /// Removes and returns the partitions of revoked epochs.
    pub(crate) fn forget(&mut self, epochs: &[Epoch]) -> Vec<Arc<Partition>> {
        let is_gone = |partition: &Partition| epochs.contains(&partition.epoch);
        let mut gone: Vec<Arc<Partition>> = Vec::new();
        gone.extend(self.asked.extract_if(.., |partition| is_gone(partition)));
        for list in [&mut self.unknown, &mut self.without] {
            let of_list = list.extract_if(.., |(_, partition)| is_gone(partition));
            gone.extend(of_list.map(|(_, partition)| partition));
        }
        gone
    }

    /// When the next lookup is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        let timed = self.unknown.iter().chain(&self.without);
        timed.map(|(at, _)| *at).min()
    }

    /// Ends the lookup of a partition. Returns false if the partition was revoked meanwhile.
    pub(crate) fn answered(&mut self, partition: &Arc<Partition>) -> bool {
        let at = self
            .asked
            .iter()
            .position(|asked| asked.epoch == partition.epoch);
        at.map(|at| self.asked.swap_remove(at)).is_some()
    }

    /// Takes the partitions whose lookup is due, by retry topic.
    pub(crate) fn due(&mut self) -> Vec<(Question, Arc<str>, Vec<Arc<Partition>>)> {
        let now = Instant::now();
        let lists = [
            (Question::Places, &mut self.unknown),
            (Question::Appeared, &mut self.without),
        ];
        let mut due = Vec::new();
        for (question, list) in lists {
            let mut topics: HashMap<Arc<str>, Vec<Arc<Partition>>> = HashMap::new();
            for (_, partition) in list.extract_if(.., |(at, _)| *at <= now) {
                if let Some(retry) = &partition.retry {
                    let of_topic = topics.entry(Arc::clone(&retry.topic)).or_default();
                    of_topic.push(partition);
                }
            }
            due.extend(topics.into_iter().map(|(topic, of)| (question, topic, of)));
        }
        for (_, _, partitions) in &due {
            self.asked.extend(partitions.iter().cloned());
        }
        due
    }
}

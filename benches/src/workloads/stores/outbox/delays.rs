//! The delay of a relay: the time from the return of an event's commit until its record can be read
//! on the topic, which is after its acknowledgement by all in-sync replicas.

use super::events::order_in;
use crate::measure::run::raw_config;
use crate::spec::Spec;
use anyhow::{Context, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The reading fails after this time without a record.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Both times of each event. Clients set one, the thread that reads the topic sets the other.
pub(super) struct Delays {
    begun: Instant,
    keys: usize,
    /// Nanoseconds since `begun`, by position, then by key. 0: not yet.
    committed: Vec<AtomicU64>,
    readable: Vec<AtomicU64>,
}

impl Delays {
    /// No times yet, for `keys` keys with `places` events each.
    pub(super) fn new(keys: usize, places: u64) -> Self {
        let none = || {
            let events = keys as u64 * places;
            (0..events).map(|_| AtomicU64::new(0)).collect()
        };
        Self {
            begun: Instant::now(),
            keys,
            committed: none(),
            readable: none(),
        }
    }

    /// Registers the return of the event's commit.
    pub(super) fn set_committed(&self, key: usize, place: u64) {
        self.set(&self.committed, key, place);
    }

    /// Reads the topic from its beginning, until each event was read. Blocks the thread. Joins no
    /// group, so that it reads from the start of the load.
    pub(super) fn read(&self, spec: &Spec) -> anyhow::Result<()> {
        let consumer: BaseConsumer = raw_config(spec).create()?;
        let mut partitions = TopicPartitionList::new();
        for partition in 0..spec.data.partitions {
            partitions.add_partition_offset(&spec.topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&partitions)?;
        let mut unread = self.readable.len();
        let mut silent_since = Instant::now();
        while unread > 0 {
            if let Some(record) = consumer.poll(Duration::from_millis(100)) {
                let record = record.context("cannot read")?;
                let order = order_in(record.payload())?;
                let is_new = self.set(&self.readable, order.key as usize, order.place);
                unread -= usize::from(is_new);
                silent_since = Instant::now();
            } else if silent_since.elapsed() > SILENCE_MAX {
                bail!("{unread} events did not come to the topic");
            }
        }
        Ok(())
    }

    /// The delays in milliseconds. Those of the first event of each key do not count: the relay and
    /// the connections start meanwhile. A record that was read before its commit's return, which
    /// the server sends after the commit, has a delay below 0.
    pub(super) fn counted_ms(&self) -> Vec<f64> {
        let at = |of: &AtomicU64| of.load(Ordering::Relaxed) as f64;
        let times = self.committed.iter().zip(&self.readable).skip(self.keys);
        times
            .map(|(committed, readable)| (at(readable) - at(committed)) / 1e6)
            .collect()
    }

    /// Sets the time of an event to now. Returns whether it had none.
    fn set(&self, times: &[AtomicU64], key: usize, place: u64) -> bool {
        let now = self.begun.elapsed().as_nanos() as u64 + 1;
        let time = times.get(place as usize * self.keys + key);
        time.is_some_and(|time| {
            let set = time.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
            set.is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_events_do_not_count_and_repetitions_change_nothing() {
        let delays = Delays::new(2, 2);
        for (key, place) in [(0, 0), (1, 0), (1, 1), (0, 1)] {
            delays.set_committed(key, place);
            assert!(delays.set(&delays.readable, key, place));
        }
        let counted = delays.counted_ms();
        assert_eq!(counted.len(), 2);
        assert!(counted.iter().all(|delay| *delay >= 0.0), "{counted:?}");
        assert!(!delays.set(&delays.readable, 1, 1), "it was read before");
        assert!(
            !delays.set(&delays.readable, 0, 2),
            "there is no such event"
        );
        assert_eq!(delays.counted_ms(), counted);
    }
}

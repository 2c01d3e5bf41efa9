//! The newest reading of every part of a sample, merged into one. Pure.
//!
//! A part that is late, or fails, keeps its last numbers and their time: the others are fresh
//! nevertheless.

use super::rates::{History, Rates};
use super::sample::{Progress, Sample};
use super::store::StoreState;
use crate::cluster::Offsets;
use crate::shop::services::{GATEWAY, SERVICES, is_read_by};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// A part, with the time at which it was asked for: its numbers are not older.
#[derive(Debug)]
pub(super) struct Reading<T> {
    pub(super) at: Instant,
    pub(super) value: T,
}

/// The newest reading of every part.
pub(super) struct Latest {
    /// Parts that were never read are as old as this.
    started: Instant,
    /// The partitions that the groups read, with their first offsets.
    pub(super) first: Arc<Offsets>,
    /// Committed offsets, by service.
    pub(super) committed: BTreeMap<&'static str, Reading<Offsets>>,
    pub(super) ends: Option<Reading<Offsets>>,
    /// By service, and of the gateways.
    pub(super) stores: BTreeMap<&'static str, Reading<StoreState>>,
    history: History,
}

impl Latest {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            first: Arc::default(),
            committed: BTreeMap::new(),
            ends: None,
            stores: BTreeMap::new(),
            history: History::default(),
        }
    }

    /// Merges the parts at the end of a round that began at `began`. `faults` are the reasons why
    /// parts could not be read in it.
    pub(super) fn look(&mut self, began: Instant, faults: Vec<String>) -> Look {
        let mut sample = Sample {
            is_unpublished: self.stores.values().any(|store| store.value.is_unpublished),
            ..Sample::default()
        };
        let mut read_at = BTreeMap::new();
        for (service, _) in SERVICES {
            sample.services.insert(*service, self.progress(service));
            let position = self.position_read_at(service);
            let at = self.store_read_at(service).min(position);
            read_at.insert(*service, at.unwrap_or(self.started));
        }
        let gateway = self.store_read_at(GATEWAY);
        read_at.insert(GATEWAY, gateway.unwrap_or(self.started));
        for ((topic, _), end) in self.ends.iter().flat_map(|ends| &ends.value) {
            sample.end += end;
            if !topic.starts_with("retry.") {
                sample.published += end;
            }
        }
        // `None` is less than any time.
        let positions = SERVICES
            .iter()
            .map(|(service, _)| self.position_read_at(service));
        let positions_at = positions.min().flatten();
        if let Some(at) = positions_at {
            self.history.add(at, &sample);
        }
        Look {
            began,
            sample,
            rates: self.history.rates(),
            read_at,
            positions_at,
            faults,
        }
    }

    fn progress(&self, service: &str) -> Progress {
        let mut progress = Progress::default();
        if let Some(store) = self.stores.get(service) {
            progress.effects = store.value.effects;
        }
        if let (Some(committed), Some(ends)) = (self.committed.get(service), &self.ends) {
            let own = |((topic, _), _): &(&(String, i32), &i64)| is_read_by(service, topic);
            for (place, first) in self.first.iter().filter(own) {
                let end = ends.value.get(place).copied().unwrap_or(*first);
                progress.add(*first, end, committed.value.get(place).copied());
            }
        }
        progress
    }

    fn store_read_at(&self, service: &str) -> Option<Instant> {
        self.stores.get(service).map(|store| store.at)
    }

    fn position_read_at(&self, service: &str) -> Option<Instant> {
        let committed = self.committed.get(service).map(|committed| committed.at);
        committed.min(self.ends.as_ref().map(|ends| ends.at))
    }
}

/// A sample, with the times of its numbers.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// Begin of the round.
    pub(crate) began: Instant,
    pub(crate) sample: Sample,
    pub(crate) rates: Rates,
    /// The time of the oldest number of every service, and of the gateways.
    pub(crate) read_at: BTreeMap<&'static str, Instant>,
    /// The time of the oldest position of a group. `None` until every position was read once.
    pub(crate) positions_at: Option<Instant>,
    /// Why parts could not be read in this round. A part that is only late is none of them.
    pub(crate) faults: Vec<String>,
}

impl Look {
    /// The time of the oldest number.
    pub(crate) fn oldest(&self) -> Instant {
        let oldest = self.read_at.values().min();
        oldest.copied().unwrap_or(self.began)
    }

    /// Whether every part was read in this round.
    pub(crate) fn is_complete(&self) -> bool {
        self.oldest() >= self.began
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Offsets of one partition of each topic of payments: its first source topic, and a retry
    /// topic.
    fn offsets(source: i64, retry: i64) -> Offsets {
        let (topic, _) = SERVICES[0].1[0];
        let retry_topic = format!("retry.payments.{topic}");
        [((topic.to_owned(), 0), source), ((retry_topic, 0), retry)].into()
    }

    fn reading<T>(at: Instant, value: T) -> Reading<T> {
        Reading { at, value }
    }

    fn store(at: Instant, effects: u64) -> Reading<StoreState> {
        let value = StoreState {
            effects,
            is_unpublished: false,
        };
        reading(at, value)
    }

    /// All parts, read at this time. Payments has settled 4 of 10 records and 1 of 3 parked ones.
    fn latest(at: Instant) -> Latest {
        let mut latest = Latest::new(at);
        latest.first = Arc::new(offsets(0, 0));
        latest.ends = Some(reading(at, offsets(10, 3)));
        for (service, _) in SERVICES {
            let committed = match *service {
                "payments" => offsets(4, 1),
                _ => Offsets::new(),
            };
            latest.committed.insert(*service, reading(at, committed));
            latest.stores.insert(*service, store(at, 5));
        }
        latest.stores.insert(GATEWAY, store(at, 0));
        latest
    }

    #[test]
    fn parts_are_merged_into_one_sample() {
        let at = Instant::now();
        let look = latest(at).look(at, Vec::new());
        let expected = Progress {
            lag: 8,
            settled: 5,
            effects: 5,
        };
        assert_eq!(look.sample.services["payments"], expected);
        assert_eq!((look.sample.published, look.sample.end), (10, 13));
        assert!(look.is_complete());
        assert_eq!(look.positions_at, Some(at));
    }

    #[test]
    fn a_late_part_keeps_its_numbers_and_the_others_are_fresh() {
        let before = Instant::now();
        let mut latest = latest(before);
        let now = before + Duration::from_secs(1);
        latest.ends = Some(reading(now, offsets(20, 3)));
        for (service, _) in &SERVICES[1..] {
            latest.stores.insert(*service, store(now, 6));
            let committed = reading(now, offsets(15, 0));
            latest.committed.insert(*service, committed);
        }
        latest.stores.insert(GATEWAY, store(now, 0));
        let fault = "the store of payments: it is locked".to_owned();
        let look = latest.look(now, vec![fault.clone()]);
        assert_eq!(look.sample.services["payments"].effects, 5);
        assert_eq!(look.sample.services["payments"].lag, 18);
        assert_eq!(look.sample.services["shipping"].effects, 6);
        assert_eq!(look.read_at["payments"], before);
        assert_eq!(look.read_at["shipping"], now);
        assert_eq!(look.oldest(), before);
        assert_eq!(look.positions_at, Some(before));
        assert!(!look.is_complete());
        assert_eq!(look.faults, [fault]);
    }

    #[test]
    fn an_unread_part_is_as_old_as_the_run() {
        let started = Instant::now();
        let now = started + Duration::from_secs(1);
        let mut latest = latest(now);
        latest.started = started;
        latest.committed.remove("shipping");
        let look = latest.look(now, Vec::new());
        assert_eq!(look.read_at["shipping"], started);
        assert_eq!(look.read_at["payments"], now);
        assert_eq!(look.positions_at, None);
        assert!(!look.is_complete());
    }

    #[test]
    fn events_that_wait_in_any_store_are_unpublished() {
        let at = Instant::now();
        let mut latest = latest(at);
        assert!(!latest.look(at, Vec::new()).sample.is_unpublished);
        let gateway = latest.stores.get_mut(GATEWAY).expect("its store");
        gateway.value.is_unpublished = true;
        assert!(latest.look(at, Vec::new()).sample.is_unpublished);
    }
}

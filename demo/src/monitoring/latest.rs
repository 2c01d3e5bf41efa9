//! The newest reading of every part of a sample, merged into one. Pure.
//!
//! A part that is late, or fails, keeps its last numbers and their time: the others are fresh
//! nevertheless. A partition that has never answered has no number: it is counted as unknown.

use super::brokers::{Answers, LogBounds, Place};
use super::rates::Rates;
use super::sample::{Progress, Sample};
use super::store::StoreState;
use crate::shop::services::{GATEWAY, SERVICES, is_read_by};
use rdkafka::error::KafkaError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// A part, with the time at which it was requested: its numbers are not older.
#[derive(Debug)]
pub(super) struct Reading<T> {
    pub(super) at: Instant,
    pub(super) value: T,
}

/// The newest readings of the partitions that have answered.
pub(super) type Readings<T> = BTreeMap<Place, Reading<T>>;

/// The newest reading of every part.
pub(super) struct Latest {
    /// Parts that were never read are as old as this.
    started: Instant,
    /// The partitions that the groups read. None of them leaves in a run.
    pub(super) partitions: Arc<BTreeSet<Place>>,
    /// When they were listed last.
    listed_at: Instant,
    pub(super) logs: Readings<LogBounds>,
    /// Committed offsets, by service.
    pub(super) committed: BTreeMap<&'static str, Readings<Option<i64>>>,
    /// By service, and of the gateways.
    pub(super) stores: BTreeMap<&'static str, Reading<StoreState>>,
    /// Why the last request for a part failed, by part.
    faults: BTreeMap<String, String>,
}

impl Latest {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            partitions: Arc::default(),
            listed_at: started,
            logs: Readings::new(),
            committed: BTreeMap::new(),
            stores: BTreeMap::new(),
            faults: BTreeMap::new(),
        }
    }

    /// Keeps why the last request for a part failed. `None`: it did not, or is only late.
    pub(super) fn set_fault(&mut self, part: String, fault: Option<String>) {
        match fault {
            Some(fault) => self.faults.insert(part, fault),
            None => self.faults.remove(&part),
        };
    }

    /// Adds the partitions of a list that was requested at this time.
    pub(super) fn add_partitions(&mut self, at: Instant, listed: BTreeSet<Place>) {
        Arc::make_mut(&mut self.partitions).extend(listed);
        self.listed_at = at;
    }

    /// Whether partitions of all these topics are listed.
    pub(super) fn lists(&self, topics: impl IntoIterator<Item = String>) -> bool {
        let listed: BTreeSet<&str> = self.partitions.iter().map(|(topic, _)| &**topic).collect();
        let mut topics = topics.into_iter();
        topics.all(|topic| listed.contains(topic.as_str()))
    }

    /// Merges the parts at the end of a round. Without rates, which are those of many rounds.
    pub(super) fn merge(&self, ended: Instant) -> Round {
        let mut sample = Sample {
            is_unpublished: self.stores.values().any(|store| store.value.is_unpublished),
            logs: self.logs.len(),
            ..Sample::default()
        };
        let (mut read_at, mut positions) = (BTreeMap::new(), Vec::new());
        for (service, _) in SERVICES {
            let (progress, position_at) = self.progress(service);
            sample.services.insert(*service, progress);
            let at = position_at.unwrap_or(self.started);
            read_at.insert(*service, at.min(self.store_read_at(service)));
            positions.push(position_at);
        }
        for ((topic, _), log) in &self.logs {
            sample.end += log.value.end;
            if !topic.starts_with("retry.") {
                sample.published += log.value.end;
            }
        }
        let faults = self.faults.iter();
        Round {
            ended,
            sample,
            rates: Rates::default(),
            read_at,
            gateway_read_at: self.store_read_at(GATEWAY),
            listed_at: self.listed_at,
            // `None` is less than any time.
            positions_at: positions.into_iter().min().flatten(),
            faults: faults
                .map(|(part, fault)| format!("{part}: {fault}"))
                .collect(),
        }
    }

    /// The progress of a service, and the time of its oldest position.
    fn progress(&self, service: &str) -> (Progress, Option<Instant>) {
        let (mut progress, mut oldest) = (Progress::default(), None::<Instant>);
        if let Some(store) = self.stores.get(service) {
            progress.effects = store.value.effects;
        }
        let committed = self.committed.get(service);
        let own = |(topic, _): &&Place| is_read_by(service, topic);
        for place in self.partitions.iter().filter(own) {
            let committed = committed.and_then(|committed| committed.get(place));
            let (Some(log), Some(committed)) = (self.logs.get(place), committed) else {
                progress.unknown += 1;
                continue;
            };
            progress.add(log.value.first, log.value.end, committed.value);
            let at = log.at.min(committed.at);
            oldest = Some(oldest.map_or(at, |oldest| oldest.min(at)));
        }
        (progress, oldest)
    }

    fn store_read_at(&self, service: &str) -> Instant {
        let store = self.stores.get(service);
        store.map_or(self.started, |store| store.at)
    }
}

/// Keeps the values of the partitions that answered a request. Returns the others, with the reason.
pub(super) fn keep<T>(
    readings: &mut Readings<T>,
    at: Instant,
    answers: Answers<T>,
) -> Vec<(Place, KafkaError)> {
    let mut refused = Vec::new();
    for (place, answer) in answers {
        match answer {
            Ok(value) => {
                readings.insert(place, Reading { at, value });
            }
            Err(error) => refused.push((place, error)),
        }
    }
    refused
}

/// The result of a round: a sample, with the times of its numbers.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// The end of the round: everything in it was read earlier.
    pub(crate) ended: Instant,
    pub(crate) sample: Sample,
    pub(crate) rates: Rates,
    /// The time of the oldest number of every service: of its lag, or of its effects. If none of
    /// its partitions has ever answered, or its store has not, the start of the sampler.
    pub(crate) read_at: BTreeMap<&'static str, Instant>,
    /// The time at which the gateways' store was read. It shows whether events are unpublished, and
    /// has no number for the display.
    pub(crate) gateway_read_at: Instant,
    /// The time at which the partitions were listed. Those that were created later are missing.
    pub(crate) listed_at: Instant,
    /// The time of the oldest position of a group. `None` until every group has one.
    pub(crate) positions_at: Option<Instant>,
    /// Why parts have no fresh numbers. A part that is only late is none of them.
    pub(crate) faults: Vec<String>,
}

impl Round {
    /// The time of the oldest number on display.
    pub(crate) fn oldest(&self) -> Instant {
        let oldest = self.read_at.values().min();
        oldest.copied().unwrap_or(self.ended)
    }

    /// Whether the lag of every group is known as a whole.
    pub(crate) fn is_known(&self) -> bool {
        self.positions_at.is_some() && self.sample.unknown() == 0
    }

    /// Whether everything is known, and was read after this time: all partitions that existed then.
    pub(crate) fn is_read_after(&self, time: Instant) -> bool {
        let oldest = self.oldest().min(self.gateway_read_at);
        self.is_known() && oldest.min(self.listed_at) >= time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::error::RDKafkaErrorCode;
    use std::time::Duration;

    /// The partitions of payments: of its first source topic, and of the retry topic.
    fn places() -> [Place; 2] {
        let (topic, _) = SERVICES[0].1[0];
        let retry_topic = format!("retry.payments.{topic}");
        [(topic.to_owned(), 0), (retry_topic, 0)]
    }

    fn reading<T>(at: Instant, value: T) -> Reading<T> {
        Reading { at, value }
    }

    fn readings<T>(at: Instant, values: [T; 2]) -> Readings<T> {
        let values = values.map(|value| reading(at, value));
        places().into_iter().zip(values).collect()
    }

    fn logs(at: Instant, ends: [i64; 2]) -> Readings<LogBounds> {
        readings(at, ends.map(|end| LogBounds { first: 0, end }))
    }

    fn store(at: Instant, effects: u64) -> Reading<StoreState> {
        let value = StoreState {
            effects,
            is_unpublished: false,
        };
        reading(at, value)
    }

    /// All parts, read at this time. Payments has settled 4 of 10 records and 1 of 3 parked ones,
    /// the other groups none.
    fn latest(at: Instant) -> Latest {
        let mut latest = Latest::new(at);
        latest.add_partitions(at, places().into());
        latest.logs = logs(at, [10, 3]);
        for (service, _) in SERVICES {
            let committed = match *service {
                "payments" => [Some(4), Some(1)],
                _ => [None, None],
            };
            let committed = readings(at, committed);
            latest.committed.insert(*service, committed);
            latest.stores.insert(*service, store(at, 5));
        }
        latest.stores.insert(GATEWAY, store(at, 0));
        latest
    }

    #[test]
    fn parts_are_merged_into_one_sample() {
        let at = Instant::now();
        let round = latest(at).merge(at);
        let expected = Progress {
            lag: 8,
            settled: 5,
            effects: 5,
            known: 2,
            unknown: 0,
        };
        assert_eq!(round.sample.services["payments"], expected);
        assert_eq!((round.sample.published, round.sample.end), (10, 13));
        assert!(round.is_read_after(at));
        assert_eq!(round.positions_at, Some(at));
    }

    #[test]
    fn a_late_part_keeps_its_numbers_and_the_others_are_fresh() {
        let before = Instant::now();
        let mut latest = latest(before);
        let now = before + Duration::from_secs(1);
        latest.logs = logs(now, [20, 3]);
        for (service, _) in &SERVICES[1..] {
            latest.stores.insert(*service, store(now, 6));
            let committed = readings(now, [Some(15), None]);
            latest.committed.insert(*service, committed);
        }
        latest.stores.insert(GATEWAY, store(now, 0));
        let part = || "the store of payments".to_owned();
        latest.set_fault(part(), Some("it is locked".to_owned()));
        let round = latest.merge(now);
        assert_eq!(round.sample.services["payments"].effects, 5);
        assert_eq!(round.sample.services["payments"].lag, 18);
        assert_eq!(round.sample.services["shipping"].effects, 6);
        assert_eq!(round.read_at["payments"], before);
        assert_eq!(round.read_at["shipping"], now);
        assert_eq!(round.oldest(), before);
        assert_eq!(round.positions_at, Some(before));
        assert!(round.is_read_after(before) && !round.is_read_after(now));
        assert_eq!(round.faults, ["the store of payments: it is locked"]);
        latest.set_fault(part(), None);
        assert!(latest.merge(now).faults.is_empty());
    }

    #[test]
    fn a_refused_partition_keeps_its_number_and_the_others_are_fresh() {
        let before = Instant::now();
        let mut latest = latest(before);
        let now = before + Duration::from_secs(5);
        let [orders, retry] = places();
        let refusal = KafkaError::OffsetFetch(RDKafkaErrorCode::NotLeaderForPartition);
        let bounds = LogBounds { first: 0, end: 12 };
        let answers = [(orders, Ok(bounds)), (retry.clone(), Err(refusal.clone()))];
        let refused = keep(&mut latest.logs, now, answers.into());
        assert_eq!(refused, [(retry, refusal)]);
        let committed = latest.committed.get_mut("payments").expect("its commits");
        let fresh = places().map(|place| (place, Ok(Some(1))));
        assert!(keep(committed, now, fresh.into()).is_empty());
        let round = latest.merge(now);
        assert_eq!(round.sample.services["payments"].lag, 11 + 2);
        assert_eq!(round.sample.unknown(), 0);
        assert_eq!(round.read_at["payments"], before);
    }

    #[test]
    fn a_partition_that_has_never_answered_is_unknown_and_has_no_age() {
        let before = Instant::now();
        let mut latest = latest(before);
        let now = before + Duration::from_secs(5);
        latest.logs = logs(now, [20, 3]);
        let [_, retry] = places();
        latest.logs.remove(&retry);
        for (service, _) in SERVICES {
            latest.stores.insert(*service, store(now, 6));
            let committed = readings(now, [Some(15), None]);
            latest.committed.insert(*service, committed);
        }
        latest.stores.insert(GATEWAY, store(now, 0));
        let round = latest.merge(now);
        let payments = round.sample.services["payments"];
        assert_eq!((payments.lag, payments.known, payments.unknown), (5, 1, 1));
        assert_eq!(round.sample.unknown(), 1);
        assert_eq!(round.oldest(), now);
        assert!(!round.is_known() && !round.is_read_after(before));
    }

    #[test]
    fn a_list_of_partitions_is_as_old_as_its_request() {
        let before = Instant::now();
        let now = before + Duration::from_secs(1);
        let mut latest = latest(now);
        latest.listed_at = before;
        let round = latest.merge(now);
        assert!(round.is_read_after(before) && !round.is_read_after(now));
        latest.add_partitions(now, places().into());
        assert!(latest.merge(now).is_read_after(now));
        let created = ("retry.payments.other".to_owned(), 0);
        latest.add_partitions(now, [created].into());
        let round = latest.merge(now);
        assert_eq!(round.sample.services["payments"].known, 2);
        assert!(!round.is_read_after(before), "the new one was not read");
    }

    #[test]
    fn an_unread_part_is_as_old_as_the_run() {
        let started = Instant::now();
        let now = started + Duration::from_secs(1);
        let mut latest = latest(now);
        latest.started = started;
        latest.committed.remove("shipping");
        let round = latest.merge(now);
        assert_eq!(round.read_at["shipping"], started);
        assert_eq!(round.read_at["payments"], now);
        assert_eq!(round.positions_at, None);
        assert!(!round.is_known());
    }

    #[test]
    fn the_gateways_store_has_no_number_but_is_read_for_the_drain() {
        let before = Instant::now();
        let now = before + Duration::from_secs(1);
        let mut latest = latest(now);
        latest.stores.insert(GATEWAY, store(before, 0));
        let round = latest.merge(now);
        assert_eq!(round.oldest(), now);
        assert!(!round.is_read_after(now));
        let gateway = latest.stores.get_mut(GATEWAY).expect("its store");
        assert!(!round.sample.is_unpublished);
        gateway.value.is_unpublished = true;
        assert!(latest.merge(now).sample.is_unpublished);
    }
}

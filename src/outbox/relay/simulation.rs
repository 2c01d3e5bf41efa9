//! Thousands of random schedules of relays, brokers and crashes, and the invariants of each: every
//! event is on the log at least once, the first occurrences of a key are in order, however late a
//! send lands, and no row stays in memory.
//!
//! The real `InFlightRows` runs against a model of the table and the log, on a single thread with a
//! seeded random source: a failing seed can be repeated. Time is a variable, so a run takes no
//! time.

use super::super::store::{ReadPage, RowId, StoredRow};
use super::in_flight_rows::{InFlightRows, SendOutcome};
use super::settings::RelaySettings;
use crate::event::{Headers, OutgoingRecord};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

const KEYS: i64 = 24;
const RELAYS: usize = 3;
const STEPS: usize = 600;

/// The only slot: relays hold it in turn, and some believe to hold it for too long.
const SLOT: i16 = 0;

/// The table, the log, and the relays between them.
struct World {
    random: StdRng,
    now: Instant,
    table: BTreeMap<i64, StoredRow>,
    next_sequence: i64,
    /// Key and row, in the order of the log.
    log: Vec<(i64, i64)>,
    /// Events that were given up by deleting their rows.
    deleted_by_operator: BTreeSet<i64>,
    relays: Vec<Relay>,
    /// Sends of stopped relays, which may still land.
    orphans: Vec<StoredRow>,
    settings: RelaySettings,
}

/// A relay: its rows in memory and the rows that it has sent. Any number of relays may believe to
/// hold the slot.
struct Relay {
    in_flight: InFlightRows,
    under_way: Vec<StoredRow>,
    has_slot: bool,
    may_have_more: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let settings = RelaySettings {
            rows_max: 40,
            bytes_max: 3_000,
            ..RelaySettings::default()
        };
        let relay = || Relay {
            in_flight: InFlightRows::new(&settings),
            under_way: Vec::new(),
            has_slot: true,
            may_have_more: true,
        };
        Self {
            random: StdRng::seed_from_u64(seed),
            now: Instant::now(),
            table: BTreeMap::new(),
            next_sequence: 0,
            log: Vec::new(),
            deleted_by_operator: BTreeSet::new(),
            relays: (0..RELAYS).map(|_| relay()).collect(),
            orphans: Vec::new(),
            settings,
        }
    }

    /// True once in so many times.
    fn chance(&mut self, one_in: u32) -> bool {
        self.random.random_range(0..one_in) == 0
    }

    /// A service commits one event.
    fn write(&mut self) {
        self.next_sequence += 1;
        // A few keys have most of the rows.
        let key = self
            .random
            .random_range(0..KEYS)
            .min(self.random.random_range(0..KEYS));
        let topic = format!("t{}", key % 2);
        let row = StoredRow {
            id: RowId {
                sequence: self.next_sequence,
                event: self.next_sequence.to_string().into(),
            },
            key_hash: key,
            slot: SLOT,
            topic: topic.clone(),
            bytes: 100,
            record: Ok(OutgoingRecord {
                topic,
                partition: None,
                key: None,
                value: None,
                headers: Headers::new(),
                timestamp_ms: None,
            }),
        };
        self.table.insert(self.next_sequence, row);
    }

    /// Reads like the store.
    fn read(&mut self, relay: usize) {
        let relay = &mut self.relays[relay];
        let slots = BTreeSet::from([SLOT]);
        let Some(page) = relay.in_flight.page(&slots).filter(|_| relay.has_slot) else {
            return;
        };
        let wanted = |row: &&StoredRow| {
            !page.without_keys.contains(&row.key_hash)
                && (!page.without_topics.contains(&row.topic)
                    || page.due_keys.contains(&row.key_hash))
        };
        let found: Vec<_> = self
            .table
            .values()
            .filter(wanted)
            .take(page.rows_max)
            .collect();
        let mut total = 0;
        let fits = |row: &&&StoredRow| {
            total += row.bytes;
            total - row.bytes < page.bytes_max
        };
        let rows: Vec<StoredRow> = found.iter().take_while(fits).copied().cloned().collect();
        let is_whole = found.len() < page.rows_max && rows.len() == found.len();
        relay.may_have_more = relay.in_flight.take(ReadPage { rows, is_whole });
    }

    /// Sends all rows that can be sent, and checks that no key has two on their way.
    fn send(&mut self, relay: usize) {
        let relay = &mut self.relays[relay];
        let has_slot = relay.has_slot;
        while let Some(row) = relay.in_flight.next(|_| has_slot) {
            assert!(
                !relay
                    .under_way
                    .iter()
                    .any(|other| other.key_hash == row.key_hash),
                "two rows of a key under way"
            );
            relay.under_way.push(row);
        }
    }

    /// A row arrives at the log.
    fn append_to_log(&mut self, row: &StoredRow) {
        self.log.push((row.key_hash, row.id.sequence));
    }

    /// Ends the send of one row, with success or failure.
    fn end_one(&mut self, relay: usize, with_faults: bool) {
        let count = self.relays[relay].under_way.len();
        if count == 0 {
            return;
        }
        let index = self.random.random_range(0..count);
        let row = self.relays[relay].under_way.swap_remove(index);
        let outcome = match self.random.random_range(0..20) {
            0 if with_faults => SendOutcome::Refused("no".to_owned()),
            1 if with_faults => SendOutcome::Unfit("no".to_owned()),
            2 if with_faults => SendOutcome::NotSent,
            3 if with_faults => SendOutcome::Unknown("lost".to_owned()),
            4 if with_faults => {
                self.append_to_log(&row);
                SendOutcome::Unknown("landed, but who knows".to_owned())
            }
            5 if with_faults => {
                // Reported as unknown, and lands later.
                self.orphans.push(row.clone());
                SendOutcome::Unknown("on its way".to_owned())
            }
            _ => {
                self.append_to_log(&row);
                SendOutcome::Published
            }
        };
        let random = self.random.random();
        let in_flight = &mut self.relays[relay].in_flight;
        in_flight.settle(row.key_hash, outcome, self.now, random);
    }

    /// Deletes the acknowledged rows, like the store.
    fn delete(&mut self, relay: usize) {
        let published = self.relays[relay].in_flight.published();
        for row in &published {
            self.table.remove(&row.sequence);
        }
        let relay = &mut self.relays[relay];
        relay.may_have_more |= relay.in_flight.deleted(published.len());
    }

    /// A relay that hands over sends nothing more, waits for its sends and deletes. Only then may
    /// another one have the slot. A new relay takes its place.
    fn hand_over(&mut self, relay: usize) {
        self.relays[relay].in_flight.close();
        while !self.relays[relay].under_way.is_empty() {
            self.end_one(relay, true);
            assert!(self.relays[relay].in_flight.next(|_| true).is_none());
        }
        self.delete(relay);
        let in_flight = InFlightRows::new(&self.settings);
        let left = std::mem::replace(&mut self.relays[relay].in_flight, in_flight);
        assert!(
            left.is_empty() && !left.is_busy(SLOT),
            "it takes rows along"
        );
        self.relays[relay].may_have_more = true;
    }

    /// A kill, a hand-over, a lost or regained slot, a row deleted by an operator, or a late
    /// arrival of a killed relay's row.
    fn fault(&mut self, relay: usize) {
        match self.random.random_range(0..6) {
            0 => {
                // A killed relay: its sends may still land.
                let in_flight = InFlightRows::new(&self.settings);
                let killed = std::mem::replace(&mut self.relays[relay].in_flight, in_flight);
                drop(killed);
                let under_way = std::mem::take(&mut self.relays[relay].under_way);
                self.orphans.extend(under_way);
            }
            1 => {
                self.relays[relay].has_slot = false;
                self.relays[relay].in_flight.lose_slots(&[SLOT]);
            }
            2 => self.relays[relay].has_slot = true,
            3 => self.hand_over(relay),
            4 => {
                // An operator gives an event up: the first row of a key that no relay is sending or
                // has published.
                let free = |row: &&StoredRow| {
                    let is_first = self.table.values().find(|r| r.key_hash == row.key_hash);
                    let is_known = self
                        .log
                        .iter()
                        .any(|(_, sequence)| *sequence == row.id.sequence);
                    let is_sent = |relay: &Relay| relay.under_way.contains(row);
                    is_first == Some(*row)
                        && !is_known
                        && !self.relays.iter().any(is_sent)
                        && !self.orphans.contains(row)
                };
                if let Some(sequence) = self.table.values().find(free).map(|row| row.id.sequence) {
                    self.table.remove(&sequence);
                    self.deleted_by_operator.insert(sequence);
                }
            }
            _ => {
                if !self.orphans.is_empty() {
                    let index = self.random.random_range(0..self.orphans.len());
                    let row = self.orphans.swap_remove(index);
                    self.append_to_log(&row);
                }
            }
        }
    }

    /// One random step of one relay.
    fn step(&mut self, with_faults: bool) {
        let relay = self.random.random_range(0..RELAYS);
        match self.random.random_range(0..7) {
            0 if with_faults => self.write(),
            1 => self.read(relay),
            2 => self.send(relay),
            3 | 4 => self.end_one(relay, with_faults),
            5 => self.delete(relay),
            _ => {
                self.now += Duration::from_millis(self.random.random_range(0..400));
                self.relays[relay].in_flight.wake(self.now);
            }
        }
        if with_faults && self.chance(20) {
            self.fault(relay);
        }
    }

    /// Nothing is lost, and first occurrences of a key are in the order of its numbers.
    fn check(&self, seed: u64) {
        let mut seen: BTreeMap<i64, i64> = BTreeMap::new();
        let mut landed = BTreeSet::new();
        for (key, sequence) in &self.log {
            // A relay that had read a given-up event before may still publish it.
            if landed.insert(*sequence) && !self.deleted_by_operator.contains(sequence) {
                let before = seen.insert(*key, *sequence);
                assert!(
                    before < Some(*sequence),
                    "seed {seed}: {before:?} before {sequence} of {key}"
                );
            }
        }
        let missing = (1..=self.next_sequence).filter(|sequence| {
            !landed.contains(sequence) && !self.deleted_by_operator.contains(sequence)
        });
        assert_eq!(missing.collect::<Vec<_>>(), [0_i64; 0], "seed {seed}: lost");
    }
}

/// A schedule with faults, then one without, until everything is published.
fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step(true);
    }
    for relay in &mut world.relays {
        relay.has_slot = true;
        relay.may_have_more = true;
    }
    let mut rounds = 0;
    while !world.table.is_empty() || world.relays.iter().any(|relay| !relay.in_flight.is_empty()) {
        world.now += Duration::from_secs(1);
        for relay in 0..RELAYS {
            let is_woken = world.relays[relay].in_flight.wake(world.now);
            // No commit is a reason to read.
            if is_woken || world.relays[relay].may_have_more {
                world.read(relay);
            }
            world.send(relay);
            while !world.relays[relay].under_way.is_empty() {
                world.end_one(relay, false);
            }
            world.delete(relay);
        }
        rounds += 1;
        assert!(rounds < 1_000, "seed {seed}: rows stay where they are");
    }
    world.check(seed);
    for relay in &mut world.relays {
        let page = relay
            .in_flight
            .page(&BTreeSet::from([SLOT]))
            .expect("an idle relay reads");
        assert_eq!(
            (page.rows_max, page.bytes_max),
            (40, 3_000),
            "seed {seed}: books"
        );
    }
}

/// Whatever fails.
#[tokio::test(start_paused = true)]
async fn every_event_lands_and_first_occurrences_are_in_order() {
    for seed in 0..3_000 {
        run(seed);
    }
}

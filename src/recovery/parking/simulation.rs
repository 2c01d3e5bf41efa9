//! Drives the parked set through random schedules of failures, late writes, crashes and replays,
//! beside a naive model of the permitted order of effects.
//!
//! One partition, a few keys, an inbox that suppresses duplicates, and a log that survives crashes.
//! In every schedule no record has its effect before an earlier one of its key (except one that is
//! dead without a hold), and at the end each has had its effect once.
//!
//! Each step is one that threads of a member may take in any order: deliver a record to its lane,
//! let a lane continue, see an entry of the log, take what is due, let time pass, commit, let an
//! operator act, crash. A crash loses [`Life`] and keeps [`World`]. Writes that were not
//! acknowledged at a crash may reach the log later, as those of a client that was cut off do. A
//! failing seed is named and repeats exactly.

use super::super::parked::RetryTopicEntry;
use super::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, VecDeque};

/// Few, so that keys often wait behind themselves.
const KEYS: usize = 3;
/// Records of the source partition.
const RECORDS: i64 = 30;
/// The wait after each failure.
const WAIT_MS: i64 = 50;

/// The planned outcomes of a record.
#[derive(Clone, Copy)]
struct Plan {
    key: usize,
    /// Attempts that fail before one succeeds.
    failures: u32,
    /// How often it becomes a dead letter: at its first attempt, and then at those of its replays.
    deaths: u32,
}

/// A record in a lane: from the source partition, or handed out from the retry partition.
#[derive(Clone, Copy)]
enum Waiting {
    Source(i64),
    Parked(Ticket),
}

/// The entry for which a key's lane waits: to be written, and then acknowledged.
#[derive(Clone, Copy)]
struct Busy {
    entry: RetryTopicEntry,
    is_written: bool,
    of: Waiting,
}

/// The state that a crash loses.
struct Life {
    parking: ParkedSet,
    /// One for each key: the records that were delivered and not started.
    lanes: Vec<VecDeque<Waiting>>,
    /// What the lane of each key waits for.
    busy: Vec<Option<Busy>>,
    /// The next offset of the source partition to deliver.
    delivered: i64,
    /// The settled records of the source partition, as the offset tracker knows them.
    settled: Vec<bool>,
}

/// The state that survives a crash.
struct World {
    random: StdRng,
    /// Whether dead letters hold their keys.
    holds: bool,
    plans: Vec<Plan>,
    /// The retry partition: the key of each entry, the entry, and the source offset of its record.
    log: Vec<(usize, RetryTopicEntry, i64)>,
    now_ms: i64,
    /// The committed offset of the source partition.
    committed: i64,
    /// The committed offset of the retry partition, and the settled ranges above it.
    position: (i64, Vec<Range<i64>>),
    /// The inbox: records that have had their effect.
    applied: Vec<bool>,
    /// Dead letters, and whether they were replayed.
    dead: BTreeMap<i64, bool>,
    /// Writes of processes that crashed before the acknowledgement.
    lost_writes: Vec<(usize, RetryTopicEntry, i64)>,
}

impl ParkedSet {
    /// The dead letters whose replays a key waits for, by source offset.
    fn held_for(&self, name: &[u8]) -> Vec<i64> {
        let key = self.find(name).map(|id| &self.keys[id as usize]);
        let holds = key.into_iter().flat_map(|key| &key.holds);
        let open = holds.filter(|hold| hold.replay.is_none());
        open.map(|hold| hold.source_offset).collect()
    }
}

fn name(key: usize) -> [u8; 1] {
    [key as u8]
}

impl World {
    fn new(seed: u64, holds: bool) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let plan = |_| Plan {
            key: random.random_range(0..KEYS),
            failures: [0, 0, 0, 1, 3][random.random_range(0..5)],
            deaths: [0, 0, 0, 0, 0, 0, 0, 0, 1, 2][random.random_range(0..10)],
        };
        let plans = (0..RECORDS).map(plan).collect();
        Self {
            holds,
            plans,
            log: Vec::new(),
            now_ms: 1_000,
            committed: 0,
            position: (0, Vec::new()),
            applied: vec![false; RECORDS as usize],
            dead: BTreeMap::new(),
            lost_writes: Vec::new(),
            random,
        }
    }

    /// A member that starts from what is committed.
    fn life(&self) -> Life {
        let (start, settled_above) = &self.position;
        let end = self.log.len() as i64;
        Life {
            parking: ParkedSet::new(*start, end, settled_above, WAIT_MS, false),
            lanes: vec![VecDeque::new(); KEYS],
            busy: vec![None; KEYS],
            delivered: self.committed,
            settled: (0..RECORDS).map(|offset| offset < self.committed).collect(),
        }
    }

    /// One random step. Without crashes every schedule comes to an end.
    fn step(&mut self, life: &mut Life, may_crash: bool) {
        let key = self.random.random_range(0..KEYS);
        match self.random.random_range(0..100) {
            0..=14 if life.parking.is_whole() && life.delivered < RECORDS => {
                let lane = self.plans[life.delivered as usize].key;
                life.lanes[lane].push_back(Waiting::Source(life.delivered));
                life.delivered += 1;
            }
            15..=44 => self.lane(life, key),
            45..=59 => self.see(life),
            60..=69 => {
                let room = self.random.random_range(1..6);
                for ticket in life.parking.take_due(self.now_ms, room) {
                    let lane = self.log[ticket.offset as usize].0;
                    life.lanes[lane].push_back(Waiting::Parked(ticket));
                }
            }
            70..=79 => self.now_ms += self.random.random_range(1..30),
            80..=87 => self.commit(life),
            88..=90 => self.operate(life),
            91..=93 if may_crash => {
                let lost = life.busy.iter().enumerate().filter_map(|(key, busy)| {
                    busy.filter(|busy| !busy.is_written).map(|busy| (key, busy))
                });
                let lost = lost.map(|(key, busy)| (key, busy.entry, self.source_offset(busy.of)));
                let lost: Vec<_> = lost.collect();
                self.lost_writes.extend(lost);
                *life = self.life();
            }
            // Writes of a dead process may arrive late.
            94 if !self.lost_writes.is_empty() => {
                let write = self.lost_writes.swap_remove(0);
                if self.random.random_bool(0.3) {
                    self.log.push(write);
                }
            }
            _ => {}
        }
    }

    /// The retry reader sees the next entry.
    fn see(&self, life: &mut Life) {
        let at = life.parking.next();
        if let Some((key, entry, _)) = self.log.get(at as usize) {
            life.parking
                .seen(at, Some(&name(*key)), *entry, self.now_ms);
        }
    }

    /// Commits the offsets of both partitions. That of the retry partition never goes backwards.
    fn commit(&mut self, life: &Life) {
        let first_open = life.settled.iter().position(|settled| !settled);
        self.committed = first_open.map_or(RECORDS, |offset| offset as i64);
        if let Some(position) = life.parking.position() {
            assert!(
                position.watermark >= self.position.0,
                "the commit goes backwards"
            );
            let mut at = position.watermark;
            let mut settled = Vec::new();
            for range in position.unsettled {
                settled.push(at..range.start);
                at = range.end;
            }
            settled.push(at..position.next);
            settled.retain(|range| !range.is_empty());
            self.position = (position.watermark, settled);
        }
    }

    /// An operator replays a dead letter, or releases a key that has an unnecessary hold: a late
    /// write of a dead process may have held it again.
    fn operate(&mut self, life: &mut Life) {
        for key in 0..KEYS {
            let held = life.parking.held_for(&name(key));
            if !held.is_empty()
                && held
                    .iter()
                    .all(|source_offset| self.applied[*source_offset as usize])
            {
                life.parking.release(&name(key));
            }
        }
        let open = self.dead.iter().find(|(_, replayed)| !**replayed);
        if let Some((&source_offset, _)) = open.filter(|_| self.holds) {
            // The note of the key may be written later than the dead letter. An operator is rarely
            // as fast.
            let is_noted = |entry: &(usize, RetryTopicEntry, i64)| {
                entry.1 == RetryTopicEntry::Held { source_offset }
            };
            let is_fast = self.random.random_bool(0.1);
            if is_fast || self.log.iter().any(is_noted) {
                self.dead.insert(source_offset, true);
                let entry = RetryTopicEntry::Parked {
                    source_offset: Some(source_offset),
                    wait: RetryState::default(),
                    is_replay: true,
                };
                self.log
                    .push((self.plans[source_offset as usize].key, entry, source_offset));
            }
        }
    }

    /// The source offset of a record.
    fn source_offset(&self, of: Waiting) -> i64 {
        match of {
            Waiting::Source(source_offset) => source_offset,
            Waiting::Parked(ticket) => self.log[ticket.offset as usize].2,
        }
    }

    /// A lane continues: its write reaches the log, then it is acknowledged, then its next record
    /// starts.
    fn lane(&mut self, life: &mut Life, key: usize) {
        if let Some(busy) = life.busy[key] {
            if busy.is_written {
                life.busy[key] = None;
                self.acknowledged(life, busy);
            } else {
                self.log
                    .push((key, busy.entry, self.source_offset(busy.of)));
                life.busy[key] = Some(Busy {
                    is_written: true,
                    ..busy
                });
            }
            return;
        }
        let Some(of) = life.lanes[key].pop_front() else {
            return;
        };
        let source_offset = self.source_offset(of);
        let wait = match of {
            Waiting::Source(_) if life.parking.begin_if_waiting(&name(key), source_offset) => {
                life.busy[key] = Some(Busy {
                    entry: parked(source_offset, RetryState::default()),
                    is_written: false,
                    of,
                });
                return;
            }
            Waiting::Source(_) => RetryState::default(),
            Waiting::Parked(ticket) => match life.parking.start(ticket) {
                Some(wait) => wait,
                None => return,
            },
        };
        let entry = self.handle(life, key, of, source_offset, wait);
        life.busy[key] = entry.map(|entry| Busy {
            entry,
            is_written: false,
            of,
        });
    }

    /// Handles a record. Returns the entry to write if it failed.
    fn handle(
        &mut self,
        life: &mut Life,
        key: usize,
        of: Waiting,
        source_offset: i64,
        wait: RetryState,
    ) -> Option<RetryTopicEntry> {
        let plan = &mut self.plans[source_offset as usize];
        let is_dead = match self.dead.get(&source_offset) {
            None | Some(false) => plan.deaths > 0,
            Some(true) => {
                plan.deaths = plan.deaths.saturating_sub(1);
                plan.deaths > 0
            }
        };
        if !self.applied[source_offset as usize] && is_dead {
            self.dead.insert(source_offset, false);
            if !self.holds {
                settle(life, of);
                return None;
            }
            life.parking.begin_hold(&name(key), source_offset);
            return Some(RetryTopicEntry::Held { source_offset });
        }
        if !self.applied[source_offset as usize] && plan.failures > 0 {
            plan.failures -= 1;
            let wait = RetryState {
                rounds: wait.rounds + 1,
                attempts: wait.attempts + 1,
                not_before_ms: self.now_ms + WAIT_MS,
            };
            return Some(match of {
                Waiting::Source(_) => {
                    life.parking.begin(Some(&name(key)), source_offset);
                    parked(source_offset, wait)
                }
                Waiting::Parked(ticket) => RetryTopicEntry::Failed {
                    retry_offset: ticket.offset,
                    wait,
                },
            });
        }
        self.apply(key, source_offset);
        settle(life, of);
        None
    }

    /// The brokers acknowledged a lane's entry: its record is settled, or waits again.
    fn acknowledged(&mut self, life: &mut Life, busy: Busy) {
        match (busy.of, busy.entry) {
            (Waiting::Parked(ticket), RetryTopicEntry::Failed { wait, .. }) => {
                life.parking.put_back(ticket, wait);
            }
            (of, _) => settle(life, of),
        }
    }

    /// Gives a record its effect, unless the inbox knows it. Fails if an earlier one of its key has
    /// none.
    fn apply(&mut self, key: usize, source_offset: i64) {
        if self.applied[source_offset as usize] {
            return;
        }
        for earlier in (0..source_offset).filter(|earlier| self.plans[*earlier as usize].key == key)
        {
            let is_over = self.dead.contains_key(&earlier) && !self.holds;
            assert!(
                self.applied[earlier as usize] || is_over,
                "{source_offset} of key {key} before {earlier}"
            );
        }
        self.applied[source_offset as usize] = true;
    }
}

fn parked(source_offset: i64, wait: RetryState) -> RetryTopicEntry {
    RetryTopicEntry::Parked {
        source_offset: Some(source_offset),
        wait,
        is_replay: false,
    }
}

fn settle(life: &mut Life, of: Waiting) {
    match of {
        Waiting::Source(source_offset) => life.settled[source_offset as usize] = true,
        Waiting::Parked(ticket) => life.parking.settle(ticket),
    }
}

/// One schedule: crashes for a while, then none until nothing waits.
fn run(seed: u64, holds: bool) {
    let mut world = World::new(seed, holds);
    let mut life = world.life();
    for _ in 0..1_500 {
        world.step(&mut life, true);
    }
    let is_over = |world: &World, life: &Life| {
        life.settled.iter().all(|settled| *settled)
            && life.parking.next() == world.log.len() as i64
            && life.parking.keys() == 0
    };
    for _ in 0..200_000 {
        if is_over(&world, &life) {
            break;
        }
        world.step(&mut life, false);
    }
    assert!(is_over(&world, &life), "it does not end");
    for (source_offset, applied) in world.applied.iter().enumerate() {
        let is_dead = world.dead.contains_key(&(source_offset as i64)) && !holds;
        assert!(*applied || is_dead, "{source_offset} is lost");
    }
    let position = life.parking.position();
    let watermark = position.map_or(world.log.len() as i64, |position| position.watermark);
    assert_eq!(
        watermark,
        world.log.len() as i64,
        "something stays unsettled"
    );
}

fn run_seeds(holds: bool) {
    for seed in 0..1_000 {
        let ran = std::panic::catch_unwind(|| run(seed, holds));
        assert!(ran.is_ok(), "seed {seed}");
    }
}

#[test]
fn keys_keep_their_order_and_nothing_is_lost_whatever_crashes() {
    run_seeds(false);
}

#[test]
fn held_keys_wait_for_their_replay_whatever_crashes() {
    run_seeds(true);
}

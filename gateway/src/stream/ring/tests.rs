//! Positions and generations of the ring, and a simulation of its subscriptions.

use super::*;
use proptest::prelude::*;

const PARTITIONS: i32 = 3;

fn item(partition: i32, offset: i64, is_event: bool) -> LogItem {
    let event = is_event.then(|| {
        Arc::new(StreamedEvent {
            topic: "topic".into(),
            partition,
            offset,
            ty: "test.a.v1".to_owned(),
            key: None,
            json: "{}".into(),
        })
    });
    LogItem {
        partition,
        offset,
        event,
    }
}

fn ring(items_max: usize) -> Ring {
    Ring::new(vec![0; PARTITIONS as usize], usize::MAX, items_max)
}

/// A subscription of the simulation: its place, and what it has seen.
struct Reader {
    place: Place,
    /// Offsets up to which it catches up, if it does.
    catching_up: Option<Vec<i64>>,
    is_in_ring: bool,
    seen: Vec<(i32, i64)>,
    began: Vec<i64>,
}

impl Reader {
    fn new(positions: Vec<i64>) -> Self {
        Self {
            began: positions.clone(),
            place: Place::new(positions),
            catching_up: None,
            is_in_ring: false,
            seen: Vec::new(),
        }
    }

    /// One step, against the ring and the whole log. Returns whether there is more to do.
    fn step(&mut self, ring: &Ring, log: &[LogItem]) -> bool {
        if let Some(end) = self.catching_up.take() {
            // The log's order between partitions is not that of the ring.
            for partition in (0..PARTITIONS).rev() {
                let records = log.iter().filter(|item| {
                    let at = index(partition);
                    let range = self.place.positions[at]..end[at];
                    item.partition == partition && range.contains(&item.offset)
                });
                let records: Vec<LogItem> = records.cloned().collect();
                for item in records {
                    if self.place.pass(partition, item.offset) && item.event.is_some() {
                        self.seen.push((partition, item.offset));
                    }
                }
            }
            self.place.advance_all(&end);
            return true;
        }
        if !self.is_in_ring {
            match ring.join(&mut self.place) {
                Joined::Ring(gaps) => {
                    assert!(gaps.is_empty());
                    self.is_in_ring = true;
                }
                Joined::Behind { end, .. } => self.catching_up = Some(end),
            }
            return true;
        }
        match ring.take(&mut self.place, |_| true) {
            Taken::Event(event) => self.seen.push((event.partition, event.offset)),
            Taken::More => {}
            Taken::Nothing => return false,
            Taken::Lost => self.is_in_ring = false,
            Taken::Gap(gap) => panic!("no gap was appended: {gap:?}"),
        }
        true
    }

    fn check(&self, log: &[LogItem]) {
        for partition in 0..PARTITIONS {
            let of = |entry: &&(i32, i64)| entry.0 == partition;
            let seen: Vec<i64> = self.seen.iter().filter(of).map(|(_, at)| *at).collect();
            let expected = log.iter().filter(|item| {
                item.partition == partition
                    && item.event.is_some()
                    && item.offset >= self.began[index(partition)]
            });
            let expected: Vec<i64> = expected.map(|item| item.offset).collect();
            assert_eq!(seen, expected, "partition {partition}");
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        partition: i32,
        hole: i64,
        is_event: bool,
    },
    Subscribe {
        backwards: i64,
    },
    Read {
        reader: usize,
        steps: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = (0..PARTITIONS, 0..3_i64, any::<bool>());
    let append = append.prop_map(|(partition, hole, is_event)| Step::Append {
        partition,
        hole,
        is_event,
    });
    let subscribe = (0..20_i64).prop_map(|backwards| Step::Subscribe { backwards });
    let read = (any::<usize>(), 1..8_usize);
    let read = read.prop_map(|(reader, steps)| Step::Read { reader, steps });
    let step = prop_oneof![6 => append, 1 => subscribe, 3 => read];
    proptest::collection::vec(step, 1..300)
}

proptest! {
    /// Whatever is appended and evicted meanwhile, also while a reader catches up.
    #[test]
    fn every_reader_sees_each_event_once_in_order(steps in steps(), items_max in 1..12_usize) {
        let mut ring = ring(items_max);
        let mut log = Vec::new();
        let mut readers: Vec<Reader> = Vec::new();
        for step in steps {
            match step {
                Step::Append { partition, hole, is_event } => {
                    let offset = ring.next()[index(partition)] + hole;
                    log.push(item(partition, offset, is_event));
                    ring.append(item(partition, offset, is_event));
                }
                Step::Subscribe { backwards } => {
                    let back = |next: &i64| (next - backwards).max(0);
                    readers.push(Reader::new(ring.next().iter().map(back).collect()));
                }
                Step::Read { reader, steps } => {
                    let count = readers.len().max(1);
                    if let Some(reader) = readers.get_mut(reader % count) {
                        for _ in 0..steps {
                            reader.step(&ring, &log);
                        }
                    }
                }
            }
            prop_assert!(ring.items.len() <= items_max);
        }
        for reader in &mut readers {
            while reader.step(&ring, &log) {}
            reader.check(&log);
            prop_assert_eq!(reader.place.positions(), ring.next());
        }
    }
}

#[test]
fn the_oldest_events_make_room_and_a_large_one_stays_alone() {
    let one = bytes_of(&RingItem::Event(item(0, 0, true).event.expect("an event")));
    let mut ring = Ring::new(vec![0], 2 * one, 100);
    for offset in 0..5 {
        ring.append(item(0, offset, true));
    }
    assert_eq!(
        (ring.items.len(), ring.bytes(), ring.first),
        (2, 2 * one, 3)
    );
    assert_eq!(ring.complete_from, [3]);
    ring.bytes_max = 0;
    ring.append(item(0, 5, true));
    assert_eq!((ring.items.len(), ring.bytes()), (1, one));
}

#[test]
fn a_place_beyond_the_end_waits_for_its_offset() {
    let mut ring = Ring::new(vec![10], usize::MAX, 100);
    let mut place = Place::new(vec![12]);
    assert_eq!(ring.join(&mut place), Joined::Ring(Vec::new()));
    for offset in 10..13 {
        ring.append(item(0, offset, true));
    }
    let Taken::Event(event) = ring.take(&mut place, |_| true) else {
        panic!("offset 12 is there")
    };
    assert_eq!(event.offset, 12);
    assert!(matches!(ring.take(&mut place, |_| true), Taken::Nothing));
}

#[test]
fn a_recreated_topic_moves_every_place_to_its_beginning() {
    let mut ring = ring(100);
    ring.append(item(0, 7, true));
    let mut place = Place::new(vec![8, 3, 0]);
    assert_eq!(ring.join(&mut place), Joined::Ring(Vec::new()));
    ring.restart(vec![0, 0, 0], Restart::Recreated);
    assert!(matches!(ring.take(&mut place, |_| true), Taken::Lost));
    let gap = |partition, from| LogGap {
        partition,
        from,
        to: 0,
    };
    assert_eq!(
        ring.join(&mut place),
        Joined::Ring(vec![gap(0, 8), gap(1, 3)])
    );
    ring.append(item(0, 0, true));
    let taken = ring.take(&mut place, |_| true);
    assert!(matches!(taken, Taken::Event(event) if event.offset == 0));
}

#[test]
fn a_topic_that_was_recreated_and_then_cut_is_read_whole() {
    let mut ring = ring(100);
    ring.append(item(0, 7, true));
    // It has not joined yet: its positions were found in the first generation.
    let mut place = Place::of_generation(vec![8, 0, 0], ring.generation());
    ring.restart(vec![2, 0, 0], Restart::Recreated);
    ring.append(item(0, 9, true));
    ring.restart(vec![6, 0, 0], Restart::Truncated);
    let gap = LogGap {
        partition: 0,
        from: 8,
        to: 2,
    };
    let behind = Joined::Behind {
        gaps: vec![gap],
        end: vec![6, 0, 0],
    };
    assert_eq!(ring.join(&mut place), behind);
    assert_eq!(place.positions(), [2, 0, 0]);
}

#[test]
fn a_cut_log_moves_only_places_above_the_cut() {
    let mut ring = ring(100);
    for offset in 0..8 {
        ring.append(item(0, offset, true));
    }
    let (mut above, mut below) = (Place::new(vec![8, 0, 0]), Place::new(vec![2, 0, 0]));
    for place in [&mut above, &mut below] {
        assert_eq!(ring.join(place), Joined::Ring(Vec::new()));
    }
    ring.restart(vec![5, 0, 0], Restart::Truncated);
    let gap = LogGap {
        partition: 0,
        from: 8,
        to: 5,
    };
    assert_eq!(ring.join(&mut above), Joined::Ring(vec![gap]));
    let behind = Joined::Behind {
        gaps: Vec::new(),
        end: vec![5, 0, 0],
    };
    assert_eq!(ring.join(&mut below), behind);
}

#[test]
fn a_gap_concerns_a_place_from_its_beginning_on() {
    let mut ring = ring(100);
    let (mut before, mut after) = (Place::new(vec![0, 0, 0]), Place::new(vec![9, 0, 0]));
    let mut within = Place::new(vec![6, 0, 0]);
    for place in [&mut before, &mut after, &mut within] {
        assert_eq!(ring.join(place), Joined::Ring(Vec::new()));
    }
    let gap = LogGap {
        partition: 0,
        from: 4,
        to: 9,
    };
    ring.append_gap(gap);
    assert!(matches!(ring.take(&mut before, |_| true), Taken::Gap(found) if found == gap));
    assert!(matches!(ring.take(&mut after, |_| true), Taken::Nothing));
    let rest = LogGap { from: 6, ..gap };
    assert!(matches!(ring.take(&mut within, |_| true), Taken::Gap(found) if found == rest));
}

#[test]
fn a_new_partition_is_read_from_its_beginning() {
    let mut ring = Ring::new(vec![5], usize::MAX, 100);
    let mut place = Place::new(vec![5]);
    assert_eq!(ring.join(&mut place), Joined::Ring(Vec::new()));
    assert!(ring.grow(2));
    assert!(!ring.grow(2));
    ring.append(item(1, 0, true));
    let taken = ring.take(&mut place, |_| true);
    assert!(matches!(taken, Taken::Event(event) if event.partition == 1));
    assert_eq!(place.positions(), [5, 1]);
}

//! The steps of a schedule, and the checks of what must hold after each.

use super::model::{
    Assignment, CONCURRENCY, Item, KEYS, MEMBERS, Member, PARTITIONS, RECORDS, Random, Topic,
    WINDOW, WORKERS, lane_key,
};
use crate::consumer::state::commit_metadata::{self, SettledAbove, Tag};
use crate::consumer::state::offset_tracker::{Epoch, TrackedBatch};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// The topics, the members, and what decides the schedule.
pub(super) struct World {
    random: Random,
    topics: Vec<Topic>,
    members: Vec<Member>,
    next_epoch: u64,
}

impl World {
    /// Topics with gaps between their offsets, and members without partitions.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut topics: Vec<Topic> = (0..PARTITIONS).map(|_| Topic::default()).collect();
        for (partition, topic) in topics.iter_mut().enumerate() {
            let mut offset = 0;
            for _ in 0..RECORDS {
                offset += 1 + i64::from(random.chance(20)) * random.below(4) as i64;
                // A key belongs to one partition.
                topic
                    .log
                    .insert(offset, partition as u64 * KEYS + random.next() % KEYS);
            }
        }
        let members = (0..MEMBERS).map(|_| Member::new()).collect();
        Self {
            random,
            topics,
            members,
            next_epoch: 0,
        }
    }

    fn tag(partition: usize) -> Tag<'static> {
        Tag {
            group: "g",
            topic: "t",
            partition: partition as i32,
        }
    }

    /// One step, by a member that is drawn. The shares are chosen so that partitions change their
    /// owner about every tenth step.
    pub(super) fn step(&mut self) {
        let member = self.random.below(MEMBERS);
        match self.random.below(100) {
            0..35 => self.deliver(member),
            35..75 => self.finish_one(member),
            75..85 => {
                let refused = self.random.chance(20);
                self.commit(member, None, refused);
            }
            85..90 => self.revoke(member),
            90..98 => self.assign(member),
            _ => self.crash(member),
        }
    }

    /// Delivers the next records of a partition, as intake does.
    fn deliver(&mut self, number: usize) {
        let member = &mut self.members[number];
        let mut owned: Vec<usize> = member.assigned.keys().copied().collect();
        owned.sort_unstable();
        if owned.is_empty() {
            return;
        }
        let partition = owned[self.random.below(owned.len())];
        let room = member
            .limit
            .room(member.in_flight, 0)
            .min(1 + self.random.below(6));
        let topic = &mut self.topics[partition];
        let Some(assignment) = member.assigned.get_mut(&partition) else {
            return;
        };
        let mut shares: Vec<(TrackedBatch, Vec<(i64, u64)>)> = (0..WORKERS)
            .map(|_| (TrackedBatch::new(0, Instant::now()), Vec::new()))
            .collect();
        let (mut taken, mut skipped) = (0, false);
        for (&offset, &key) in topic.log.range(assignment.position..) {
            if taken == room {
                break;
            }
            assignment.position = offset + 1;
            if assignment.settled_above.contains(offset) {
                assert!(
                    topic.handled.contains(&offset),
                    "offset {offset} was skipped and never handled"
                );
                skipped = true;
                continue;
            }
            assert!(
                !topic.kept.contains(&offset),
                "offset {offset} was on record as settled and delivered again"
            );
            let share = &mut shares[key as usize % WORKERS];
            if share.1.is_empty() {
                share.0.epoch(assignment.epoch);
            }
            share.0.push(0, offset);
            share.1.push((offset, key));
            taken += 1;
        }
        let (epoch, position) = (assignment.epoch, assignment.position);
        for (worker, (batch, records)) in shares.into_iter().enumerate() {
            if records.is_empty() {
                continue;
            }
            let batch = member.tracker.admit(batch);
            for (index, (offset, key)) in records.into_iter().enumerate() {
                member.in_flight += 1;
                let item = Item {
                    partition,
                    epoch,
                    offset,
                    key,
                    key_bytes: key.to_le_bytes(),
                    batch: Arc::clone(&batch),
                    index,
                };
                Self::admit(member, worker, item);
            }
        }
        if skipped {
            member.tracker.advance(epoch, position);
        }
        assert!(
            member.in_flight <= WINDOW.max(1),
            "{} records in flight",
            member.in_flight
        );
    }

    /// Starts a record, or has it wait in its lane.
    fn admit(member: &mut Member, worker: usize, item: Item) {
        let free = member.running() < CONCURRENCY;
        let lanes = &mut member.workers[worker].lanes;
        if lanes.has_ready() || lanes.is_occupied(lane_key(&item)) || !free {
            lanes.enqueue(item, |item| Some(lane_key(item)));
        } else {
            let lane = lanes.occupy(Some(lane_key(&item)));
            member.workers[worker].running.push((lane, item));
        }
        Self::start_waiting(member, worker);
    }

    /// Starts the records whose turn it is, as a worker does.
    fn start_waiting(member: &mut Member, worker: usize) {
        while member.running() < CONCURRENCY {
            let Some((lane, item)) = member.workers[worker].lanes.start_next() else {
                break;
            };
            let overlap = member.workers[worker]
                .running
                .iter()
                .any(|(_, running)| running.key == item.key);
            assert!(
                !overlap,
                "two records of key {} run in one member",
                item.key
            );
            let owned = member.assigned.get(&item.partition);
            let is_owned = owned.is_some_and(|assignment| assignment.epoch == item.epoch);
            assert!(
                is_owned,
                "offset {} started after its partition had gone",
                item.offset
            );
            member.workers[worker].running.push((lane, item));
        }
    }

    /// Finishes a running record that is drawn.
    fn finish_one(&mut self, number: usize) {
        let busy: Vec<(usize, usize)> = self.members[number]
            .workers
            .iter()
            .enumerate()
            .flat_map(|(worker, state)| (0..state.running.len()).map(move |index| (worker, index)))
            .collect();
        if busy.is_empty() {
            return;
        }
        let (worker, index) = busy[self.random.below(busy.len())];
        self.finish(number, worker, index);
    }

    /// Lets a record take effect, checks the order of its key, and settles it.
    fn finish(&mut self, number: usize, worker: usize, index: usize) {
        let member = &mut self.members[number];
        let (lane, item) = member.workers[worker].running.swap_remove(index);
        let topic = &mut self.topics[item.partition];
        if topic.handled.insert(item.offset) {
            let earlier = topic
                .log
                .range(..item.offset)
                .filter(|(_, key)| **key == item.key);
            let behind: Vec<_> = earlier
                .filter(|(offset, _)| !topic.handled.contains(offset))
                .collect();
            assert!(
                behind.is_empty(),
                "offset {} of key {} took effect before {behind:?}",
                item.offset,
                item.key
            );
        }
        item.batch.settle(item.index);
        member.in_flight -= 1;
        member.workers[worker].lanes.finished(lane);
        for worker in 0..WORKERS {
            Self::start_waiting(member, worker);
        }
    }

    /// Commits the watermarks, unless the commit is refused. Returns the offsets of `only` that are
    /// recorded as settled.
    fn commit(&mut self, number: usize, only: Option<usize>, refused: bool) -> Vec<i64> {
        let member = &mut self.members[number];
        let positions = member.tracker.positions();
        let positions: HashMap<Epoch, _> = positions.into_iter().map(|it| (it.epoch, it)).collect();
        let mut on_record = Vec::new();
        for (&partition, assignment) in &member.assigned {
            if only.is_some_and(|only| only != partition) || refused {
                continue;
            }
            let position = &positions[&assignment.epoch];
            let (Some(watermark), Some(next)) = (position.watermark, position.next) else {
                continue;
            };
            let topic = &mut self.topics[partition];
            let committed = topic.committed.as_ref().map_or(0, |(offset, _)| *offset);
            assert!(
                watermark >= committed,
                "the watermark fell from {committed} to {watermark}"
            );
            let settled = |offset: &i64| {
                *offset < next
                    && !position
                        .unsettled
                        .iter()
                        .any(|range| range.contains(offset))
            };
            let settled: Vec<i64> = topic.log.keys().copied().filter(settled).collect();
            let unhandled: Vec<_> = settled
                .iter()
                .filter(|offset| !topic.handled.contains(offset))
                .collect();
            assert!(
                unhandled.is_empty(),
                "{unhandled:?} count as settled and were never handled"
            );
            assert!(
                topic
                    .log
                    .range(..watermark)
                    .all(|(offset, _)| settled.contains(offset))
            );
            let tag = Self::tag(partition);
            let encoded = commit_metadata::encode(
                tag,
                position.log,
                watermark,
                next,
                &position.unsettled,
                commit_metadata::BYTES_MAX,
            );
            topic.committed = Some((watermark, encoded.text.unwrap_or_default()));
            if only.is_some() {
                on_record.extend(settled);
            }
        }
        on_record
    }

    /// Takes a partition from its owner: with or without a complete drain, and with a commit.
    fn revoke(&mut self, number: usize) {
        let Some(partition) = self.pick_owned(number) else {
            return;
        };
        let epoch = self.members[number].assigned[&partition].epoch;
        let mut purged = 0;
        for worker in &mut self.members[number].workers {
            purged += worker.lanes.purge(|item| item.epoch == epoch);
        }
        self.members[number].in_flight -= purged;
        if self.random.chance(70) {
            while let Some((worker, index)) = self.members[number].running_of(epoch) {
                self.finish(number, worker, index);
            }
        }
        let refused = self.random.chance(10);
        let on_record = self.commit(number, Some(partition), refused);
        self.topics[partition].kept.extend(on_record);
        self.members[number].tracker.revoke(epoch);
        self.members[number].assigned.remove(&partition);
        self.topics[partition].owner = None;
    }

    fn pick_owned(&mut self, number: usize) -> Option<usize> {
        let mut owned: Vec<usize> = self.members[number].assigned.keys().copied().collect();
        owned.sort_unstable();
        (!owned.is_empty()).then(|| owned[self.random.below(owned.len())])
    }

    /// Gives a partition without an owner to a member, which starts at the committed offset.
    fn assign(&mut self, number: usize) {
        let free: Vec<usize> = (0..PARTITIONS)
            .filter(|partition| self.topics[*partition].owner.is_none())
            .collect();
        if free.is_empty() {
            return;
        }
        let partition = free[self.random.below(free.len())];
        self.next_epoch += 1;
        let epoch = Epoch(self.next_epoch);
        let topic = &mut self.topics[partition];
        topic.owner = Some(number);
        let (position, settled_above) = match &topic.committed {
            Some((offset, text)) => (
                *offset,
                commit_metadata::decode(Self::tag(partition), *offset, text.as_bytes())
                    .settled_above,
            ),
            None => (0, SettledAbove::default()),
        };
        let member = &mut self.members[number];
        member.tracker.assign(epoch, settled_above.runs());
        member.assigned.insert(
            partition,
            Assignment {
                epoch,
                position,
                settled_above,
            },
        );
    }

    /// Ends a member without a commit. What it handled since is delivered again.
    fn crash(&mut self, number: usize) {
        for partition in self.members[number].assigned.keys() {
            self.topics[*partition].owner = None;
        }
        self.members[number] = Member::new();
    }

    /// Whether everything was handled and committed.
    fn is_through(&self) -> bool {
        let through = |member: &Member| {
            let passed = |(partition, assignment): (&usize, &Assignment)| {
                assignment.position >= self.topics[*partition].end()
            };
            member.in_flight == 0 && member.assigned.iter().all(passed)
        };
        self.members.iter().all(through)
    }

    /// Lets the group run without disturbance until it is through.
    pub(super) fn settle_down(&mut self) {
        while self.topics.iter().any(|topic| topic.owner.is_none()) {
            let member = self.random.below(MEMBERS);
            self.assign(member);
        }
        for _ in 0..100_000 {
            if self.is_through() {
                break;
            }
            for number in 0..MEMBERS {
                self.deliver(number);
                self.finish_one(number);
            }
        }
        for number in 0..MEMBERS {
            self.commit(number, None, false);
        }
        for (partition, topic) in self.topics.iter().enumerate() {
            assert_eq!(
                topic.handled.len(),
                topic.log.len(),
                "records of partition {partition} were lost"
            );
            assert_eq!(
                topic.committed.as_ref().map(|(offset, _)| *offset),
                Some(topic.end()),
                "partition {partition} is not committed to its end"
            );
        }
    }
}

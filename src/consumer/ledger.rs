//! Which records are settled, and what may therefore be committed.
//!
//! Owns the books: an epoch per assigned partition, and for every received batch a bitmap that its worker fills as it
//! settles. Pure state: no client, no task, no clock. Workers touch nothing but their own batch's bitmap; the position
//! of a partition is worked out when a commit is due, from the batches that are not finished.

use super::metadata::Log;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// One assignment of one partition. A partition that comes back has another epoch, so results of the time before
/// never count for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Epoch(pub(crate) u64);

/// The books of one received batch: which record belongs to which epoch and offset, and which are settled.
pub(crate) struct LedgerBatch {
    epochs: Vec<EpochRun>,
    entries: Vec<Entry>,
    settled: Box<[AtomicU64]>,
    unsettled: AtomicU32,
    received_at: Instant,
}

#[derive(Clone, Copy)]
struct Entry {
    offset: i64,
    epoch: u32,
}

/// An epoch of a batch, with the offset after its highest record.
struct EpochRun {
    epoch: Epoch,
    next: i64,
}

impl LedgerBatch {
    /// Empty books for a batch received now.
    pub(crate) fn new(records: usize, received_at: Instant) -> Self {
        Self {
            epochs: Vec::new(),
            entries: Vec::with_capacity(records),
            settled: Box::default(),
            unsettled: AtomicU32::new(0),
            received_at,
        }
    }

    /// Adds an epoch, and returns the number that [`LedgerBatch::push`] takes for it.
    pub(crate) fn epoch(&mut self, epoch: Epoch) -> u32 {
        self.epochs.push(EpochRun {
            epoch,
            next: i64::MIN,
        });
        (self.epochs.len() - 1) as u32
    }

    /// Adds the next record.
    pub(crate) fn push(&mut self, epoch: u32, offset: i64) {
        self.entries.push(Entry { offset, epoch });
        let run = &mut self.epochs[epoch as usize];
        run.next = run.next.max(offset + 1);
    }

    /// Marks the record at `index` settled; a second time changes nothing.
    pub(crate) fn settle(&self, index: usize) {
        self.settle_word(index / 64, 1 << (index % 64));
    }

    /// Marks the records settled that `bits` stand for in a word of the bitmap.
    fn settle_word(&self, word: usize, bits: u64) {
        // Release: whoever sees a bit also sees what the handler did before.
        let before = self.settled[word].fetch_or(bits, Ordering::Release);
        let fresh = (bits & !before).count_ones();
        self.unsettled.fetch_sub(fresh, Ordering::Release);
    }

    fn is_finished(&self) -> bool {
        self.unsettled.load(Ordering::Acquire) == 0
    }

    /// The entries not settled yet.
    fn unsettled(&self) -> impl Iterator<Item = Entry> + '_ {
        self.settled
            .iter()
            .enumerate()
            .flat_map(move |(word_index, word)| {
                let first = word_index * 64;
                let count = (self.entries.len() - first).min(64);
                let all = if count == 64 {
                    u64::MAX
                } else {
                    (1 << count) - 1
                };
                let mut open = !word.load(Ordering::Acquire) & all;
                std::iter::from_fn(move || {
                    let bit = (open != 0).then(|| open.trailing_zeros() as usize)?;
                    open &= open - 1;
                    Some(self.entries[first + bit])
                })
            })
    }

    fn seal(&mut self) {
        self.settled = (0..self.entries.len().div_ceil(64))
            .map(|_| AtomicU64::new(0))
            .collect();
        *self.unsettled.get_mut() = self.entries.len() as u32;
    }
}

/// Records of one batch that are settled one after the other: entered a word at a time, the rest when it is dropped.
pub(crate) struct Settled<'a> {
    batch: &'a LedgerBatch,
    word: usize,
    bits: u64,
}

impl<'a> Settled<'a> {
    pub(crate) fn of(batch: &'a LedgerBatch) -> Self {
        Self {
            batch,
            word: 0,
            bits: 0,
        }
    }

    /// The record at `index` is settled.
    pub(crate) fn add(&mut self, index: usize) {
        if index / 64 != self.word {
            self.enter();
            self.word = index / 64;
        }
        self.bits |= 1 << (index % 64);
    }

    fn enter(&mut self) {
        if self.bits != 0 {
            self.batch
                .settle_word(self.word, std::mem::take(&mut self.bits));
        }
    }
}

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        self.enter();
    }
}

/// Where a partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: Epoch,
    /// The first offset that is not settled: what may be committed. None before the first record.
    pub(crate) watermark: Option<i64>,
    /// The offset after the last one that was received, or is known to be settled.
    pub(crate) next: Option<i64>,
    /// Offsets from the watermark up to `next` that are not settled, as ascending ranges.
    pub(crate) unsettled: Vec<Range<i64>>,
    /// Which log it is in.
    pub(crate) log: Log,
    /// Whether `unsettled` names all that is unsettled; where not, `next` is the end of what it names.
    pub(crate) is_whole: bool,
    /// Whether it began below what the group had committed, and therefore may be committed below it.
    pub(crate) fell_back: bool,
    /// When the record at the watermark was received; none when all are settled.
    pub(crate) oldest_received_at: Option<Instant>,
}

/// The books of all assigned partitions.
#[derive(Default)]
pub(crate) struct Ledger {
    tracks: HashMap<Epoch, Track>,
    batches: Vec<Arc<LedgerBatch>>,
    finished_seen: usize,
}

struct Track {
    next: Option<i64>,
    log: Log,
    fell_back: bool,
    /// Settled by an earlier life of the group: told again in every commit until intake has passed it.
    above: Vec<Range<i64>>,
}

impl Ledger {
    /// Opens the books of an assignment; `above` was settled before it, beyond the group's committed offset.
    pub(crate) fn assign(&mut self, epoch: Epoch, above: &[Range<i64>]) {
        let above = above.to_vec();
        let track = Track {
            next: None,
            log: Log::default(),
            fell_back: false,
            above,
        };
        self.tracks.insert(epoch, track);
    }

    /// The log that an assignment reads, as far as it is known.
    pub(crate) fn reads(&mut self, epoch: Epoch, log: Log) {
        if let Some(track) = self.tracks.get_mut(&epoch) {
            track.log = log;
        }
    }

    /// Records of this leader epoch were received.
    pub(crate) fn led_by(&mut self, epoch: Epoch, leader_epoch: Option<i32>) {
        if let Some(track) = self.tracks.get_mut(&epoch) {
            track.log.leader_epoch = track.log.leader_epoch.max(leader_epoch);
        }
    }

    /// The assignment begins below what was committed: what was known of its offsets counts for nothing.
    pub(crate) fn fall_back(&mut self, epoch: Epoch) {
        self.forget_above(epoch);
        if let Some(track) = self.tracks.get_mut(&epoch) {
            track.fell_back = true;
        }
    }

    /// What an earlier life settled and intake has not passed yet are other records now.
    pub(crate) fn forget_above(&mut self, epoch: Epoch) {
        if let Some(track) = self.tracks.get_mut(&epoch) {
            track.above.clear();
        }
    }

    /// Closes the books of an assignment: what its records still do counts for nothing.
    pub(crate) fn revoke(&mut self, epoch: Epoch) {
        self.tracks.remove(&epoch);
        let tracks = &self.tracks;
        // A batch that others share goes with the last of their records.
        self.batches.retain(|batch| {
            let mut open = batch.unsettled();
            open.any(|entry| tracks.contains_key(&batch.epochs[entry.epoch as usize].epoch))
        });
        self.finished_seen = 0;
    }

    /// Enters a received batch.
    pub(crate) fn admit(&mut self, mut batch: LedgerBatch) -> Arc<LedgerBatch> {
        batch.seal();
        for run in batch.epochs.iter().filter(|run| run.next > i64::MIN) {
            if let Some(track) = self.tracks.get_mut(&run.epoch) {
                track.advance(run.next);
            }
        }
        let batch = Arc::new(batch);
        if !batch.is_finished() {
            self.batches.push(Arc::clone(&batch));
        }
        // Looking at every batch each time would cost more than keeping some finished ones for a while.
        self.finished_seen += 1;
        if self.finished_seen * 2 > self.batches.len() {
            self.compact();
        }
        batch
    }

    /// Notes that everything before `offset` was seen, though no record stands there: the end of a partition after
    /// transaction markers, or records settled in an earlier life.
    pub(crate) fn advance(&mut self, epoch: Epoch, offset: i64) {
        if let Some(track) = self.tracks.get_mut(&epoch) {
            track.advance(offset);
        }
    }

    /// Drops finished batches.
    fn compact(&mut self) {
        self.batches.retain(|batch| !batch.is_finished());
        self.finished_seen = 0;
    }

    /// Where every assigned partition stands, all from one look.
    pub(crate) fn positions(&mut self) -> Vec<Position> {
        self.compact();
        let mut open: HashMap<Epoch, Open> = HashMap::with_capacity(self.tracks.len());
        for batch in &self.batches {
            for entry in batch.unsettled() {
                let open = open
                    .entry(batch.epochs[entry.epoch as usize].epoch)
                    .or_default();
                if open.first.is_none_or(|(first, _)| entry.offset < first) {
                    open.first = Some((entry.offset, batch.received_at));
                }
                open.offsets.push(entry.offset);
            }
        }
        let position = |(&epoch, track): (&Epoch, &Track)| {
            let open = open.remove(&epoch).unwrap_or_default();
            track.position(epoch, open)
        };
        self.tracks.iter().map(position).collect()
    }
}

impl Track {
    fn advance(&mut self, offset: i64) {
        self.next = Some(self.next.map_or(offset, |next| next.max(offset)));
    }

    fn position(&self, epoch: Epoch, open: Open) -> Position {
        let first = open.first.map(|(offset, _)| offset);
        let mut unsettled = ranges(open.offsets);
        let mut end = self.next;
        if let Some(next) = self.next {
            let mut at = next;
            for run in self.above.iter().filter(|run| run.end > next) {
                if run.start > at {
                    unsettled.push(at..run.start);
                }
                at = run.end;
            }
            end = Some(at);
        }
        Position {
            epoch,
            watermark: first
                .or_else(|| unsettled.first().map(|range| range.start))
                .or(end),
            next: end,
            unsettled,
            log: self.log,
            is_whole: true,
            fell_back: self.fell_back,
            oldest_received_at: open.first.map(|(_, received_at)| received_at),
        }
    }
}

#[derive(Default)]
struct Open {
    first: Option<(i64, Instant)>,
    offsets: Vec<i64>,
}

fn ranges(mut offsets: Vec<i64>) -> Vec<Range<i64>> {
    offsets.sort_unstable();
    let mut ranges: Vec<Range<i64>> = Vec::new();
    for offset in offsets {
        match ranges.last_mut() {
            Some(last) if last.end == offset => last.end += 1,
            _ => ranges.push(offset..offset + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(
        ledger: &mut Ledger,
        epoch: Epoch,
        offsets: impl IntoIterator<Item = i64>,
    ) -> Arc<LedgerBatch> {
        let mut batch = LedgerBatch::new(0, Instant::now());
        let number = batch.epoch(epoch);
        offsets
            .into_iter()
            .for_each(|offset| batch.push(number, offset));
        ledger.admit(batch)
    }

    fn watermark(ledger: &mut Ledger, epoch: Epoch) -> Option<i64> {
        ledger
            .positions()
            .into_iter()
            .find(|position| position.epoch == epoch)
            .and_then(|position| position.watermark)
    }

    #[test]
    fn the_watermark_is_the_first_unsettled_offset_whatever_is_settled_behind_it() {
        let (mut ledger, epoch) = (Ledger::default(), Epoch(1));
        ledger.assign(epoch, &[]);
        assert_eq!(watermark(&mut ledger, epoch), None);
        let batch = admit(&mut ledger, epoch, 10..80);
        (1..70).for_each(|index| batch.settle(index));
        assert_eq!(watermark(&mut ledger, epoch), Some(10));
        batch.settle(0);
        assert_eq!(watermark(&mut ledger, epoch), Some(80));
    }

    #[test]
    fn offsets_that_do_not_exist_are_jumped() {
        let (mut ledger, epoch) = (Ledger::default(), Epoch(1));
        ledger.assign(epoch, &[]);
        let batch = admit(&mut ledger, epoch, [3, 7, 20]);
        batch.settle(0);
        assert_eq!(watermark(&mut ledger, epoch), Some(7));
        batch.settle(1);
        batch.settle(1);
        assert_eq!(watermark(&mut ledger, epoch), Some(20));
        batch.settle(2);
        ledger.advance(epoch, 25);
        assert_eq!(watermark(&mut ledger, epoch), Some(25));
    }

    #[test]
    fn a_late_result_of_an_earlier_epoch_moves_nothing() {
        let (mut ledger, before, after) = (Ledger::default(), Epoch(1), Epoch(2));
        ledger.assign(before, &[]);
        let late = admit(&mut ledger, before, 0..3);
        ledger.revoke(before);
        ledger.assign(after, &[]);
        let fresh = admit(&mut ledger, after, 0..3);
        (0..3).for_each(|index| late.settle(index));
        assert_eq!(watermark(&mut ledger, after), Some(0));
        fresh.settle(0);
        assert_eq!(watermark(&mut ledger, after), Some(1));
        assert_eq!(watermark(&mut ledger, before), None);
    }

    #[test]
    fn finished_and_orphaned_batches_are_dropped() {
        let (mut ledger, epoch) = (Ledger::default(), Epoch(1));
        ledger.assign(epoch, &[]);
        let stuck = admit(&mut ledger, epoch, [0]);
        for offset in 1..1_000 {
            admit(&mut ledger, epoch, [offset]).settle(0);
        }
        assert!(
            ledger.batches.len() < 8,
            "{} batches kept",
            ledger.batches.len()
        );
        drop(stuck);
        let other = Epoch(2);
        ledger.assign(other, &[]);
        let mut shared = LedgerBatch::new(2, Instant::now());
        let numbers = [epoch, other].map(|epoch| shared.epoch(epoch));
        numbers
            .into_iter()
            .for_each(|number| shared.push(number, 2_000));
        let shared = ledger.admit(shared);
        shared.settle(1);
        ledger.revoke(epoch);
        assert!(
            ledger.batches.is_empty(),
            "what is left of the shared batch belongs to no open assignment"
        );
    }

    #[test]
    fn what_an_earlier_life_settled_is_told_until_intake_has_passed_it() {
        let (mut ledger, epoch) = (Ledger::default(), Epoch(1));
        ledger.assign(epoch, &[7..10, 12..14]);
        let slow = admit(&mut ledger, epoch, [5, 6]);
        let position = ledger.positions().remove(0);
        assert_eq!((position.watermark, position.next), (Some(5), Some(14)));
        assert_eq!(position.unsettled, [5..7, 10..12]);
        slow.settle(0);
        slow.settle(1);
        assert_eq!(watermark(&mut ledger, epoch), Some(10));
        ledger.advance(epoch, 10);
        admit(&mut ledger, epoch, [10, 11]).settle(0);
        assert_eq!(watermark(&mut ledger, epoch), Some(11));
    }

    #[test]
    fn what_is_unsettled_is_told_as_ranges() {
        let (mut ledger, epoch) = (Ledger::default(), Epoch(1));
        ledger.assign(epoch, &[]);
        let batch = admit(&mut ledger, epoch, 0..10);
        [0, 3, 4, 9]
            .into_iter()
            .for_each(|index| batch.settle(index));
        let position = ledger.positions().remove(0);
        assert_eq!((position.watermark, position.next), (Some(1), Some(10)));
        assert_eq!(position.unsettled, [1..3, 5..9]);
    }
}

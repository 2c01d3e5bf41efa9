//! Decides how many records may be taken from Kafka now, and whether a bounded run is done.
//!
//! The size of a record is unknown before it is taken, so that the byte limit works by an estimate.
//! The estimate rises at once and falls slowly: an underestimate would exceed the limit by a burst,
//! an overestimate only makes bursts smaller. A limit that is exceeded by one burst is accepted;
//! one burst is at most a megabyte by the estimate.
//!
//! # Example
//!
//! With 32 MiB and records of 1 kB, a burst has up to 1,024 records. Then records of 1 MB arrive:
//! the estimate is 1 MB after their first burst, and bursts have one record. When small records
//! return, the estimate halves with each burst, and after about ten the bursts are large again.

use crate::consumer::settings::StopWhen;
use std::time::Duration;

/// The most records taken at once.
pub(crate) const BURST_RECORDS_MAX: usize = 1024;
/// The most bytes taken at once, roughly. The memory of a burst is kept until its last record is
/// released.
const BURST_BYTES_MAX: usize = 1 << 20;
/// The share of the byte limit, as its divisor, that must be free for one more record. The mean of
/// the last records predicts the next one badly, and a single large record that waits must not stop
/// small ones.
const ENOUGH_FOR_ONE: usize = 8;

/// The limits of records in flight, with an estimate of the size of a record.
#[derive(Debug, Clone)]
pub(crate) struct InFlightLimit {
    records_max: usize,
    bytes_max: usize,
    /// The exponentially weighted mean of the bytes per record.
    record_bytes: usize,
}

impl InFlightLimit {
    /// Limits with a first guess of the record size. Both are at least 1.
    pub(crate) fn new(records_max: usize, bytes_max: usize) -> Self {
        // The first guess is high: a burst of large records must not overshoot before the mean is
        // known.
        Self {
            records_max,
            bytes_max,
            record_bytes: 64 << 10,
        }
    }

    /// How many records may be in flight.
    pub(crate) fn records_max(&self) -> usize {
        self.records_max
    }

    /// How many records may be taken while `records` and `bytes` are in flight. At least one if
    /// nothing is in flight: otherwise a record larger than the limit would never be taken.
    pub(crate) fn room(&self, records: usize, bytes: usize) -> usize {
        if records == 0 {
            return self
                .records_by_bytes(bytes)
                .clamp(1, self.burst_records().min(self.records_max));
        }
        self.records_by_bytes(bytes)
            .min(self.records_max.saturating_sub(records))
            .min(self.burst_records())
    }

    /// How many records of the estimated size make a burst: the memory of a burst is kept until its
    /// last record is released, so that large bursts waste memory behind a slow record.
    fn burst_records(&self) -> usize {
        (BURST_BYTES_MAX / self.record_bytes.max(1)).clamp(1, BURST_RECORDS_MAX)
    }

    /// How many records of the estimated size fit into the free bytes. One, while an eighth is
    /// free.
    fn records_by_bytes(&self, bytes: usize) -> usize {
        let free = self.bytes_max.saturating_sub(bytes);
        let fit = free / self.record_bytes.max(1);
        fit.max(usize::from(free > self.bytes_max / ENOUGH_FOR_ONE))
    }

    /// Updates the mean with a burst: at once if records became larger, slowly if they became
    /// smaller.
    pub(crate) fn update_mean(&mut self, records: usize, bytes: usize) {
        if records == 0 {
            return;
        }
        let mean = bytes / records + 1;
        self.record_bytes = mean.max((self.record_bytes + mean) / 2);
    }
}

/// The state of a bounded run that decides whether it is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// Records received and not released unsettled.
    pub(crate) received: u64,
    /// Records admitted and not settled, parked ones included.
    pub(crate) in_flight: usize,
    /// Time since the last record, or since the first assignment. None before that.
    pub(crate) idle_for: Option<Duration>,
    /// Whether every assigned partition is settled up to its end at the assignment. False before
    /// the first assignment.
    pub(crate) ends_reached: bool,
}

impl Progress {
    /// Whether no record has arrived for at least `long`.
    pub(crate) fn is_idle(&self, long: Duration) -> bool {
        self.idle_for.is_some_and(|waited| waited >= long)
    }
}

/// How many more records a bounded run takes.
///
/// Only a run of a number of records is limited. Records are never taken beyond it, because a
/// record that is taken and not handled would be redelivered.
pub(crate) fn wanted(bound: StopWhen, received: u64) -> usize {
    match bound {
        StopWhen::Records(records) => {
            usize::try_from(records.saturating_sub(received)).unwrap_or(usize::MAX)
        }
        StopWhen::Endless | StopWhen::UntilEnd | StopWhen::Idle(_) => usize::MAX,
    }
}

/// Whether the run is done.
///
/// A run by number is done when the records are settled, not when they are received. A run to the
/// end does not look at the records in flight: what is settled decides, and records beyond the ends
/// at the assignment may be in flight.
pub(crate) fn is_done(bound: StopWhen, progress: Progress) -> bool {
    match bound {
        StopWhen::Endless => false,
        StopWhen::UntilEnd => progress.ends_reached,
        StopWhen::Records(records) => progress.received >= records && progress.in_flight == 0,
        StopWhen::Idle(idle) => progress.in_flight == 0 && progress.is_idle(idle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_ends_at_either_limit_but_one_record_fits() {
        let mut limit = InFlightLimit::new(100, 10_000);
        limit.update_mean(100, 100_000 - 100);
        for _ in 0..20 {
            limit.update_mean(10, 990);
        }
        assert_eq!(limit.record_bytes, 100);
        assert_eq!(limit.room(0, 0), 100);
        assert_eq!(limit.room(99, 0), 1);
        assert_eq!(limit.room(100, 0), 0);
        assert_eq!(limit.room(1, 9_950), 0);
        assert_eq!(limit.room(1, 20_000), 0);
        assert_eq!(limit.room(0, 20_000), 1);
    }

    #[test]
    fn a_large_record_that_waits_stops_no_small_ones() {
        let mut limit = InFlightLimit::new(4096, 32 << 20);
        limit.update_mean(1, 20 << 20);
        let mut taken = 0;
        while taken < 1000 {
            let room = limit.room(1 + taken, (20 << 20) + taken * 1024);
            assert!(room > 0, "after {taken} small records");
            limit.update_mean(room, room * 1024);
            taken += room;
        }
        limit.update_mean(1, 20 << 20);
        assert_eq!(limit.room(1, 29 << 20), 0);
    }

    #[test]
    fn heavier_records_shrink_the_next_burst_at_once() {
        let mut limit = InFlightLimit::new(10_000, 1 << 20);
        for _ in 0..20 {
            limit.update_mean(10, 990);
        }
        assert_eq!(limit.room(0, 0), BURST_RECORDS_MAX);
        limit.update_mean(1, 900_000);
        assert_eq!(limit.room(1, 0), 1);
    }

    #[test]
    fn a_bounded_run_takes_n_records_and_awaits_their_settlement() {
        let progress = Progress {
            received: 10,
            in_flight: 1,
            idle_for: None,
            ends_reached: false,
        };
        assert_eq!(wanted(StopWhen::Records(12), 10), 2);
        assert_eq!(wanted(StopWhen::Records(12), 13), 0);
        assert!(!is_done(StopWhen::Records(10), progress));
        assert!(is_done(
            StopWhen::Records(10),
            Progress {
                in_flight: 0,
                ..progress
            }
        ));
        assert!(!is_done(StopWhen::Idle(Duration::ZERO), progress));
        assert!(!is_done(
            StopWhen::Endless,
            Progress {
                ends_reached: true,
                ..progress
            }
        ));
    }
}

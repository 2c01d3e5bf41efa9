//! The bound of the buffer: admits records while there is room, and queues the callers that wait.
//!
//! Owns the limits in bytes and records, and the order of the waiting callers. Knows neither
//! records nor client.
//!
//! A record is charged `clamp(bytes, bytes_max / records_max, bytes_max)`. With `n` records in the
//! buffer the charges are at least `n * bytes_max / records_max`, and at most `bytes_max`, so `n`
//! is at most `records_max`.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};

/// Room for records, counted in bytes.
///
/// One count bounds both: each record is charged its size, but at least an even share of the bytes,
/// so that more than `records_max` records never fit. A record larger than the whole buffer is
/// charged the whole buffer and is sent alone.
pub(super) struct BufferLimit {
    permits: Semaphore,
    bytes_max: u32,
    charge_min: u32,
    /// Held by the first of the waiting callers.
    turn: Mutex<()>,
    waiting: AtomicUsize,
}

/// The right to enqueue one record. Dropped unused, it returns its room.
pub(super) struct Reservation<'a> {
    permit: SemaphorePermit<'a>,
    charge: u32,
    _turn: Option<(MutexGuard<'a, ()>, Waiting<'a>)>,
}

/// Counts a waiting caller until it is dropped, so that a cancelled future is counted off too.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl BufferLimit {
    /// Creates room for this many bytes and records, both at least 1.
    pub(super) fn new(bytes_max: u32, records_max: usize) -> Self {
        let records_max = u32::try_from(records_max).unwrap_or(u32::MAX).max(1);
        Self {
            permits: Semaphore::new(bytes_max as usize),
            bytes_max,
            charge_min: (bytes_max / records_max).max(1),
            turn: Mutex::new(()),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Waits for room for a record of `bytes` bytes.
    ///
    /// First come, first served, by the first poll of the returned future: no caller overtakes a
    /// waiting one, however small its record, because the record might carry a later event of the
    /// same key. The semaphore alone does not ensure this: a new caller can take the rest between
    /// the moment a waiter is served and the moment it runs.
    pub(super) async fn enter(&self, bytes: usize) -> Reservation<'_> {
        let charge = self.charge(bytes);
        if self.waiting.load(Ordering::SeqCst) == 0
            && let Ok(permit) = self.permits.try_acquire_many(charge)
        {
            return Reservation {
                permit,
                charge,
                _turn: None,
            };
        }
        let waiting = Waiting::new(&self.waiting);
        let turn = self.turn.lock().await;
        let permit = self
            .permits
            .acquire_many(charge)
            .await
            .expect("the semaphore is never closed");
        Reservation {
            permit,
            charge,
            _turn: Some((turn, waiting)),
        }
    }

    /// Returns the room of delivered or failed records: the sum of their charges.
    pub(super) fn leave(&self, charges: usize) {
        self.permits.add_permits(charges);
    }

    fn charge(&self, bytes: usize) -> u32 {
        u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .clamp(self.charge_min, self.bytes_max)
    }
}

impl Reservation<'_> {
    /// The charge to pass to [`BufferLimit::leave`] for this record.
    pub(super) fn charge(&self) -> u32 {
        self.charge
    }

    /// Keeps the room until [`BufferLimit::leave`] is called: the record is enqueued.
    pub(super) fn keep(self) {
        self.permit.forget();
    }
}

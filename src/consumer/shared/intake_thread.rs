//! The thread that takes records from the client, and the means to wake it.
//!
//! Parking and unparking instead of a condition variable: a wake that comes before the wait is kept
//! by the thread's token, so that none is lost, and waking takes no lock.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::Thread;
use std::time::Duration;

/// The intake thread. Unset until it has started.
#[derive(Default)]
pub(crate) struct IntakeThread {
    /// The thread, once it runs.
    thread: OnceLock<Thread>,
    /// Whether it waits for room. Saves the wake of every settled record while it does not.
    waits: AtomicBool,
}

impl IntakeThread {
    /// Registers the current thread as the intake thread.
    pub(crate) fn register(&self) {
        // Called once per run, by the poll thread itself.
        let _ = self.thread.set(std::thread::current());
    }

    /// Blocks the intake thread until it is woken, or for `at_most`.
    pub(crate) fn wait_for_room(&self, at_most: Duration) {
        self.waits.store(true, Relaxed);
        std::thread::park_timeout(at_most);
        self.waits.store(false, Relaxed);
    }

    /// Whether the intake thread waits for room.
    pub(crate) fn waits(&self) -> bool {
        self.waits.load(Relaxed)
    }

    /// Wakes the intake thread. Callable from any thread.
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

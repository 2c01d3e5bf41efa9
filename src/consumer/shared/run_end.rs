//! The deadlines of a stop: for the drain, for the last commit, and for leaving the group.
//!
//! The whole stop takes no longer than `drain_timeout`, so that a supervisor's grace period can be
//! planned. Part of that time is reserved for the commit: without it, handlers that use all of the
//! time would have worked in vain.
//!
//! With `t` for the drain timeout: handlers have until `t - min(t / 5, 5 s)`. The whole stop has `w
//! = max(t, 3 s)`. The commit has until `w - min(w / 10, 2.5 s)`, and leaving the group the rest.
//! So 25 s are divided into 20 s for handlers, 2.5 s for the commit and 2.5 s for leaving; a
//! timeout of zero leaves 2.7 s for the commit and 0.3 s for leaving.

use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The longest reserve for the last commit and for leaving the group.
const RESERVE_MAX: Duration = Duration::from_secs(5);
/// The reserve as a share of the time, for short times.
const RESERVE_SHARE: u32 = 5;
/// The least time for the commit and for leaving, even if the drain has none.
const WHOLE_MIN: Duration = Duration::from_secs(3);

/// Whether a run is ending, and since when.
pub(crate) struct RunEnd {
    drain_timeout: Duration,
    /// When the end began: set once, so that a second reason to end does not extend the time.
    begun_at: OnceLock<Instant>,
    /// Cancelled with the beginning, for tasks that wait for it.
    has_begun: CancellationToken,
}

/// The deadlines of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// Running handlers.
    pub(crate) handlers: Instant,
    /// The last commit.
    pub(crate) commit: Instant,
    /// The whole stop. The client is abandoned at this time.
    pub(crate) whole: Instant,
}

impl RunEnd {
    /// The run has not begun to end.
    pub(crate) fn new(drain_timeout: Duration) -> Self {
        Self {
            drain_timeout,
            begun_at: OnceLock::new(),
            has_begun: CancellationToken::new(),
        }
    }

    /// Ends the run. The first call sets the deadlines; later calls return the same.
    pub(crate) fn begin(&self) -> Deadlines {
        let begun_at = *self.begun_at.get_or_init(Instant::now);
        self.has_begun.cancel();
        deadlines(begun_at, self.drain_timeout)
    }

    /// Whether the run is ending.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun.is_cancelled()
    }

    /// Waits until the run is ending. Cancel-safe.
    pub(crate) async fn begun(&self) {
        self.has_begun.cancelled().await;
    }
}

/// The time left until `deadline`; zero after it.
pub(crate) fn left_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// The deadlines of a stop that began at `begun_at`: see the module's description.
fn deadlines(begun_at: Instant, drain_timeout: Duration) -> Deadlines {
    let reserve = (drain_timeout / RESERVE_SHARE).min(RESERVE_MAX);
    let whole = begun_at + drain_timeout.max(WHOLE_MIN);
    let to_leave = (whole - begun_at) / RESERVE_SHARE / 2;
    Deadlines {
        handlers: begun_at + (drain_timeout - reserve),
        commit: whole - to_leave.min(RESERVE_MAX / 2),
        whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(drain_timeout: Duration) -> [u128; 3] {
        let begun = Instant::now();
        let Deadlines {
            handlers,
            commit,
            whole,
        } = deadlines(begun, drain_timeout);
        assert!(handlers <= commit && commit < whole);
        [handlers, commit, whole].map(|deadline| (deadline - begun).as_millis())
    }

    #[test]
    fn drain_commit_and_leave_fit_into_the_drain_timeout() {
        let seconds = |seconds| check(Duration::from_secs(seconds));
        assert_eq!(seconds(25), [20_000, 22_500, 25_000]);
        assert_eq!(seconds(60), [55_000, 57_500, 60_000]);
        assert_eq!(seconds(5), [4_000, 4_500, 5_000]);
    }

    #[test]
    fn a_short_drain_leaves_time_to_commit() {
        assert_eq!(check(Duration::ZERO), [0, 2_700, 3_000]);
        assert_eq!(check(Duration::from_secs(1)), [800, 2_700, 3_000]);
    }

    #[test]
    fn the_first_to_end_a_run_sets_its_deadlines() {
        let ending = RunEnd::new(Duration::from_secs(25));
        assert!(!ending.has_begun());
        let first = ending.begin();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(ending.begin(), first);
        assert!(ending.has_begun());
    }
}

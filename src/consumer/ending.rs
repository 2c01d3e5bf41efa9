//! The end of a run, and how long its parts may take: one deadline for the drain, the last commit and leaving the group.
//!
//! Knows no client. The whole end takes no longer than `drain_timeout`, so that a supervisor's grace period can be planned by it. A part
//! of that time is kept for the commit: handlers that use up all of it would have worked in vain.

use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What is kept of the time for the last commit and for leaving the group, at most.
const RESERVE_MAX: Duration = Duration::from_secs(5);
/// The share of the time that is kept for that where it is short.
const RESERVE_SHARE: u32 = 5;
/// What commit and leave may take where the drain has no time at all.
const WHOLE_MIN: Duration = Duration::from_secs(3);

/// Whether, and since when, a run ends.
pub(crate) struct Ending {
    drain_timeout: Duration,
    begun_at: OnceLock<Instant>,
    has_begun: CancellationToken,
}

/// Until when the parts of an end may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// Handlers that run.
    pub(crate) handlers: Instant,
    /// The last commit.
    pub(crate) commit: Instant,
    /// Everything: the client is given up then.
    pub(crate) whole: Instant,
}

impl Ending {
    pub(crate) fn new(drain_timeout: Duration) -> Self {
        Self {
            drain_timeout,
            begun_at: OnceLock::new(),
            has_begun: CancellationToken::new(),
        }
    }

    /// The run ends from now on, if it does not yet.
    pub(crate) fn begin(&self) -> Deadlines {
        let begun_at = *self.begun_at.get_or_init(Instant::now);
        self.has_begun.cancel();
        deadlines(begun_at, self.drain_timeout)
    }

    /// Whether the run ends.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun.is_cancelled()
    }

    /// Waits until the run ends.
    pub(crate) async fn begun(&self) {
        self.has_begun.cancelled().await;
    }
}

/// What is left until `deadline`.
pub(crate) fn left_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

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
        let ending = Ending::new(Duration::from_secs(25));
        assert!(!ending.has_begun());
        let first = ending.begin();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(ending.begin(), first);
        assert!(ending.has_begun());
    }
}

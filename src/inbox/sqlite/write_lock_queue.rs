//! Decides whose turn it is to write, within this process and towards other processes.
//!
//! Owns the queue of this process's writers. Knows no SQLite: the only trace of other processes is
//! the short rest it takes.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

/// A gap of this length between two turns gave other processes a chance.
const GAP: Duration = Duration::from_millis(1);
/// How long a process may write without a gap.
const RUN_MAX: Duration = Duration::from_millis(100);
/// The rest after that: longer than the pause between two tries of another process, so that one of
/// them succeeds.
const REST: Duration = Duration::from_millis(4);

/// The queue of a process's writers, first come first served.
///
/// SQLite has no queue between processes: a process with many waiting writers would take the lock
/// again microseconds after it released it, and another process would starve. Therefore a process
/// that wrote for [`RUN_MAX`] without a gap rests for [`REST`], which costs a saturated process 4 %
/// of its throughput and an idle one nothing.
#[derive(Clone, Default)]
pub(super) struct WriteLockQueue {
    run: Arc<Mutex<Burst>>,
}

/// A run of turns without a gap: the time for which other processes had no chance.
#[derive(Default)]
struct Burst {
    /// The start of this process's present run without a gap, and the end of its last turn.
    since: Option<(Instant, Instant)>,
}

/// A turn; it ends when it is dropped.
pub(super) struct WriteTurn {
    /// Held until the turn ends, so the next one waits.
    run: OwnedMutexGuard<Burst>,
    /// When the present run of turns began, or this turn after a gap.
    started: Instant,
}

impl WriteLockQueue {
    /// Waits for the turn. Fair: turns are given in the order of the calls. Cancel-safe: a dropped
    /// future leaves the queue, and the next waiter moves up.
    pub(super) async fn next(&self) -> WriteTurn {
        let mut run = self.run.clone().lock_owned().await;
        let started = Instant::now();
        let started = match run.since {
            Some((began, ended)) if started - ended < GAP && started - began > RUN_MAX => {
                run.since = None;
                tokio::time::sleep(REST).await;
                Instant::now()
            }
            Some((began, ended)) if started - ended < GAP => began,
            _ => started,
        };
        WriteTurn { run, started }
    }
}

impl Drop for WriteTurn {
    fn drop(&mut self) {
        self.run.since = Some((self.started, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::{GAP, REST, RUN_MAX, WriteLockQueue};
    use std::time::Duration;
    use tokio::time::{Instant, advance};

    /// Measures the wait for the next turn while no turn is held, then holds that turn for `held`.
    async fn turn(turns: &WriteLockQueue, held: Duration) -> Duration {
        let asked = Instant::now();
        let turn = turns.next().await;
        let waited = asked.elapsed();
        advance(held).await;
        drop(turn);
        waited
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_writes_continuously_rests_after_each_run() {
        let turns = WriteLockQueue::default();
        let most_of_a_run = RUN_MAX * 2 / 3;
        for _ in 0..3 {
            assert_eq!(turn(&turns, most_of_a_run).await, Duration::ZERO);
            assert_eq!(turn(&turns, most_of_a_run).await, Duration::ZERO);
            assert!(turn(&turns, Duration::ZERO).await >= REST);
            advance(GAP).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_is_rest_enough() {
        let turns = WriteLockQueue::default();
        for _ in 0..3 {
            assert_eq!(turn(&turns, RUN_MAX * 2).await, Duration::ZERO);
            advance(GAP).await;
        }
    }
}

//! Whose turn it is to write, within this process and towards others.
//!
//! Owns the queue of this process's writers. Knows no SQLite: that several processes share a file shows only in the short
//! rest it takes.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

/// A gap this long between two turns let other processes try.
const GAP: Duration = Duration::from_millis(1);
/// How long a process may write without a gap.
const RUN_MAX: Duration = Duration::from_millis(100);
/// The rest after that: longer than the pause between two tries of another process, so that one of them hits it.
const REST: Duration = Duration::from_millis(4);

/// The queue of a process's writers, first come first served.
///
/// SQLite has no queue between processes: one with many writers waiting would take the lock again microseconds after
/// letting it go, and another would starve. So a process that wrote for [`RUN_MAX`] without a gap rests for [`REST`], which
/// costs a saturated one 4 % of its throughput and an idle one nothing.
#[derive(Clone, Default)]
pub(super) struct Turns {
    run: Arc<Mutex<Run>>,
}

#[derive(Default)]
struct Run {
    /// When this process began to write without a gap, and when its last turn ended.
    since: Option<(Instant, Instant)>,
}

/// A turn; ends when it is dropped.
pub(super) struct Turn {
    run: OwnedMutexGuard<Run>,
    started: Instant,
}

impl Turns {
    /// Waits for the turn.
    pub(super) async fn next(&self) -> Turn {
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
        Turn { run, started }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.run.since = Some((self.started, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::{GAP, REST, RUN_MAX, Turns};
    use std::time::Duration;
    use tokio::time::{Instant, advance};

    /// How long the next turn is waited for when none is held, and then holds it for `held`.
    async fn turn(turns: &Turns, held: Duration) -> Duration {
        let asked = Instant::now();
        let turn = turns.next().await;
        let waited = asked.elapsed();
        advance(held).await;
        drop(turn);
        waited
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_writes_without_a_gap_rests_after_each_run() {
        let turns = Turns::default();
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
        let turns = Turns::default();
        for _ in 0..3 {
            assert_eq!(turn(&turns, RUN_MAX * 2).await, Duration::ZERO);
            advance(GAP).await;
        }
    }
}

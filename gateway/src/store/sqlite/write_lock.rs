//! Leaves SQLite's write lock to others from time to time.
//!
//! Owns when this process's writer rests. SQLite has no queue for its lock, and its last owner gets
//! it again within microseconds. The relay, which deletes published rows, and other processes try
//! every 2 ms: without a rest a busy writer would starve them, and the outbox would only grow.

use std::time::Duration;
use tokio::time::Instant;

/// A gap of this length between two transactions gave others a chance.
const GAP: Duration = Duration::from_millis(1);

/// How long the writer may write without a gap.
const RUN_MAX: Duration = Duration::from_millis(100);

/// The rest after that: longer than the pause between two tries of another writer.
pub(super) const REST: Duration = Duration::from_millis(4);

/// A run of transactions without a gap: its beginning, and the end of its last transaction.
#[derive(Debug, Default)]
pub(super) struct WriteRun {
    since: Option<(Instant, Instant)>,
}

impl WriteRun {
    /// Whether the writer must rest for [`REST`] before its next transaction, which begins a new
    /// run then.
    pub(super) fn must_rest(&mut self, now: Instant) -> bool {
        let is_long = self.since.is_some_and(|(began, ended)| {
            now.duration_since(ended) < GAP && now.duration_since(began) > RUN_MAX
        });
        if is_long {
            self.since = None;
        }
        is_long
    }

    /// Records a transaction.
    pub(super) fn wrote(&mut self, began: Instant, ended: Instant) {
        let began = match self.since {
            Some((run, last)) if began.duration_since(last) < GAP => run,
            _ => began,
        };
        self.since = Some((began, ended));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes transactions of `each_ms` with pauses between them; returns the rests.
    fn rests(each_ms: u64, pause_us: u64, transactions: usize) -> usize {
        let (mut run, mut now) = (WriteRun::default(), Instant::now());
        let mut rests = 0;
        for _ in 0..transactions {
            if run.must_rest(now) {
                rests += 1;
                now += REST;
            }
            let began = now;
            now += Duration::from_millis(each_ms);
            run.wrote(began, now);
            now += Duration::from_micros(pause_us);
        }
        rests
    }

    #[test]
    fn only_a_writer_without_gaps_rests() {
        for (each_ms, pause_us, transactions, expected) in [
            (10, 0, 100, 9),
            (10, 1_000, 100, 0),
            (200, 0, 4, 3),
            (200, 1_000, 4, 0),
        ] {
            assert_eq!(
                rests(each_ms, pause_us, transactions),
                expected,
                "{each_ms} {pause_us}"
            );
        }
    }
}

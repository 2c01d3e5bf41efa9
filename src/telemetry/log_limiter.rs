//! Limits the rate of a log line, however often its cause occurs.
//!
//! For lines whose cause may occur with every record. The next line tells how many were suppressed,
//! so that a reader sees the rate.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The time of the last line of one kind, and the number of suppressed ones since.
#[derive(Default)]
pub(crate) struct LogLimiter(Mutex<Last>);

#[derive(Default)]
struct Last {
    at: Option<Instant>,
    unsaid: u64,
}

impl LogLimiter {
    /// Whether a line is due, as there was none for this long. If so, returns the number of
    /// suppressed ones.
    pub(crate) fn due(&self, every: Duration) -> Option<u64> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.at.is_some_and(|at| at.elapsed() < every) {
            last.unsaid += 1;
            return None;
        }
        last.at = Some(Instant::now());
        Some(std::mem::take(&mut last.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_repeated_line_counts_the_suppressed_ones() {
        let (line, every) = (LogLimiter::default(), Duration::from_secs(30));
        assert_eq!(line.due(every), Some(0));
        assert_eq!(line.due(every), None);
        assert_eq!(line.due(every), None);
        tokio::time::advance(every).await;
        assert_eq!(line.due(every), Some(2));
        assert_eq!(line.due(every), None);
    }
}

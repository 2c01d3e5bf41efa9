//! A log line that comes at most so often, however often its cause does.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// When there was a line of one kind, and what had none since.
#[derive(Default)]
pub(crate) struct Line(Mutex<Last>);

#[derive(Default)]
struct Last {
    at: Option<Instant>,
    unsaid: u64,
}

impl Line {
    /// Whether it is time for a line, as there was none for so long; and then how many causes had none.
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
    async fn a_line_comes_again_after_a_while_and_says_what_had_none() {
        let (line, every) = (Line::default(), Duration::from_secs(30));
        assert_eq!(line.due(every), Some(0));
        assert_eq!(line.due(every), None);
        assert_eq!(line.due(every), None);
        tokio::time::advance(every).await;
        assert_eq!(line.due(every), Some(2));
        assert_eq!(line.due(every), None);
    }
}

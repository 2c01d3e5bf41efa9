//! The clock that decides when parked records are due in this process.
//!
//! Times in the log are wall-clock times, because other members read them. If the wall clock is set
//! back by a day, a parked record must not wait a day longer. So a time is translated when it is
//! read, and then compared with a clock that never goes back.
//!
//! # Example
//!
//! An entry is due at 12:10, and is read at 12:00 when the steady clock shows 11:58: it is due at
//! 12:08 of the steady clock, ten minutes from now. If the wall clock is then set back to 11:00,
//! nothing changes.

use crate::recovery::parked::{RetryState, RetryTopicEntry};
use jiff::Timestamp;
use std::sync::OnceLock;
use std::time::Instant;

/// Milliseconds of the wall clock.
pub(crate) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Milliseconds of a clock that never goes back or jumps. It starts at the wall clock's time, so
/// that both agree until the wall clock is set.
pub(crate) fn steady_ms() -> i64 {
    static BEGAN: OnceLock<(Instant, i64)> = OnceLock::new();
    let (began, began_ms) = BEGAN.get_or_init(|| (Instant::now(), now_ms()));
    let passed = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
    began_ms.saturating_add(passed)
}

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Milliseconds of the wall clock.
    pub(crate) wall_ms: i64,
    pub(crate) steady_ms: i64,
}

impl Now {
    /// Reads both clocks. Entries that are read together use one reading, so that their order
    /// stays.
    pub(crate) fn read() -> Self {
        Self {
            wall_ms: now_ms(),
            steady_ms: steady_ms(),
        }
    }

    /// Translates the due time of an entry from the wall clock to the steady clock.
    ///
    /// A due time that lies in the past stays in the past; one of 0 means at once on both clocks.
    /// An entry without a due time is unchanged.
    pub(crate) fn translated(self, entry: RetryTopicEntry) -> RetryTopicEntry {
        let translated = |wait: RetryState| match wait.not_before_ms {
            0 => wait,
            due_ms => RetryState {
                not_before_ms: due_ms
                    .saturating_sub(self.wall_ms)
                    .saturating_add(self.steady_ms)
                    .max(0),
                ..wait
            },
        };
        match entry {
            RetryTopicEntry::Parked {
                source_offset,
                wait,
                is_replay,
            } => RetryTopicEntry::Parked {
                source_offset,
                wait: translated(wait),
                is_replay,
            },
            RetryTopicEntry::Failed { retry_offset, wait } => RetryTopicEntry::Failed {
                retry_offset,
                wait: translated(wait),
            },
            RetryTopicEntry::Held { .. } | RetryTopicEntry::Unknown | RetryTopicEntry::Foreign => {
                entry
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 60 * 60 * 1000;

    fn due_ms(entry: RetryTopicEntry) -> i64 {
        match entry {
            RetryTopicEntry::Parked { wait, .. } | RetryTopicEntry::Failed { wait, .. } => {
                wait.not_before_ms
            }
            _ => panic!("{entry:?}"),
        }
    }

    fn failed(not_before_ms: i64) -> RetryTopicEntry {
        let wait = RetryState {
            not_before_ms,
            ..RetryState::default()
        };
        RetryTopicEntry::Failed {
            retry_offset: 0,
            wait,
        }
    }

    #[test]
    fn a_wait_keeps_its_length_under_wall_clock_changes() {
        for wall_ms in [10 * DAY_MS, 9 * DAY_MS, 11 * DAY_MS] {
            let now = Now {
                wall_ms,
                steady_ms: 10 * DAY_MS,
            };
            let entry = now.translated(failed(wall_ms + 700));
            assert_eq!(due_ms(entry), 10 * DAY_MS + 700);
        }
    }

    #[test]
    fn a_time_in_the_past_is_due_at_once() {
        let now = Now {
            wall_ms: DAY_MS,
            steady_ms: 9 * DAY_MS,
        };
        assert_eq!(due_ms(now.translated(failed(0))), 0);
        assert_eq!(due_ms(now.translated(failed(1))), 8 * DAY_MS + 1);
        assert_eq!(due_ms(now.translated(failed(i64::MAX))), i64::MAX);
    }

    #[test]
    fn the_steady_clock_never_goes_back() {
        let before = steady_ms();
        assert!(before <= steady_ms());
        assert!((now_ms() - before).abs() < DAY_MS);
    }
}

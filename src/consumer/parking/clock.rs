//! The clock by which parked records are due in this process.
//!
//! What stands on the log is in wall clock time, because other members read it. A wall clock may be set back by a day, and what
//! waits must not wait for a day more: so a time is translated when it is read, and compared with a clock that only goes on.

use super::write::now_ms;
use crate::recovery::parked::{Entry, Wait};
use std::sync::OnceLock;
use std::time::Instant;

/// Milliseconds that began as the wall clock's and never go back or jump.
pub(crate) fn steady_ms() -> i64 {
    static BEGAN: OnceLock<(Instant, i64)> = OnceLock::new();
    let (began, began_ms) = BEGAN.get_or_init(|| (Instant::now(), now_ms()));
    let passed = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
    began_ms.saturating_add(passed)
}

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) wall_ms: i64,
    pub(super) steady_ms: i64,
}

impl Now {
    pub(super) fn read() -> Self {
        Self {
            wall_ms: now_ms(),
            steady_ms: steady_ms(),
        }
    }

    /// An entry of the log with its time as the steady clock will show it.
    pub(super) fn translated(self, entry: Entry) -> Entry {
        let translated = |wait: Wait| match wait.not_before_ms {
            0 => wait,
            due_ms => Wait {
                not_before_ms: due_ms
                    .saturating_sub(self.wall_ms)
                    .saturating_add(self.steady_ms)
                    .max(0),
                ..wait
            },
        };
        match entry {
            Entry::Parked {
                origin,
                wait,
                is_replay,
            } => Entry::Parked {
                origin,
                wait: translated(wait),
                is_replay,
            },
            Entry::Failed { of, wait } => Entry::Failed {
                of,
                wait: translated(wait),
            },
            Entry::Held { .. } | Entry::Unknown | Entry::Foreign => entry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 60 * 60 * 1000;

    fn due_ms(entry: Entry) -> i64 {
        match entry {
            Entry::Parked { wait, .. } | Entry::Failed { wait, .. } => wait.not_before_ms,
            _ => panic!("{entry:?}"),
        }
    }

    fn failed(not_before_ms: i64) -> Entry {
        let wait = Wait {
            not_before_ms,
            ..Wait::default()
        };
        Entry::Failed { of: 0, wait }
    }

    #[test]
    fn a_wait_is_as_long_as_it_was_whatever_the_wall_clock_was_set_to() {
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
    fn what_need_not_wait_does_not() {
        let now = Now {
            wall_ms: DAY_MS,
            steady_ms: 9 * DAY_MS,
        };
        assert_eq!(due_ms(now.translated(failed(0))), 0);
        assert_eq!(due_ms(now.translated(failed(1))), 8 * DAY_MS + 1);
        assert_eq!(due_ms(now.translated(failed(i64::MAX))), i64::MAX);
    }

    #[test]
    fn the_steady_clock_goes_on() {
        let before = steady_ms();
        assert!(before <= steady_ms());
        assert!((now_ms() - before).abs() < DAY_MS);
    }
}

//! The flood guard: stops a member that gives up most of what it is given, before its topic has been emptied into the
//! dead-letter topic. Pure: the clock comes in as an argument.
//!
//! Owns the decision whether one more dead letter may be written. Knows no record, no task and no client: who asks waits when
//! the answer is no. A single bad record is a dead letter's business; a hundred in a row are a bad release, of this service
//! or of one before it, and mending them by replay costs more than waiting does.

use super::Window;
use std::fmt;
use std::time::Duration;

/// When a member stops writing dead letters.
///
/// Counted are records that were handled, duplicates among them, and records that are given up. Records of types that no handler
/// asks for say nothing and count for nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FloodGuardPolicy {
    /// The time over which the share is taken.
    pub window: Duration,
    /// Records in it from which on the share says something.
    pub records_min: u64,
    /// The share of them, 0 to 1, above which no dead letter is written any more; 1 or more never stops.
    pub share_max: f64,
    /// Dead letters in a row, without a handled record between them, after which none is written any more; 0 is read as 1.
    pub run_max: u64,
}

impl FloodGuardPolicy {
    /// Never stops.
    pub const OFF: Self = Self {
        window: Duration::from_secs(60),
        records_min: u64::MAX,
        share_max: 1.0,
        run_max: u64::MAX,
    };
}

/// A hundred dead letters in a row, or more than half of at least a hundred records in a minute.
impl Default for FloodGuardPolicy {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(60),
            records_min: 100,
            share_max: 0.5,
            run_max: 100,
        }
    }
}

/// What makes a flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    /// So many records in a row were given up.
    Run { dead: u64 },
    /// So many of those of the window were given up.
    Share { dead: u64, of: u64 },
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run { dead } => write!(f, "{dead} records in a row were dead-lettered"),
            Self::Share { dead, of } => {
                write!(f, "{dead} of the last {of} records were dead-lettered")
            }
        }
    }
}

/// Watches what a member gives up.
#[derive(Debug)]
pub(crate) struct FloodGuard {
    policy: FloodGuardPolicy,
    dead: Window,
    handled: Window,
    /// Dead letters since the last handled record.
    run: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Watching,
    /// No dead letter is written until somebody says so.
    Stopped(Flood),
    /// Somebody said so: all are written until the flood is over.
    Released,
}

impl FloodGuard {
    pub(crate) fn new(policy: FloodGuardPolicy) -> Self {
        Self {
            policy,
            dead: Window::new(policy.window),
            handled: Window::new(policy.window),
            run: 0,
            state: State::Watching,
        }
    }

    /// So many records were handled.
    pub(crate) fn handled(&mut self, records: u64, now: Duration) {
        if records == 0 {
            return;
        }
        self.handled.add(records, now);
        self.run = 0;
        if self.state == State::Released && self.flood(now).is_none() {
            self.state = State::Watching;
        }
    }

    /// Whether one more dead letter may be written, which is then counted as written; the flood where it may not.
    pub(crate) fn admit(&mut self, now: Duration) -> Result<(), Flood> {
        if self.state == State::Watching
            && let Some(flood) = self.flood(now)
        {
            self.state = State::Stopped(flood);
        }
        if let State::Stopped(flood) = self.state {
            return Err(flood);
        }
        self.dead.add(1, now);
        self.run = self.run.saturating_add(1);
        Ok(())
    }

    /// Whether no dead letter may be written.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped(_))
    }

    /// Lets dead letters be written again, until the flood is over; then it is watched for the next. Says whether there was one.
    pub(crate) fn release(&mut self) -> bool {
        let stopped = self.is_stopped();
        if stopped {
            self.state = State::Released;
        }
        stopped
    }

    fn flood(&self, now: Duration) -> Option<Flood> {
        let policy = &self.policy;
        if self.run >= policy.run_max.max(1) {
            return Some(Flood::Run { dead: self.run });
        }
        let dead = self.dead.sum(now);
        let of = dead.saturating_add(self.handled.sum(now));
        let is_flood = of >= policy.records_min && dead as f64 > policy.share_max * of as f64;
        is_flood.then_some(Flood::Share { dead, of })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn guard(records_min: u64, share_max: f64, run_max: u64) -> FloodGuard {
        FloodGuard::new(FloodGuardPolicy {
            records_min,
            share_max,
            run_max,
            ..FloodGuardPolicy::default()
        })
    }

    /// How many letters it admits, at most `letters`.
    fn admitted(guard: &mut FloodGuard, letters: u64, now: Duration) -> u64 {
        (0..letters)
            .take_while(|_| guard.admit(now).is_ok())
            .count() as u64
    }

    #[test]
    fn a_run_is_stopped_at_its_length_and_a_handled_record_ends_it() {
        let mut guard = guard(u64::MAX, 1.0, 10);
        assert_eq!(admitted(&mut guard, 9, NOW), 9);
        guard.handled(1, NOW);
        assert_eq!(admitted(&mut guard, 100, NOW), 10);
        assert_eq!(guard.admit(NOW), Err(Flood::Run { dead: 10 }));
        guard.handled(1_000, NOW);
        assert_eq!(
            guard.admit(NOW),
            Err(Flood::Run { dead: 10 }),
            "it is not for the records to say that it is over"
        );
    }

    #[test]
    fn a_share_is_stopped_above_its_limit_and_not_before_there_are_enough_records() {
        let mut guard = guard(100, 0.5, u64::MAX);
        guard.handled(49, NOW);
        // At fifty of ninety-nine there are not enough, at fifty-one of a hundred it is more than half.
        assert_eq!(admitted(&mut guard, 1_000, NOW), 51);
        assert_eq!(guard.admit(NOW), Err(Flood::Share { dead: 51, of: 100 }));
    }

    #[test]
    fn exactly_the_share_is_no_flood() {
        let mut guard = guard(100, 0.5, u64::MAX);
        for _ in 0..10_000 {
            guard.handled(1, NOW);
            assert_eq!(guard.admit(NOW), Ok(()));
        }
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let mut guard = guard(100, 0.5, u64::MAX);
        guard.handled(1_000_000, NOW);
        let later = NOW + Duration::from_secs(120);
        assert_eq!(admitted(&mut guard, 1_000, later), 100);
        let mut guard = FloodGuard::new(FloodGuardPolicy {
            run_max: u64::MAX,
            ..FloodGuardPolicy::default()
        });
        assert_eq!(admitted(&mut guard, 99, NOW), 99);
        assert_eq!(admitted(&mut guard, 99, later), 99);
    }

    #[test]
    fn a_released_guard_lets_the_flood_pass_and_then_watches_for_the_next() {
        let mut guard = guard(u64::MAX, 1.0, 10);
        assert!(!guard.release(), "there is none");
        assert_eq!(admitted(&mut guard, 100, NOW), 10);
        assert!(guard.release());
        assert_eq!(admitted(&mut guard, 100, NOW), 100);
        guard.handled(1, NOW);
        assert_eq!(admitted(&mut guard, 100, NOW), 10);
    }

    #[test]
    fn one_that_is_off_stops_nothing() {
        let mut guard = FloodGuard::new(FloodGuardPolicy::OFF);
        assert_eq!(admitted(&mut guard, 100_000, NOW), 100_000);
    }

    #[test]
    fn a_policy_of_zeros_stops_at_the_second_letter() {
        let mut guard = FloodGuard::new(FloodGuardPolicy {
            window: Duration::ZERO,
            records_min: 0,
            share_max: 0.0,
            run_max: 0,
        });
        assert_eq!(admitted(&mut guard, 100, NOW), 1);
    }
}

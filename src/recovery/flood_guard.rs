//! The flood guard stops a member that dead-letters most of its records, before its topic is
//! emptied into the dead-letter topic. Pure: the clock is an argument.
//!
//! Decides whether one more dead letter may be written. Knows no record, no task and no client: the
//! caller waits after a refusal. A single bad record is a case for a dead letter. A hundred in a
//! row are a bad release, of this service or of a producer, and their replay would cost more than
//! waiting.
//!
//! ```text
//! watching --flood--> stopped --operator--> released --flood is over--> watching
//! ```
//!
//! A stopped guard does not start again by itself: handled records do not prove that the failing
//! ones are repaired. After a release it admits everything until the flood is over, because the
//! operator has decided about these records.

use super::SlidingCount;
use std::fmt;
use std::time::Duration;

/// When a member stops writing dead letters.
///
/// Counted are handled records, including duplicates, and dead-lettered ones. Records of types
/// without a handler, and records that an operator skips, do not count. Each member counts its own.
///
/// At either limit the member writes no further dead letter. The records that failed wait,
/// unsettled, in memory; their keys wait with them, and other keys continue while the in-flight
/// limits have room. The member reports it in its health, in the metric
/// `evenkeel_dead_letter_flood` and in the log. It continues when an operator gives `evenkeel
/// groups retry-now` for the whole group, or after a restart.
///
/// ```
/// use evenkeel::recovery::FloodGuardPolicy;
///
/// let policy = FloodGuardPolicy::default().with_run_max(500).with_share_max(0.8);
/// assert_eq!(policy.records_min, 100);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct FloodGuardPolicy {
    /// The time over which the share is calculated. Default 1 minute. It moves in ten steps, and is
    /// at least 10 ms.
    pub window: Duration,
    /// The fewest records in [`window`](Self::window) for which the share counts. Default 100. With
    /// fewer, only [`run_max`](Self::run_max) limits the dead letters.
    pub records_min: u64,
    /// Bounds the share of dead letters among the records in [`window`](Self::window), 0 to 1.
    /// Default 0.5. Above the bound no further dead letter is written. 1 or more disables this
    /// limit.
    pub share_max: f64,
    /// Bounds the consecutive dead letters, without a handled record between them. Default 100. 0
    /// counts as 1. At the bound no further dead letter is written. [`u64::MAX`] disables this
    /// limit.
    pub run_max: u64,
}

impl FloodGuardPolicy {
    /// Sets [`window`](Self::window).
    #[must_use]
    pub fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets [`records_min`](Self::records_min).
    #[must_use]
    pub fn with_records_min(mut self, records_min: u64) -> Self {
        self.records_min = records_min;
        self
    }

    /// Sets [`share_max`](Self::share_max).
    #[must_use]
    pub fn with_share_max(mut self, share_max: f64) -> Self {
        self.share_max = share_max;
        self
    }

    /// Sets [`run_max`](Self::run_max).
    #[must_use]
    pub fn with_run_max(mut self, run_max: u64) -> Self {
        self.run_max = run_max;
        self
    }

    /// Never stops a member: for a service whose dead letters are expected, or while known bad
    /// records are dead-lettered on purpose.
    ///
    /// ```
    /// use evenkeel::recovery::FloodGuardPolicy;
    ///
    /// // Only a share above 90 % stops the member, however long the run.
    /// let policy = FloodGuardPolicy::OFF.with_records_min(1_000).with_share_max(0.9);
    /// assert_eq!(policy.run_max, u64::MAX);
    /// ```
    pub const OFF: Self = Self {
        window: Duration::from_secs(60),
        records_min: u64::MAX,
        share_max: 1.0,
        run_max: u64::MAX,
    };
}

/// A hundred consecutive dead letters, or more than half of at least a hundred records in a minute.
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

/// The kind of a flood. Its text is part of the alarm that operators see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    /// This many consecutive records were dead-lettered.
    Run { dead: u64 },
    /// This many of the records in the window were dead-lettered.
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

/// Counts the dead letters of a member. `now` is the time since any fixed instant, and never
/// decreases.
#[derive(Debug)]
pub(crate) struct FloodGuard {
    policy: FloodGuardPolicy,
    dead: SlidingCount,
    handled: SlidingCount,
    /// Dead letters since the last handled record.
    run: u64,
    state: State,
}

/// Whether dead letters are admitted. See the head of this file for the transitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Admitted until a limit is reached.
    Watching,
    /// No dead letter is written until an operator releases them.
    Stopped(Flood),
    /// An operator released them: all are written until the flood is over.
    Released,
}

impl FloodGuard {
    pub(crate) fn new(policy: FloodGuardPolicy) -> Self {
        Self {
            policy,
            dead: SlidingCount::new(policy.window),
            handled: SlidingCount::new(policy.window),
            run: 0,
            state: State::Watching,
        }
    }

    /// Notes that this many records were handled. Ends a run, and a release whose flood is over. It
    /// never ends a stop.
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

    /// Admits one more dead letter, which then counts as written, or returns the flood that
    /// prevents it. A dead letter that is admitted and not written counts nevertheless: the caller
    /// retries the write until it succeeds.
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

    /// Admits dead letters again until the flood is over, and then guards against the next. Returns
    /// whether there was a flood.
    pub(crate) fn release(&mut self) -> bool {
        let stopped = self.is_stopped();
        if stopped {
            self.state = State::Released;
        }
        stopped
    }

    /// The limit that is reached now: `run >= run_max`, or `dead / (dead + handled) > share_max` in
    /// the window with at least `records_min` records.
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

    /// How many dead letters it admits, at most `dead_letters`.
    fn admitted(guard: &mut FloodGuard, dead_letters: u64, now: Duration) -> u64 {
        (0..dead_letters)
            .take_while(|_| guard.admit(now).is_ok())
            .count() as u64
    }

    #[test]
    fn a_run_stops_at_its_limit_and_success_ends_it() {
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
    fn a_share_stops_above_its_limit_given_enough_records() {
        let mut guard = guard(100, 0.5, u64::MAX);
        guard.handled(49, NOW);
        // Fifty of ninety-nine are too few records; fifty-one of a hundred are more than half.
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
    fn outcomes_older_than_the_window_do_not_count() {
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
    fn a_released_guard_lets_the_flood_pass_and_watches_again() {
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
    fn a_policy_of_zeros_stops_at_the_second_dead_letter() {
        let mut guard = FloodGuard::new(FloodGuardPolicy {
            window: Duration::ZERO,
            records_min: 0,
            share_max: 0.0,
            run_max: 0,
        });
        assert_eq!(admitted(&mut guard, 100, NOW), 1);
    }
}

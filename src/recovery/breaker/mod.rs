//! The circuit breaker of one dependency. Pure: clock and randomness are arguments.
//!
//! Decides whether handlers may run while a dependency is down. Knows neither record nor handler
//! nor task. Each record counts once (its first failure), so that one record that is retried often
//! cannot open it.
//!
//! An opening has numbered probes. Reports of a probe of an earlier opening, or of one that is
//! overdue, are recognised by the number and ignored if they prove nothing any more. The states and
//! their transitions:
//!
//! ```text
//! closed --enough outages--> open --probe due--> probing --answered--> closed
//!                             ^                     |
//!                             +---outage, too late--+
//! ```

mod policy;

#[cfg(test)]
mod tests;

use super::sliding_count::SlidingCount;
use std::time::Duration;

pub use policy::BreakerPolicy;

/// The shortest time limit of a probe: a policy of zeros must not start probes without a pause.
const PROBE_MIN: Duration = Duration::from_millis(100);

/// `probes` counts the failed or overdue probes of this opening.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Closed,
    /// No record starts before `probe_at`, on the caller's clock.
    Open {
        probe_at: Duration,
        probes: u32,
    },
    /// A record is being tried. From `until` on the next one may start.
    Probing {
        probe: ProbeId,
        probes: u32,
        until: Duration,
    },
}

/// The number of a breaker's probe. Ascending over all openings, so that the number tells whether a
/// report belongs to the present opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProbeId(u64);

/// The change of a breaker after a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Opened,
    Closed,
}

/// The breaker of one dependency. `now` is the time since any fixed instant, and never decreases.
///
/// The caller knows the kinds of records (topic and event type). It reports a success only for a
/// kind that has failed here, because other kinds probably do not need the dependency.
#[derive(Debug)]
pub(crate) struct Breaker {
    policy: BreakerPolicy,
    state: State,
    failures: SlidingCount,
    /// Records that failed since the last successful attempt of their kind.
    failures_in_a_row: u32,
    /// Records beside the probes that were handled since the last failed one. None before the first
    /// failed probe.
    handled_beside_probes: Option<u32>,
    /// The number of the next probe. Numbers are never reused.
    next_probe: u64,
    /// The first probe of this opening.
    first_probe: u64,
}

impl Breaker {
    /// Creates a closed breaker.
    pub(crate) fn new(policy: BreakerPolicy) -> Self {
        Self {
            policy,
            state: State::Closed,
            failures: SlidingCount::new(policy.window),
            failures_in_a_row: 0,
            handled_beside_probes: None,
            next_probe: 0,
            first_probe: 0,
        }
    }

    /// Whether no handler may start.
    pub(crate) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// Notes that a record failed for the first time by an outage of this dependency, while
    /// `others` attempts of its kind in the window did not. `random` is uniform in [0, 1). For a
    /// probe use [`Breaker::probe_failed`].
    pub(crate) fn failed(&mut self, others: u64, now: Duration, random: f64) -> Option<Change> {
        self.failures.add(1, now);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        if self.is_open() {
            // Handlers that ran when it opened end later. A record that was started beside the
            // probes met the same outage.
            self.handled_beside_probes = self.handled_beside_probes.map(|_| 0);
            return None;
        }
        if !self.is_outage(others, now) {
            return None;
        }
        self.open_now(now, random)
    }

    /// Notes that a record failed again. This is no new failure, but the last success may be long
    /// ago by now, and if every key waits behind a failed record, no other attempt is made.
    pub(crate) fn failed_again(
        &mut self,
        others: u64,
        now: Duration,
        random: f64,
    ) -> Option<Change> {
        (others == 0 && self.has_failed_in_a_row()).then(|| self.open_now(now, random))?
    }

    /// Opens the breaker after the failure of a single record, if no other record may run.
    pub(crate) fn open_now(&mut self, now: Duration, random: f64) -> Option<Change> {
        if self.is_open() {
            return None;
        }
        self.first_probe = self.next_probe;
        self.open(0, now, random);
        Some(Change::Opened)
    }

    /// How many failures count now.
    pub(crate) fn failures(&self, now: Duration) -> u64 {
        self.failures.sum(now)
    }

    /// Whether successful attempts of its kind must be reported to it. False for most breakers at
    /// most times, so that a success costs no lock.
    pub(crate) fn is_interested(&self, now: Duration) -> bool {
        self.is_open() || self.failures_in_a_row > 0 || self.failures(now) > 0
    }

    /// Notes the success of a record of a kind that has failed here, which has not failed here
    /// itself. Enough of them in a row close it, although its probes fail: the dependency refuses
    /// some records, and is not down.
    pub(crate) fn others_succeeded(&mut self) -> Option<Change> {
        self.failures_in_a_row = 0;
        let handled = self
            .handled_beside_probes
            .as_mut()
            .filter(|_| self.state != State::Closed)?;
        *handled = handled.saturating_add(1);
        if *handled < self.policy.failures_min.max(1) {
            return None;
        }
        // Whichever dependency is down, most records do not need it.
        self.close()
    }

    /// Whether records beside the probes may be tried, as a probe has failed.
    pub(crate) fn may_try_others(&self) -> bool {
        self.is_open() && self.handled_beside_probes.is_some()
    }

    /// Whether the caller may be the probe now. It must then call [`Breaker::probe_failed`],
    /// [`Breaker::probe_answered`] or [`Breaker::probe_abandoned`] with the returned number. If it
    /// calls none of them within [`Breaker::probe_within`], the probe is overdue and another record
    /// may probe.
    pub(crate) fn may_probe(&mut self, now: Duration) -> Option<ProbeId> {
        let probes = match self.state {
            State::Open { probe_at, probes } if now >= probe_at => probes,
            State::Probing { probes, until, .. } if now >= until => probes.saturating_add(1),
            State::Closed | State::Open { .. } | State::Probing { .. } => return None,
        };
        let probe = ProbeId(self.next_probe);
        self.next_probe += 1;
        self.state = State::Probing {
            probe,
            probes,
            until: now.saturating_add(self.probe_within()),
        };
        Some(probe)
    }

    /// How long a probe may take before the next one starts: the longest wait between probes, at
    /// least [`PROBE_MIN`].
    pub(crate) fn probe_within(&self) -> Duration {
        self.policy.probe.max.max(PROBE_MIN)
    }

    /// When the next probe may start. None while it is closed.
    pub(crate) fn probe_at(&self) -> Option<Duration> {
        match self.state {
            State::Closed => None,
            State::Open { probe_at, .. } => Some(probe_at),
            State::Probing { until, .. } => Some(until),
        }
    }

    /// Notes that the probe failed by an outage: the next one waits longer, and another record may
    /// be tried beside it. An overdue probe has no effect: the next one has begun already.
    pub(crate) fn probe_failed(&mut self, which: ProbeId, now: Duration, random: f64) {
        if let State::Probing { probe, probes, .. } = self.state
            && probe == which
        {
            self.handled_beside_probes = Some(0);
            self.open(probes.saturating_add(1), now, random);
        }
    }

    /// Notes that the probe was answered, however late: an overdue probe proves as much as one in
    /// time. A probe of an earlier opening has no effect.
    pub(crate) fn probe_answered(&mut self, which: ProbeId) -> Option<Change> {
        (which.0 >= self.first_probe).then(|| self.answered())?
    }

    /// Notes that a record which had failed here found the dependency available. Earlier failures
    /// are forgotten. One such answer closes it: a record that failed before proves more than
    /// others, which may not need the dependency.
    pub(crate) fn answered(&mut self) -> Option<Change> {
        self.failures_in_a_row = 0;
        self.is_open().then(|| self.close())?
    }

    /// Notes that the probe's record was dropped before the probe ended: the next one may start at
    /// once.
    pub(crate) fn probe_abandoned(&mut self, which: ProbeId, now: Duration) {
        if let State::Probing { probe, probes, .. } = self.state
            && probe == which
        {
            self.state = State::Open {
                probe_at: now,
                probes,
            };
        }
    }

    /// Closes a breaker whose probe is due and for which no record waits, as after a rebalance that
    /// revoked them all. New records test the dependency.
    pub(crate) fn close_for_want_of_probes(&mut self, now: Duration) -> Option<Change> {
        self.probe_at().filter(|at| now >= *at)?;
        self.close()
    }

    /// Opens it, or keeps it open after `probes` failed probes. The wait grows with their number.
    fn open(&mut self, probes: u32, now: Duration, random: f64) {
        let wait = self.policy.probe.delay(probes.saturating_add(1), random);
        self.state = State::Open {
            probe_at: now.saturating_add(wait),
            probes,
        };
    }

    /// Closes it and forgets all failures. Probe numbers continue, so that a late report of this
    /// opening is recognised.
    fn close(&mut self) -> Option<Change> {
        *self = Self {
            next_probe: self.next_probe,
            first_probe: self.next_probe,
            ..Self::new(self.policy)
        };
        Some(Change::Closed)
    }

    /// Whether the failures in the window are an outage: `failures >= failures_min` and `failures /
    /// (failures + others) >= failure_share_min`, or `failures_min` failures in a row while no
    /// other attempt of their kind ended.
    fn is_outage(&self, others: u64, now: Duration) -> bool {
        let failures_min = self.policy.failures_min.max(1);
        let failures = self.failures.sum(now);
        let share = failures as f64 / failures.saturating_add(others).max(1) as f64;
        let by_share = failures >= u64::from(failures_min) && share >= self.share_min();
        by_share || (others == 0 && self.has_failed_in_a_row())
    }

    /// Whether enough records failed without a success of their kind between them.
    fn has_failed_in_a_row(&self) -> bool {
        self.failures_in_a_row >= self.policy.failures_min.max(1)
    }

    /// The share in effect: a number from 0 to 1.
    fn share_min(&self) -> f64 {
        match self.policy.failure_share_min {
            share if share.is_nan() => 1.0,
            share => share.clamp(0.0, 1.0),
        }
    }
}

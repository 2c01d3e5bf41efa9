//! The circuit breaker of one dependency: pure; clock and randomness come in as arguments.
//!
//! Owns the decision whether handlers may run while something that they depend on is down. Knows no record, no handler and no
//! task.
//!
//! ```text
//! closed --enough outages--> open --probe due--> probing --answered--> closed
//!                             ^                     |
//!                             +-------outage--------+
//! ```

use super::Backoff;
use super::window::Window;
use std::time::Duration;

/// When an outage stops a consumer, and how it finds out that it is over.
///
/// While the breaker is open no handler starts and nothing more is read, so that an outage costs neither attempts nor memory
/// and no dead letters; the member stays in its group. One record at a time is tried until the dependency answers.
///
/// Both bounds must be reached, so that neither a single failure nor a dependency that refuses a few customers stops everybody
/// else: those records wait with their keys, and their further attempts do not count. Where few records come, a handful that
/// is refused can be most of them; so beside each probe that fails another record may start, and if that is handled the breaker
/// closes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerPolicy {
    /// Records within [`Self::window`] whose first attempt must have failed with
    /// [`Class::Outage`](crate::handler::Class::Outage); 0 is read as 1.
    pub failures_min: u32,
    /// Their share of all attempts in that time, 0 to 1; what is not a number is read as 1.
    pub failure_share_min: f64,
    /// How far back attempts count. It passes in ten steps.
    pub window: Duration,
    /// The waits between probes.
    pub probe: Backoff,
}

impl Default for BreakerPolicy {
    /// Half of the attempts in 10 s, at least 5; probes after a second at first, every 10 s at last.
    fn default() -> Self {
        Self {
            failures_min: 5,
            failure_share_min: 0.5,
            window: Duration::from_secs(10),
            probe: Backoff {
                initial: Duration::from_secs(1),
                max: Duration::from_secs(10),
                factor: 2.0,
                jitter: 0.2,
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Closed,
    /// Nothing starts before `probe_at`, on the clock of the caller.
    Open {
        probe_at: Duration,
        probes: u32,
    },
    /// One record is being tried.
    Probing {
        probes: u32,
    },
}

/// What became of a breaker by what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Opened,
    Closed,
}

/// One dependency's breaker. `now` is the time since any fixed moment, never less than before.
#[derive(Debug)]
pub(crate) struct Breaker {
    policy: BreakerPolicy,
    state: State,
    failures: Window,
}

impl Breaker {
    /// A closed one.
    pub(crate) fn new(policy: BreakerPolicy) -> Self {
        Self {
            policy,
            state: State::Closed,
            failures: Window::new(policy.window),
        }
    }

    /// Whether handlers must not start.
    pub(crate) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// An attempt failed by an outage of this dependency, beside `others` in the window that did not; `random` is uniform
    /// in [0, 1). A probe says so by [`Breaker::probe_failed`].
    pub(crate) fn failed(&mut self, others: u64, now: Duration, random: f64) -> Option<Change> {
        self.failures.add(1, now);
        if self.is_open() || !self.is_outage(others, now) {
            // Handlers that ran when it opened come in late, and change nothing.
            return None;
        }
        self.open(0, now, random);
        Some(Change::Opened)
    }

    /// How many failures count now.
    pub(crate) fn failures(&self, now: Duration) -> u64 {
        self.failures.sum(now)
    }

    /// Whether the caller may be the probe now. It then owes [`Breaker::probe_failed`], [`Breaker::probe_answered`] or
    /// [`Breaker::probe_abandoned`].
    pub(crate) fn may_probe(&mut self, now: Duration) -> bool {
        match self.state {
            State::Open { probe_at, probes } if now >= probe_at => {
                self.state = State::Probing { probes };
                true
            }
            State::Closed | State::Open { .. } | State::Probing { .. } => false,
        }
    }

    /// When the next probe is due; none unless open without one.
    pub(crate) fn probe_at(&self) -> Option<Duration> {
        match self.state {
            State::Open { probe_at, .. } => Some(probe_at),
            State::Closed | State::Probing { .. } => None,
        }
    }

    /// The probe failed by an outage of this dependency: the next one waits longer.
    pub(crate) fn probe_failed(&mut self, now: Duration, random: f64) {
        if let State::Probing { probes } = self.state {
            self.open(probes.saturating_add(1), now, random);
        }
    }

    /// Records that were let start beside the probes are handled: whatever is down, most do not need it.
    pub(crate) fn others_get_through(&mut self) -> Option<Change> {
        self.is_open().then(|| {
            self.close();
            Change::Closed
        })
    }

    /// The probe found the dependency answering. What came before is forgotten.
    pub(crate) fn probe_answered(&mut self) -> Option<Change> {
        if !matches!(self.state, State::Probing { .. }) {
            return None;
        }
        self.close();
        Some(Change::Closed)
    }

    /// The probe's record went to another member before it said anything: the next one may try at once.
    pub(crate) fn probe_abandoned(&mut self, now: Duration) {
        if let State::Probing { probes } = self.state {
            self.state = State::Open {
                probe_at: now,
                probes,
            };
        }
    }

    /// Closes a breaker whose probe is due and that no record waits for, as after a rebalance that took them all: new
    /// records find out.
    pub(crate) fn close_for_want_of_probes(&mut self, now: Duration) -> Option<Change> {
        self.probe_at().filter(|at| now >= *at)?;
        self.close();
        Some(Change::Closed)
    }

    fn open(&mut self, probes: u32, now: Duration, random: f64) {
        let wait = self.policy.probe.delay(probes.saturating_add(1), random);
        self.state = State::Open {
            probe_at: now.saturating_add(wait),
            probes,
        };
    }

    fn close(&mut self) {
        *self = Self::new(self.policy);
    }

    fn is_outage(&self, others: u64, now: Duration) -> bool {
        let failures = self.failures.sum(now);
        let share = failures as f64 / failures.saturating_add(others).max(1) as f64;
        failures >= u64::from(self.policy.failures_min.max(1)) && share >= self.share_min()
    }

    fn share_min(&self) -> f64 {
        match self.policy.failure_share_min {
            share if share.is_nan() => 1.0,
            share => share.clamp(0.0, 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> BreakerPolicy {
        BreakerPolicy {
            probe: Backoff {
                jitter: 0.0,
                ..BreakerPolicy::default().probe
            },
            ..BreakerPolicy::default()
        }
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A breaker that was opened at `now`.
    fn opened(now: Duration) -> Breaker {
        let mut breaker = Breaker::new(policy());
        for _ in 0..4 {
            assert_eq!(breaker.failed(0, now, 0.5), None);
        }
        assert_eq!(breaker.failed(0, now, 0.5), Some(Change::Opened));
        breaker
    }

    #[test]
    fn a_burst_of_outages_opens_it() {
        assert!(opened(s(100)).is_open());
    }

    #[test]
    fn the_share_of_failed_attempts_decides() {
        let check = |succeeded, failures, opens| {
            let mut breaker = Breaker::new(policy());
            let changes: Vec<_> = (0..failures)
                .filter_map(|_| breaker.failed(succeeded, s(101), 0.5))
                .collect();
            assert_eq!(changes.len(), opens, "{failures} beside {succeeded}");
        };
        check(95, 5, 0);
        check(10, 9, 0);
        check(10, 10, 1);
        check(0, 4, 0);
        check(1_000_000, 50_000, 0);
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let mut breaker = Breaker::new(policy());
        (0..4).for_each(|_| assert_eq!(breaker.failed(0, s(100), 0.5), None));
        (0..4).for_each(|_| assert_eq!(breaker.failed(0, s(110), 0.5), None));
        assert_eq!(breaker.failed(0, s(110), 0.5), Some(Change::Opened));
    }

    #[test]
    fn one_record_probes_and_later_each_time() {
        let mut breaker = opened(s(100));
        assert!(!breaker.may_probe(s(100)));
        assert!(breaker.may_probe(s(101)), "due after a second");
        assert!(!breaker.may_probe(s(200)), "one at a time");
        breaker.probe_failed(s(200), 0.5);
        assert_eq!(breaker.probe_at(), Some(s(202)));
        for tens in 1..=10 {
            let now = s(200 + 10 * tens);
            assert!(breaker.may_probe(now));
            breaker.probe_failed(now, 0.5);
        }
        assert_eq!(breaker.probe_at(), Some(s(310)), "every 10 s at last");
    }

    #[test]
    fn an_answer_closes_it_and_forgets() {
        let mut breaker = opened(s(100));
        assert!(breaker.may_probe(s(101)));
        assert_eq!(breaker.probe_answered(), Some(Change::Closed));
        assert!(!breaker.is_open());
        assert_eq!(
            breaker.failed(0, s(101), 0.5),
            None,
            "five are needed again"
        );
    }

    #[test]
    fn a_probe_that_went_is_followed_by_the_next_at_once() {
        let mut breaker = opened(s(100));
        assert!(breaker.may_probe(s(101)));
        breaker.probe_abandoned(s(102));
        assert!(breaker.may_probe(s(102)));
    }

    #[test]
    fn without_anybody_to_probe_it_closes_when_one_was_due() {
        let mut breaker = opened(s(100));
        assert_eq!(breaker.close_for_want_of_probes(s(100)), None);
        assert_eq!(
            breaker.close_for_want_of_probes(s(101)),
            Some(Change::Closed)
        );
        let mut breaker = opened(s(100));
        assert!(breaker.may_probe(s(101)));
        assert_eq!(breaker.close_for_want_of_probes(s(200)), None);
    }

    #[test]
    fn others_that_get_through_close_it_whatever_the_probe_says() {
        let mut breaker = opened(s(100));
        assert!(breaker.may_probe(s(101)));
        assert_eq!(breaker.others_get_through(), Some(Change::Closed));
        breaker.probe_failed(s(102), 0.5);
        assert!(!breaker.is_open());
        assert_eq!(breaker.others_get_through(), None);
    }

    #[test]
    fn what_comes_late_changes_nothing() {
        let mut breaker = opened(s(100));
        let due = breaker.probe_at();
        assert_eq!(breaker.failed(0, s(100), 0.9), None);
        breaker.probe_failed(s(100), 0.5);
        assert_eq!(breaker.probe_answered(), None);
        assert_eq!(breaker.probe_at(), due);
    }

    #[derive(Debug, Clone)]
    enum Told {
        Succeeded(u16),
        Failed,
        MayProbe,
        ProbeFailed,
        ProbeAnswered,
        ProbeAbandoned,
        NobodyToProbe,
        OthersGetThrough,
        Pass(u32),
    }

    fn told() -> impl Strategy<Value = Told> {
        prop_oneof![
            any::<u16>().prop_map(Told::Succeeded),
            Just(Told::Failed),
            Just(Told::Failed),
            Just(Told::MayProbe),
            Just(Told::ProbeFailed),
            Just(Told::ProbeAnswered),
            Just(Told::ProbeAbandoned),
            Just(Told::NobodyToProbe),
            Just(Told::OthersGetThrough),
            (0..20_000_u32).prop_map(Told::Pass),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_there_is_a_way_out_and_one_probe_at_a_time(
            all in proptest::collection::vec(told(), 0..200),
            failures_min in 0..10_u32,
            share in any::<f64>(),
            random in 0.0..1.0,
        ) {
            let policy = BreakerPolicy { failures_min, failure_share_min: share, ..BreakerPolicy::default() };
            let mut breaker = Breaker::new(policy);
            let (mut now, mut probing, mut others) = (Duration::ZERO, false, 0);
            for one in all {
                let was_open = breaker.is_open();
                let change = match one {
                    Told::Succeeded(attempts) => { others += u64::from(attempts); None }
                    Told::Failed => breaker.failed(others, now, random),
                    Told::MayProbe => {
                        let may = breaker.may_probe(now);
                        prop_assert!(!(may && probing), "two probes");
                        probing |= may;
                        None
                    }
                    Told::ProbeFailed => { breaker.probe_failed(now, random); probing = false; None }
                    Told::ProbeAnswered => { probing = false; breaker.probe_answered() }
                    Told::ProbeAbandoned => { breaker.probe_abandoned(now); probing = false; None }
                    Told::NobodyToProbe => breaker.close_for_want_of_probes(now),
                    Told::OthersGetThrough => { probing = false; breaker.others_get_through() }
                    Told::Pass(ms) => { now += Duration::from_millis(ms.into()); None }
                };
                let expected = match (was_open, breaker.is_open()) {
                    (false, true) => Some(Change::Opened),
                    (true, false) => Some(Change::Closed),
                    _ => None,
                };
                prop_assert_eq!(change, expected, "every change is told");
            }
            if breaker.is_open() && !probing {
                now += policy.probe.max;
                prop_assert!(breaker.may_probe(now), "a probe is due at the latest after the longest wait");
                prop_assert_eq!(breaker.probe_answered(), Some(Change::Closed));
            }
        }
    }
}

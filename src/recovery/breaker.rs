//! The circuit breaker of one dependency. Pure: clock and randomness are arguments.
//!
//! Decides whether handlers may run while a dependency is down. Knows neither record nor handler
//! nor task. Each record counts once (its first failure), so that one record that is retried often
//! cannot open it.
//!
//! An opening has numbered probes. Reports of a probe of an earlier opening, or of one that is
//! overdue, are recognised by the number and ignored where they no longer tell anything. The states
//! and their transitions:
//!
//! ```text
//! closed --enough outages--> open --probe due--> probing --answered--> closed
//!                             ^                     |
//!                             +---outage, too late--+
//! ```

use super::Backoff;
use super::sliding_count::SlidingCount;
use std::time::Duration;

/// When an outage stops a consumer, and how the consumer detects its end.
///
/// While the breaker is open, no handler starts and no further record is read, so that an outage
/// costs neither attempts nor memory, and results in no dead letters. The member stays in its
/// group. One record at a time is tried until the dependency answers.
///
/// It opens when both bounds are reached, so that neither a single failure nor a dependency that
/// refuses a few customers stops all records: such records wait with their keys, and their further
/// attempts do not count. It also opens after [`Self::failures_min`] consecutive records, however
/// long they take, if no attempt of their kind has ended otherwise for [`Self::window`]: calls that
/// hang end too rarely to reach the share.
///
/// A probe that has not ended after the longest wait between probes ([`Backoff::max`] of
/// [`Self::probe`]) is overdue: it continues, and the next record probes. If few records arrive, a
/// handful of refused ones can be most of them. So beside each failed probe another record may
/// start, and while such records are handled, the next may. The breaker closes when
/// [`Self::failures_min`] of them in a row are handled, of an event type that has failed because of
/// this dependency.
///
/// Each member has a breaker for each dependency that an error names
/// ([`HandlerError::dependency`](crate::handler::HandlerError::dependency)). While one is open, the
/// member's health names the dependency, and the metric `evenkeel_breaker_open` is 1.
///
/// | setting | default | bounds |
/// |---|---|---|
/// | [`failures_min`](Self::failures_min) | 5 | fewest failures that open it |
/// | [`failure_share_min`](Self::failure_share_min) | 0.5 | least share of failures that opens it |
/// | [`window`](Self::window) | 10 s | the time in which both count |
/// | [`probe`](Self::probe) | 1 s, doubled up to 10 s | waits between probes |
///
/// ```
/// use evenkeel::recovery::BreakerPolicy;
/// use std::time::Duration;
///
/// let policy = BreakerPolicy::default()
///     .with_failures_min(20)
///     .with_window(Duration::from_secs(30));
/// assert_eq!(policy.failure_share_min, 0.5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct BreakerPolicy {
    /// The number of records within [`Self::window`] whose first attempt must have failed with
    /// [`Class::Outage`](crate::handler::Class::Outage) or
    /// [`Class::Timeout`](crate::handler::Class::Timeout). Default 5. 0 counts as 1. A higher
    /// number lets more records start during an outage; each of them holds memory until it ends.
    pub failures_min: u32,
    /// Their share of all attempts in that time, 0 to 1. Default 0.5. A value that is not a number
    /// counts as 1. Attempts of event types that have never failed because of this dependency do
    /// not count. Choose a higher share if a dependency often refuses single customers.
    pub failure_share_min: f64,
    /// The time over which attempts count. It moves in ten steps. Default 10 s. It is at least 10
    /// ms.
    pub window: Duration,
    /// The waits between probes. [`Backoff::max`] is also how long a probe may take before the next
    /// one starts, at least 100 ms. Default 1 s at first, doubled up to 10 s, of which up to a
    /// fifth is random. The longest wait bounds how late a member notices that the dependency is
    /// back.
    pub probe: Backoff,
}

impl BreakerPolicy {
    /// Sets [`failures_min`](Self::failures_min).
    #[must_use]
    pub fn with_failures_min(mut self, failures_min: u32) -> Self {
        self.failures_min = failures_min;
        self
    }

    /// Sets [`failure_share_min`](Self::failure_share_min).
    #[must_use]
    pub fn with_failure_share_min(mut self, failure_share_min: f64) -> Self {
        self.failure_share_min = failure_share_min;
        self
    }

    /// Sets [`window`](Self::window).
    #[must_use]
    pub fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets [`probe`](Self::probe).
    #[must_use]
    pub fn with_probe(mut self, probe: Backoff) -> Self {
        self.probe = probe;
        self
    }
}

impl Default for BreakerPolicy {
    /// Half of the attempts in 10 s, at least 5. Probes after 1 s at first, later up to every 10 s.
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
    in_a_row: u32,
    /// Records beside the probes that were handled since the last failed one. None before the first
    /// failed probe.
    through: Option<u32>,
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
            in_a_row: 0,
            through: None,
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
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.is_open() {
            // Handlers that ran when it opened end later. A record that was started beside the
            // probes met the same outage.
            self.through = self.through.map(|_| 0);
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
        self.is_open() || self.in_a_row > 0 || self.failures(now) > 0
    }

    /// Notes the success of a record of a kind that has failed here, which has not failed here
    /// itself. Enough of them in a row close it, although its probes fail: the dependency refuses
    /// some records, and is not down.
    pub(crate) fn others_succeeded(&mut self) -> Option<Change> {
        self.in_a_row = 0;
        let through = self
            .through
            .as_mut()
            .filter(|_| self.state != State::Closed)?;
        *through = through.saturating_add(1);
        if *through < self.policy.failures_min.max(1) {
            return None;
        }
        // Whichever dependency is down, most records do not need it.
        self.close()
    }

    /// Whether records beside the probes may be tried, as a probe has failed.
    pub(crate) fn tries_others(&self) -> bool {
        self.is_open() && self.through.is_some()
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
            self.through = Some(0);
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
        self.in_a_row = 0;
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
        self.in_a_row >= self.policy.failures_min.max(1)
    }

    /// The share in effect: a number from 0 to 1.
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

    fn probe(breaker: &mut Breaker, now: Duration) -> ProbeId {
        breaker.may_probe(now).expect("a probe is due")
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
    fn failures_older_than_the_window_do_not_count() {
        let mut breaker = Breaker::new(policy());
        (0..4).for_each(|_| assert_eq!(breaker.failed(1, s(100), 0.5), None));
        (0..4).for_each(|_| assert_eq!(breaker.failed(1, s(110), 0.5), None));
        assert_eq!(breaker.failed(1, s(110), 0.5), Some(Change::Opened));
    }

    #[test]
    fn slow_failures_open_it_unless_their_kind_succeeds() {
        let mut breaker = Breaker::new(policy());
        for n in 0..4 {
            assert_eq!(breaker.failed(0, s(20 * n), 0.5), None);
        }
        assert_eq!(breaker.others_succeeded(), None);
        for n in 4..8 {
            assert_eq!(breaker.failed(0, s(20 * n), 0.5), None);
        }
        assert_eq!(
            breaker.failed(1, s(160), 0.5),
            None,
            "one succeeded just now"
        );
        assert_eq!(breaker.failed(0, s(180), 0.5), Some(Change::Opened));
    }

    /// Where no other record can come, one that fails again and again opens it.
    #[test]
    fn repeated_failures_open_it_once_successes_are_old() {
        let mut breaker = Breaker::new(policy());
        for _ in 0..40 {
            assert_eq!(breaker.failed(400, s(100), 0.5), None);
        }
        assert_eq!(breaker.failed_again(400, s(104), 0.5), None);
        assert_eq!(breaker.failed_again(0, s(110), 0.5), Some(Change::Opened));
        let mut breaker = Breaker::new(policy());
        assert_eq!(breaker.failed(0, s(100), 0.5), None);
        (0..9).for_each(|_| assert_eq!(breaker.failed_again(0, s(101), 0.5), None));
    }

    #[test]
    fn one_record_probes_and_later_each_time() {
        let mut breaker = opened(s(100));
        assert_eq!(breaker.may_probe(s(100)), None);
        let mut last = probe(&mut breaker, s(101));
        assert_eq!(breaker.may_probe(s(102)), None, "one at a time");
        breaker.probe_failed(last, s(102), 0.5);
        assert_eq!(breaker.probe_at(), Some(s(104)));
        for tens in 1..=10 {
            let now = s(102 + 10 * tens);
            last = probe(&mut breaker, now);
            breaker.probe_failed(last, now, 0.5);
        }
        assert_eq!(breaker.probe_at(), Some(s(212)), "every 10 s at last");
    }

    #[test]
    fn a_hanging_probe_is_followed_and_may_still_answer() {
        let mut breaker = opened(s(100));
        let hangs = probe(&mut breaker, s(101));
        assert_eq!(breaker.may_probe(s(110)), None);
        assert_eq!(breaker.probe_at(), Some(s(111)));
        let next = probe(&mut breaker, s(111));
        breaker.probe_failed(hangs, s(112), 0.5);
        breaker.probe_abandoned(hangs, s(112));
        assert_eq!(breaker.may_probe(s(112)), None, "the next one is under way");
        breaker.probe_failed(next, s(113), 0.5);
        assert_eq!(breaker.probe_answered(hangs), Some(Change::Closed));
        for _ in 0..5 {
            breaker.failed(0, s(120), 0.5);
        }
        assert_eq!(breaker.probe_answered(next), None, "of the opening before");
        assert!(breaker.is_open());
    }

    #[test]
    fn an_answer_closes_it_and_forgets() {
        let mut breaker = opened(s(100));
        let first = probe(&mut breaker, s(101));
        assert_eq!(breaker.probe_answered(first), Some(Change::Closed));
        assert!(!breaker.is_open());
        assert_eq!(
            breaker.failed(0, s(101), 0.5),
            None,
            "five are needed again"
        );
    }

    #[test]
    fn an_abandoned_probe_is_followed_at_once() {
        let mut breaker = opened(s(100));
        let first = probe(&mut breaker, s(101));
        breaker.probe_abandoned(first, s(102));
        probe(&mut breaker, s(102));
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
        probe(&mut breaker, s(101));
        assert_eq!(breaker.close_for_want_of_probes(s(110)), None);
        assert_eq!(
            breaker.close_for_want_of_probes(s(111)),
            Some(Change::Closed),
            "the probe hangs, and no other record waits"
        );
    }

    #[test]
    fn successes_in_a_row_close_it_after_a_failed_probe() {
        let mut breaker = opened(s(100));
        let first = probe(&mut breaker, s(101));
        (0..9).for_each(|_| assert_eq!(breaker.others_succeeded(), None));
        breaker.probe_failed(first, s(102), 0.5);
        for _ in 0..3 {
            (0..4).for_each(|_| assert_eq!(breaker.others_succeeded(), None));
            assert_eq!(breaker.failed(0, s(102), 0.5), None, "back to the start");
        }
        (0..4).for_each(|_| assert_eq!(breaker.others_succeeded(), None));
        assert_eq!(breaker.others_succeeded(), Some(Change::Closed));
        assert_eq!(breaker.others_succeeded(), None);
    }

    #[test]
    fn failures_of_an_open_breaker_change_nothing() {
        let mut breaker = opened(s(100));
        let due = breaker.probe_at();
        assert_eq!(breaker.failed(0, s(100), 0.9), None);
        assert_eq!(breaker.open_now(s(100), 0.9), None);
        assert_eq!(breaker.probe_at(), due);
    }

    #[derive(Debug, Clone)]
    enum Told {
        Succeeded(u16),
        Failed,
        FailedAgain,
        OpenNow,
        MayProbe,
        ProbeFailed(usize),
        ProbeAnswered(usize),
        ProbeAbandoned(usize),
        Answered,
        NobodyToProbe,
        OthersSucceeded,
        Pass(u32),
    }

    fn told() -> impl Strategy<Value = Told> {
        prop_oneof![
            any::<u16>().prop_map(Told::Succeeded),
            Just(Told::Failed),
            Just(Told::Failed),
            Just(Told::FailedAgain),
            Just(Told::OpenNow),
            Just(Told::MayProbe),
            any::<usize>().prop_map(Told::ProbeFailed),
            any::<usize>().prop_map(Told::ProbeAnswered),
            any::<usize>().prop_map(Told::ProbeAbandoned),
            Just(Told::Answered),
            Just(Told::NobodyToProbe),
            Just(Told::OthersSucceeded),
            (0..20_000_u32).prop_map(Told::Pass),
        ]
    }

    proptest! {
        /// Probes may hang for ever, end late, in any order, or be abandoned: none of them prevents
        /// the next one.
        #[test]
        fn there_is_always_a_way_out_and_one_timely_probe(
            all in proptest::collection::vec(told(), 0..200),
            failures_min in 0..10_u32,
            share in any::<f64>(),
            random in 0.0..1.0,
        ) {
            let policy = BreakerPolicy { failures_min, failure_share_min: share, ..BreakerPolicy::default() };
            let mut breaker = Breaker::new(policy);
            let (mut now, mut others) = (Duration::ZERO, 0);
            let mut probes: Vec<(ProbeId, Duration)> = Vec::new();
            let take = |probes: &mut Vec<(ProbeId, Duration)>, which: usize| {
                let at = which.checked_rem(probes.len())?;
                Some(probes.swap_remove(at).0)
            };
            for one in all {
                let was_open = breaker.is_open();
                let change = match one {
                    Told::Succeeded(attempts) => { others += u64::from(attempts); None }
                    Told::Failed => breaker.failed(others, now, random),
                    Told::FailedAgain => breaker.failed_again(others, now, random),
                    Told::OpenNow => breaker.open_now(now, random),
                    Told::MayProbe => {
                        if let Some(probe) = breaker.may_probe(now) {
                            let in_time = probes.iter().filter(|(_, began)| now < *began + policy.probe.max);
                            prop_assert_eq!(in_time.count(), 0, "two probes");
                            probes.push((probe, now));
                        }
                        None
                    }
                    Told::ProbeFailed(which) => {
                        if let Some(probe) = take(&mut probes, which) { breaker.probe_failed(probe, now, random); }
                        None
                    }
                    Told::ProbeAnswered(which) => take(&mut probes, which).and_then(|probe| breaker.probe_answered(probe)),
                    Told::ProbeAbandoned(which) => {
                        if let Some(probe) = take(&mut probes, which) { breaker.probe_abandoned(probe, now); }
                        None
                    }
                    Told::Answered => breaker.answered(),
                    Told::NobodyToProbe => breaker.close_for_want_of_probes(now),
                    Told::OthersSucceeded => breaker.others_succeeded(),
                    Told::Pass(ms) => { now += Duration::from_millis(ms.into()); None }
                };
                let expected = match (was_open, breaker.is_open()) {
                    (false, true) => Some(Change::Opened),
                    (true, false) => Some(Change::Closed),
                    _ => None,
                };
                prop_assert_eq!(change, expected, "every change is told");
                if change == Some(Change::Closed) {
                    // Probes of this opening have no effect any more.
                    probes.clear();
                }
            }
            if breaker.is_open() {
                now += policy.probe.max;
                let probe = breaker.may_probe(now);
                prop_assert!(probe.is_some(), "a probe is due at the latest after the longest wait");
                prop_assert_eq!(probe.and_then(|probe| breaker.probe_answered(probe)), Some(Change::Closed));
            }
        }
    }
}

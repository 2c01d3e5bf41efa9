use super::*;
use crate::failure::Backoff;
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
enum Report {
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

fn reports() -> impl Strategy<Value = Report> {
    prop_oneof![
        any::<u16>().prop_map(Report::Succeeded),
        Just(Report::Failed),
        Just(Report::Failed),
        Just(Report::FailedAgain),
        Just(Report::OpenNow),
        Just(Report::MayProbe),
        any::<usize>().prop_map(Report::ProbeFailed),
        any::<usize>().prop_map(Report::ProbeAnswered),
        any::<usize>().prop_map(Report::ProbeAbandoned),
        Just(Report::Answered),
        Just(Report::NobodyToProbe),
        Just(Report::OthersSucceeded),
        (0..20_000_u32).prop_map(Report::Pass),
    ]
}

proptest! {
    /// Probes may hang for ever, end late, in any order, or be abandoned: none of them prevents
    /// the next one.
    #[test]
    fn there_is_always_a_way_out_and_one_timely_probe(
        all in proptest::collection::vec(reports(), 0..200),
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
                Report::Succeeded(attempts) => { others += u64::from(attempts); None }
                Report::Failed => breaker.failed(others, now, random),
                Report::FailedAgain => breaker.failed_again(others, now, random),
                Report::OpenNow => breaker.open_now(now, random),
                Report::MayProbe => {
                    if let Some(probe) = breaker.may_probe(now) {
                        let in_time = probes.iter().filter(|(_, began)| now < *began + policy.probe.max);
                        prop_assert_eq!(in_time.count(), 0, "two probes");
                        probes.push((probe, now));
                    }
                    None
                }
                Report::ProbeFailed(which) => {
                    if let Some(probe) = take(&mut probes, which) { breaker.probe_failed(probe, now, random); }
                    None
                }
                Report::ProbeAnswered(which) => take(&mut probes, which).and_then(|probe| breaker.probe_answered(probe)),
                Report::ProbeAbandoned(which) => {
                    if let Some(probe) = take(&mut probes, which) { breaker.probe_abandoned(probe, now); }
                    None
                }
                Report::Answered => breaker.answered(),
                Report::NobodyToProbe => breaker.close_for_want_of_probes(now),
                Report::OthersSucceeded => breaker.others_succeeded(),
                Report::Pass(ms) => { now += Duration::from_millis(ms.into()); None }
            };
            let expected = match (was_open, breaker.is_open()) {
                (false, true) => Some(Change::Opened),
                (true, false) => Some(Change::Closed),
                _ => None,
            };
            prop_assert_eq!(change, expected, "every change is returned");
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

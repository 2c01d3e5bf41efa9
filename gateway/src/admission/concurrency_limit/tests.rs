//! The limit against latencies that are given, and against a simulated server.

use super::*;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

fn limit_of(initial: u32, min: u32, max: u32, now: Instant) -> ConcurrencyLimit {
    let settings = AdmissionSettings::default().with_concurrency(initial, min, max);
    ConcurrencyLimit::new(&settings.in_range(), now)
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Rounds in which all places are taken, one more is asked for, and all take this long.
fn saturate(limit: &mut ConcurrencyLimit, now: &mut Instant, latency: Duration, rounds: usize) {
    for _ in 0..rounds {
        let mut taken = 0;
        while limit.try_acquire(*now, Arrival::New) {
            taken += 1;
        }
        *now += latency;
        for _ in 0..taken {
            limit.release(*now, Sample::Latency(latency));
        }
    }
}

#[test]
fn the_limit_grows_while_the_latency_is_flat() {
    let mut now = Instant::now();
    let mut limit = limit_of(20, 5, 1_000, now);
    saturate(&mut limit, &mut now, millis(10), 600);
    assert!(limit.limit() > 60, "{}", limit.limit());
}

#[test]
fn the_limit_shrinks_when_the_latency_doubles() {
    let mut now = Instant::now();
    let mut limit = limit_of(20, 5, 1_000, now);
    saturate(&mut limit, &mut now, millis(10), 600);
    let before = limit.limit();
    saturate(&mut limit, &mut now, millis(20), 100);
    assert!(
        limit.limit() < before * 3 / 4,
        "{} of {before}",
        limit.limit()
    );
    assert!(limit.is_congested(now));
}

#[test]
fn a_lasting_change_of_latency_becomes_normal() {
    let mut now = Instant::now();
    let mut limit = limit_of(20, 5, 1_000, now);
    saturate(&mut limit, &mut now, millis(10), 600);
    saturate(&mut limit, &mut now, millis(20), 100);
    let shrunk = limit.limit();
    // A minute and a half.
    saturate(&mut limit, &mut now, millis(20), 4_500);
    assert!(limit.limit() > 2 * shrunk, "{} of {shrunk}", limit.limit());
}

#[test]
fn a_limit_that_is_not_used_does_not_grow() {
    let mut now = Instant::now();
    let mut limit = limit_of(50, 5, 1_000, now);
    for _ in 0..1_000 {
        for _ in 0..24 {
            assert!(limit.try_acquire(now, Arrival::New));
        }
        now += millis(10);
        for _ in 0..24 {
            limit.release(now, Sample::Latency(millis(10)));
        }
    }
    assert_eq!(limit.limit(), 50);
}

#[test]
fn drops_shrink_the_limit_once_per_round_trip() {
    let mut now = Instant::now();
    let mut limit = limit_of(50, 10, 1_000, now);
    for (wait_ms, expected) in [(0, 45), (0, 45), (50, 45), (100, 40), (100, 36)] {
        now += millis(wait_ms);
        assert!(limit.try_acquire(now, Arrival::New));
        limit.release(now, Sample::Dropped);
        assert_eq!(limit.limit(), expected, "after {wait_ms} ms");
    }
}

#[test]
fn a_caller_with_a_short_deadline_does_not_shrink_the_limit() {
    let mut now = Instant::now();
    let mut limit = limit_of(20, 5, 20, now);
    saturate(&mut limit, &mut now, millis(100), 10);
    for (deadline_ms, shrinks) in [(1, false), (100, false), (300, true)] {
        let before = limit.limit();
        assert!(limit.try_acquire(now, Arrival::New));
        now += millis(deadline_ms);
        limit.release(now, Sample::TimedOut(millis(deadline_ms)));
        assert_eq!(limit.limit() < before, shrinks, "{deadline_ms} ms");
    }
}

#[test]
fn cancelled_requests_change_nothing_but_the_places() {
    let now = Instant::now();
    let mut limit = limit_of(2, 2, 2, now);
    assert!(limit.try_acquire(now, Arrival::New));
    assert!(limit.try_acquire(now, Arrival::New));
    assert!(!limit.try_acquire(now, Arrival::New));
    limit.release(now, Sample::Ignored);
    assert_eq!((limit.in_flight(), limit.limit()), (1, 2));
    assert_eq!(limit.expected(now), None);
}

#[test]
fn requests_that_return_double_the_limit() {
    let now = Instant::now();
    let mut limit = limit_of(20, 20, 20, now);
    while limit.try_acquire(now, Arrival::New) {}
    let mut returned = 0;
    while limit.try_acquire(now, Arrival::Returning) {
        returned += 1;
    }
    assert_eq!((returned, limit.in_flight()), (20, 40));
}

#[test]
fn requests_that_return_double_the_places_of_a_probe() {
    let now = Instant::now();
    let mut limit = limit_of(20, 2, 20, now);
    limit.probe = Probe::Draining;
    while limit.try_acquire(now, Arrival::New) {}
    while limit.try_acquire(now, Arrival::Returning) {}
    assert_eq!((limit.limit(), limit.in_flight()), (20, 20));
}

#[test]
fn the_capacity_is_the_limit_over_the_latency() {
    let mut now = Instant::now();
    let mut limit = limit_of(10, 10, 10, now);
    assert_eq!(limit.requests_per_second(now), 10.0);
    saturate(&mut limit, &mut now, millis(20), 20);
    let estimate = limit.requests_per_second(now);
    assert!((estimate - 500.0).abs() < 1.0, "{estimate}");
    // A stall: nothing was finished for 20 s.
    while limit.try_acquire(now, Arrival::New) {}
    now += millis(20_000);
    assert!(limit.requests_per_second(now) < 1.0);
    assert_eq!(limit.expected(now), None);
}

/// A server with this many workers, each of which needs `service` for a request, and a queue. All
/// places of the limit are in use for this long.
fn limit_against_server(workers: usize, service: Duration, run: Duration) -> ConcurrencyLimit {
    let start = Instant::now();
    let mut limit = limit_of(50, 5, 1_000, start);
    let mut free: BinaryHeap<Reverse<Instant>> = (0..workers).map(|_| Reverse(start)).collect();
    let mut in_flight: BinaryHeap<Reverse<(Instant, Instant)>> = BinaryHeap::new();
    let mut now = start;
    while now < start + run {
        while limit.try_acquire(now, Arrival::New) {
            let Reverse(worker) = free.pop().expect("a worker");
            let done = worker.max(now) + service;
            free.push(Reverse(done));
            in_flight.push(Reverse((done, now)));
        }
        let Reverse((done, begun)) = in_flight.pop().expect("a request");
        now = done;
        limit.release(now, Sample::Latency(done - begun));
    }
    limit
}

#[test]
fn the_limit_converges_near_the_servers_capacity() {
    for (workers, service_ms) in [(10, 10), (40, 20), (100, 50)] {
        let limit = limit_against_server(workers, millis(service_ms), Duration::from_secs(120));
        let (least, most) = (workers as u32 * 3 / 4, workers as u32 * 5 / 2);
        let near = least..=most;
        assert!(
            near.contains(&limit.limit()),
            "{} for {workers} workers",
            limit.limit()
        );
    }
}

proptest! {
    #[test]
    fn the_limit_stays_within_its_bounds(
        (min, more, initial) in (1_u32..50, 0_u32..100, 0_u32..200),
        steps in proptest::collection::vec((0_u8..7, 0_u64..3_000), 1..500),
    ) {
        let mut now = Instant::now();
        let max = min + more;
        let mut limit = limit_of(initial, min, max, now);
        let mut held = 0;
        for (step, count) in steps {
            let sample = match step {
                0 | 1 => {
                    let arrival = if step == 0 { Arrival::New } else { Arrival::Returning };
                    for _ in 0..count % 50 {
                        held += u32::from(limit.try_acquire(now, arrival));
                    }
                    continue;
                }
                2 => Sample::Dropped,
                3 => Sample::Ignored,
                4 => Sample::TimedOut(millis(count)),
                _ => Sample::Latency(millis(count)),
            };
            now += millis(count % 100);
            for _ in 0..held.min(1 + count as u32 % 20) {
                limit.release(now, sample);
                held -= 1;
            }
            prop_assert!((min..=max).contains(&limit.limit()), "{limit:?}");
            prop_assert_eq!(limit.in_flight(), held);
            prop_assert!(held <= max + max.max(OVERDRAFT_MIN));
            prop_assert!(limit.requests_per_second(now) > 0.0);
        }
    }
}

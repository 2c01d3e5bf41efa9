//! The decisions against a simulated store, with more requests than it can serve.
//!
//! The store has workers that need a fixed time for a request, and a queue. Callers that are
//! refused come back once, when they were told.

use super::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happens next. Of what happens at the same time, requests finish first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Done { begun: Instant },
    Arrive { id: u64, is_return: bool },
}

#[derive(Debug, Default)]
struct Report {
    /// When served requests were admitted, since the start, and their latency.
    served: Vec<(Duration, Duration)>,
    /// When refused requests came back, since the start, and whether they were admitted then.
    returned: Vec<(Duration, bool)>,
}

struct Store {
    free: BinaryHeap<Reverse<Instant>>,
    service: Duration,
}

impl Store {
    /// When a request that arrives now is done.
    fn serve(&mut self, now: Instant) -> Instant {
        let Reverse(worker) = self.free.pop().expect("a worker");
        let done = worker.max(now) + self.service;
        self.free.push(Reverse(done));
        done
    }
}

fn candidate(id: u64) -> Candidate {
    Candidate {
        key: RetryKey {
            hash: id,
            is_unique: true,
        },
        time_left: None,
        backlog: Backlog::default(),
        // Evenly spread, and the same in each run.
        random: (id as f64 * 0.618_034).fract(),
    }
}

/// Simulates new requests in phases of `(pause between two, duration)`.
fn simulate(
    settings: AdmissionSettings,
    workers: usize,
    service: Duration,
    phases: &[(Duration, Duration)],
) -> Report {
    let start = Instant::now();
    let mut decision = Decision::new(&settings.in_range(), start);
    let free = (0..workers).map(|_| Reverse(start)).collect();
    let mut store = Store { free, service };
    let mut steps: BinaryHeap<Reverse<(Instant, Step)>> = BinaryHeap::new();
    let (mut id, mut at) = (0, start);
    for (pause, duration) in phases {
        let end = at + *duration;
        while at < end {
            steps.push(Reverse((
                at,
                Step::Arrive {
                    id,
                    is_return: false,
                },
            )));
            id += 1;
            at += *pause;
        }
    }
    let mut report = Report::default();
    while let Some(Reverse((now, step))) = steps.pop() {
        match step {
            Step::Done { begun } => {
                decision.release(Sample::Latency(now - begun), now);
                report.served.push((begun - start, now - begun));
            }
            Step::Arrive { id, is_return } => {
                let decided = decision.admit(&candidate(id), now);
                if is_return {
                    report.returned.push((now - start, decided.is_ok()));
                }
                match decided {
                    Ok(()) => {
                        let done = store.serve(now);
                        steps.push(Reverse((done, Step::Done { begun: now })));
                    }
                    Err(Refusal::Concurrency { wait }) if !is_return => {
                        steps.push(Reverse((
                            now + wait,
                            Step::Arrive {
                                id,
                                is_return: true,
                            },
                        )));
                    }
                    Err(Refusal::Concurrency { .. }) => {}
                    Err(refusal) => panic!("expected no refusal but by concurrency: {refusal:?}"),
                }
            }
        }
    }
    report
}

#[test]
fn callers_that_obey_are_served_under_double_load() {
    let overload = Duration::from_secs(20);
    // 100 requests per second can be served, and 200 come.
    let report = simulate(
        AdmissionSettings::default().with_concurrency(15, 15, 15),
        10,
        Duration::from_millis(100),
        &[(Duration::from_millis(5), overload)],
    );
    let returned = report.returned.iter().filter(|(at, _)| *at < overload);
    let returned: Vec<bool> = returned.map(|(_, is_served)| *is_served).collect();
    let served = returned.iter().filter(|is_served| **is_served).count();
    assert!(returned.len() > 200, "{}", returned.len());
    assert!(
        served * 100 >= returned.len() * 95,
        "{served} of {}",
        returned.len()
    );
}

#[test]
fn latency_stays_within_twice_the_normal_under_double_load() {
    let service = Duration::from_millis(20);
    // 2,000 requests per second can be served. Half of it for 5 s, then twice as many for 30 s.
    let report = simulate(
        AdmissionSettings::default(),
        40,
        service,
        &[
            (Duration::from_millis(1), Duration::from_secs(5)),
            (Duration::from_micros(250), Duration::from_secs(30)),
        ],
    );
    // Without the first seconds, in which the limit adapts.
    let (from, to) = (Duration::from_secs(8), Duration::from_secs(35));
    let served = report
        .served
        .iter()
        .filter(|(at, _)| *at >= from && *at < to);
    let mut latencies: Vec<Duration> = served.map(|(_, latency)| *latency).collect();
    latencies.sort_unstable();
    let p99 = latencies[latencies.len() * 99 / 100];
    assert!(p99 <= 2 * service, "{p99:?}");
    // The store is busy all the time.
    let capacity = 2_000 * (to - from).as_secs() as usize;
    assert!(
        latencies.len() * 10 >= capacity * 9,
        "{} of {capacity}",
        latencies.len()
    );
}

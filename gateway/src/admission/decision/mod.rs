//! The decision on a request, but for the rate of its caller.
//!
//! Owns the concurrency limit, the ledger and the drain rate, which one lock protects. Pure: clock,
//! backlog and randomness are arguments.

mod drain_rate;
#[cfg(test)]
mod simulation;

use super::concurrency_limit::{Arrival, ConcurrencyLimit, Sample};
use super::queue_limit::{ExceededBound, QueueLimit};
use super::refusal::Refusal;
use super::retry_after::{Refused, RetryKey, RetryLedger};
use super::settings::AdmissionSettings;
use super::telemetry::ConcurrencyMeasured;
use crate::store::Backlog;
use drain_rate::DrainRate;
use std::time::Duration;
use tokio::time::Instant;

/// A request to decide on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Who it is.
    pub(super) key: RetryKey,
    /// The time until its deadline, if it has one.
    pub(super) time_left: Option<Duration>,
    /// What waits in the store.
    pub(super) backlog: Backlog,
    /// A random number from 0 to 1.
    pub(super) random: f64,
}

/// Decides on requests.
#[derive(Debug)]
pub(super) struct Decision {
    concurrency: ConcurrencyLimit,
    queue: QueueLimit,
    drain: DrainRate,
    ledger: RetryLedger,
}

impl Decision {
    /// Without requests. `settings` are in their range.
    pub(super) fn new(settings: &AdmissionSettings, now: Instant) -> Self {
        Self {
            concurrency: ConcurrencyLimit::new(settings, now),
            queue: QueueLimit::new(settings),
            drain: DrainRate::default(),
            ledger: RetryLedger::new(settings, now),
        }
    }

    /// Takes a place for the request, which must be [released](Self::release), or refuses it.
    pub(super) fn admit(&mut self, candidate: &Candidate, now: Instant) -> Result<(), Refusal> {
        if candidate.time_left.is_some_and(|left| left.is_zero()) {
            return Err(Refusal::DeadlinePassed);
        }
        self.drain.observe(&candidate.backlog, now);
        self.check_queue(candidate, now)?;
        self.check_deadline(candidate, now)?;
        let arrival = if self.ledger.redeem(candidate.key, now) {
            Arrival::Returning
        } else {
            Arrival::New
        };
        if self.concurrency.try_acquire(now, arrival) {
            return Ok(());
        }
        let per_second = self.concurrency.requests_per_second(now);
        let wait = self.book(candidate, Duration::ZERO, per_second, now);
        Err(Refusal::Concurrency { wait })
    }

    /// Releases the place of a request.
    pub(super) fn release(&mut self, sample: Sample, now: Instant) {
        self.concurrency.release(now, sample);
    }

    /// The concurrency limit and its use.
    pub(super) fn measured(&self) -> ConcurrencyMeasured {
        ConcurrencyMeasured {
            limit: self.concurrency.limit(),
            in_flight: self.concurrency.in_flight(),
        }
    }

    fn check_queue(&mut self, candidate: &Candidate, now: Instant) -> Result<(), Refusal> {
        let Some(excess) = self.queue.excess(&candidate.backlog) else {
            return Ok(());
        };
        let drained = self.drain.per_second();
        // Not more requests come back than events leave. A request has at least one event.
        let served = self.concurrency.requests_per_second(now);
        let per_second = drained.map_or(served, |drained| drained.min(served));
        let wait = self.book(candidate, excess.wait(drained), per_second, now);
        Err(match excess.bound {
            ExceededBound::Events => Refusal::BacklogEvents { wait },
            ExceededBound::Age => Refusal::QueueAge { wait },
        })
    }

    fn check_deadline(&mut self, candidate: &Candidate, now: Instant) -> Result<(), Refusal> {
        let Some(expected) = self.concurrency.expected(now) else {
            return Ok(());
        };
        if candidate.time_left.is_none_or(|left| left >= expected) {
            return Ok(());
        }
        // If requests always take this long, it does not help to come back.
        let wait = self.concurrency.is_congested(now).then(|| {
            let per_second = self.concurrency.requests_per_second(now);
            self.book(candidate, Duration::ZERO, per_second, now)
        });
        Err(Refusal::DeadlineShort { expected, wait })
    }

    fn book(
        &mut self,
        candidate: &Candidate,
        earliest: Duration,
        per_second: f64,
        now: Instant,
    ) -> Duration {
        let refused = Refused {
            key: candidate.key,
            earliest,
            per_second,
            // A part of what those that return may take beyond the limit: bursts can meet where
            // two of the ledger's times do.
            burst: self.concurrency.overdraft() / 8,
            random: candidate.random,
        };
        self.ledger.book(&refused, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> AdmissionSettings {
        AdmissionSettings::default().with_concurrency(10, 10, 10)
    }

    fn candidate(hash: u64) -> Candidate {
        Candidate {
            key: RetryKey {
                hash,
                is_unique: true,
            },
            time_left: None,
            backlog: Backlog::default(),
            random: 0.0,
        }
    }

    #[test]
    fn a_request_that_returns_goes_before_new_ones() {
        let mut now = Instant::now();
        let mut decision = Decision::new(&settings(), now);
        for hash in 0..10 {
            assert_eq!(decision.admit(&candidate(hash), now), Ok(()));
        }
        let refused = decision.admit(&candidate(100), now);
        let Err(Refusal::Concurrency { wait }) = refused else {
            panic!("expected a refusal by concurrency: {refused:?}");
        };
        now += wait;
        let new = decision.admit(&candidate(101), now);
        assert!(matches!(new, Err(Refusal::Concurrency { .. })), "{new:?}");
        assert_eq!(decision.admit(&candidate(100), now), Ok(()));
        assert_eq!(
            decision.measured(),
            ConcurrencyMeasured {
                limit: 10,
                in_flight: 11
            }
        );
    }

    #[test]
    fn a_full_outbox_refuses_until_it_has_drained() {
        let start = Instant::now();
        let settings = settings().with_backlog_events_max(1_000_u64);
        let mut decision = Decision::new(&settings, start);
        let with_backlog = |events, drained| {
            let backlog = Backlog {
                events,
                drained,
                oldest_age: None,
            };
            Candidate {
                backlog,
                ..candidate(drained)
            }
        };
        assert_eq!(decision.admit(&with_backlog(999, 0), start), Ok(()));
        // 100 events per second leave, 400 too many wait.
        let now = start + Duration::from_secs(2);
        let refused = decision.admit(&with_backlog(1_399, 200), now);
        let wait = Duration::from_secs(4);
        assert_eq!(refused, Err(Refusal::BacklogEvents { wait }));
        assert_eq!(decision.admit(&with_backlog(999, 600), now + wait), Ok(()));
    }

    #[test]
    fn stalled_brokers_refuse_by_age() {
        let now = Instant::now();
        let settings = AdmissionSettings::brokers();
        let mut decision = Decision::new(&settings, now);
        for (age_ms, is_admitted) in [(900, true), (1_100, false)] {
            let oldest_age = Some(Duration::from_millis(age_ms));
            let backlog = Backlog {
                events: 10,
                drained: 0,
                oldest_age,
            };
            let decided = decision.admit(
                &Candidate {
                    backlog,
                    ..candidate(age_ms)
                },
                now,
            );
            let wait = Duration::from_secs(5);
            let refused = Err(Refusal::QueueAge { wait });
            assert_eq!(
                decided,
                if is_admitted { Ok(()) } else { refused },
                "{age_ms}"
            );
        }
    }

    #[test]
    fn a_deadline_that_cannot_be_kept_is_refused() {
        let mut now = Instant::now();
        let mut decision = Decision::new(&settings(), now);
        let with_time = |left_ms| {
            let time_left = Some(Duration::from_millis(left_ms));
            Candidate {
                time_left,
                ..candidate(left_ms)
            }
        };
        assert_eq!(
            decision.admit(&with_time(0), now),
            Err(Refusal::DeadlinePassed)
        );
        // Nothing is known: it is tried.
        assert_eq!(decision.admit(&with_time(1), now), Ok(()));
        let expected = Duration::from_millis(100);
        now += expected;
        decision.release(Sample::Latency(expected), now);
        assert_eq!(decision.admit(&with_time(200), now), Ok(()));
        let refused = decision.admit(&with_time(50), now);
        assert_eq!(
            refused,
            Err(Refusal::DeadlineShort {
                expected,
                wait: None
            })
        );
        // What was known is old: it is tried.
        now += Duration::from_secs(2);
        assert_eq!(decision.admit(&with_time(50), now), Ok(()));
    }

    #[test]
    fn congestion_tells_a_short_deadline_to_come_back() {
        let mut now = Instant::now();
        let mut decision = Decision::new(&settings(), now);
        // The normal latency, then one ten times as long.
        for (latency_ms, rounds) in [(20, 100), (200, 40)] {
            let latency = Duration::from_millis(latency_ms);
            for _ in 0..rounds {
                for hash in 0..10 {
                    assert_eq!(decision.admit(&candidate(hash), now), Ok(()));
                }
                now += latency;
                for _ in 0..10 {
                    decision.release(Sample::Latency(latency), now);
                }
            }
        }
        let time_left = Some(Duration::from_millis(50));
        let refused = decision.admit(
            &Candidate {
                time_left,
                ..candidate(1)
            },
            now,
        );
        let Err(Refusal::DeadlineShort {
            expected,
            wait: Some(wait),
        }) = refused
        else {
            panic!("expected a refusal with a time to come back: {refused:?}");
        };
        assert!(expected > Duration::from_millis(150), "{expected:?}");
        assert!(wait >= Duration::from_secs(1), "{wait:?}");
    }
}

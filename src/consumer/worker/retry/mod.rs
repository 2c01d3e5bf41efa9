//! Handles a record whose attempt failed: it is retried, parked, or dead-lettered.
//!
//! Runs while the record's lane waits. Ends without settling the record when its partition is
//! fenced.
//!
//! # The loop
//!
//! One future carries the record from its first failure to its end: classify, decide by the policy,
//! wait, attempt again. Every wait ends at the fence of the partition, and lends the record's
//! permit to others. A wait between attempts also ends by an operator's command. The record's lane
//! stays occupied all the time, which keeps the order of its key.
//!
//! | failure | counts as an attempt | next step |
//! |---|---|---|
//! | transient | yes | again after the backoff; then parked; then dead-lettered |
//! | timeout | yes, unless a breaker is open for the dependency | the same |
//! | outage | no | again when the dependency answers |
//! | permanent, panic | | dead-lettered |
//! | fatal publisher | | the run ends |
//!
//! # Cancellation
//!
//! The future is dropped only with the worker. An attempt is never cancelled by a fence: its effect
//! may have happened already, and the drain of the revoke gives it its time.
//!
//! # Example
//!
//! A record of the key k with the default policy, and a bank that is down at first. The backoff is
//! shown without its random part.
//!
//! | time | event | failures counted | permit |
//! |---|---|---|---|
//! | 0 s | attempt 1: outage of `bank` | 0 | held |
//! | 0 s | with failures of other records, the breaker opens | 0 | lent |
//! | 1 s | attempt 2, the probe: an internal error of the bank (transient) | 1 | held |
//! | 1 s | the breaker closes: the bank answered | 1 | lent |
//! | 1.1, 1.3, 1.7, 2.5 s | attempts 3 to 6: transient | 5 | held |
//! | 2.5 s | parked for 10 s; later records of k are parked behind it | | |
//! | 12.5 s | the dispatcher hands it out: attempt 7 succeeds | | |
//! | 12.5 s | the records behind it follow, in order | | |

mod attempt_clock;
mod dead_letter;
mod missing_headers;
mod park;
mod telemetry;
mod waits;

use crate::consumer::shared::Shared;
use crate::consumer::shared::breakers::{Evidence, INBOX, ProbeAnswer};
use crate::consumer::shared::control::RetryRegistration;
use crate::consumer::state::partition::Partition;
use crate::consumer::state::settlement::{Settlement, Verdict};
use crate::consumer::worker::retry::attempt_clock::AttemptClock;
use crate::consumer::worker::retry::telemetry::LoggedRecord;
use crate::control::Command;
use crate::failure::panics::{self, Guarded};
use crate::handler::{Class, DeadReason, Delivery, Failure, HandlerError, Outcome, Stage};
use crate::recovery::RetryDecision;
use crate::recovery::parked::RetryState;
use crate::recovery::parking::Ticket;
use futures_util::FutureExt;
use jiff::Timestamp;
use std::error::Error;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tower::ServiceExt;

/// The retry of a record, with the clock of its running attempt.
pub(crate) struct RetryFuture {
    pub(crate) future: Pin<Box<dyn Future<Output = Verdict> + Send>>,
    pub(crate) attempt_clock: AttemptClock,
}

impl RetryFuture {
    /// A retry that never ends.
    pub(crate) fn never() -> Self {
        Self {
            future: Box::pin(std::future::pending()),
            attempt_clock: AttemptClock::default(),
        }
    }
}

/// A record that is not settled, with the state of its retry.
///
/// It keeps no memory of its burst, and no value of the service's types between two attempts.
pub(crate) struct UnsettledRecord {
    pub(crate) shared: Arc<Shared>,
    pub(crate) delivery: Delivery,
    pub(crate) partition: Arc<Partition>,
    /// Its ticket in the retry partition, if it is parked.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) retry_state: RetryState,
    /// Attempts made, whatever the class of their failures.
    pub(crate) attempts: u32,
    /// Failures that count for the policy.
    transient_failures: u32,
    /// Failures by an outage: they only lengthen the backoff.
    outage_failures: u32,
    /// When the first attempt failed.
    first_failure: Option<Timestamp>,
    /// The dependencies that it failed by, the latest last.
    failed_by: Vec<String>,
    /// When the last attempt began.
    pub(crate) began: Instant,
    attempt_clock: AttemptClock,
}

impl UnsettledRecord {
    /// The state for the retry of a record. A parked record has a ticket and its wait so far.
    pub(crate) fn new(
        shared: Arc<Shared>,
        delivery: Delivery,
        partition: Arc<Partition>,
        ticket: Option<Ticket>,
        retry_state: RetryState,
    ) -> Self {
        Self {
            shared,
            attempts: delivery.attempt,
            delivery,
            partition,
            ticket,
            retry_state,
            transient_failures: 0,
            outage_failures: 0,
            first_failure: None,
            failed_by: Vec::new(),
            began: Instant::now(),
            attempt_clock: AttemptClock::default(),
        }
    }
}

/// Parks a record behind the others of its key.
pub(crate) fn park_behind(mut unsettled: UnsettledRecord) -> RetryFuture {
    let attempt_clock = unsettled.attempt_clock.clone();
    let future = Box::pin(async move { unsettled.park_behind().await });
    RetryFuture {
        future,
        attempt_clock,
    }
}

/// Handles `outcome`, which is not a success. None if the first attempt is still to be made.
///
/// The handler instance is held across the retry and cloned for each attempt; a panic in its clone
/// or drop becomes an outcome.
pub(crate) fn retry<H>(
    handler: H,
    mut unsettled: UnsettledRecord,
    outcome: Option<Outcome>,
) -> RetryFuture
where
    H: tower::Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
    H::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    H::Future: Send,
{
    let attempt_clock = unsettled.attempt_clock.clone();
    let future = Box::pin(async move {
        let registration =
            RetryRegistration::new(&unsettled.shared.control, &unsettled.delivery.record);
        let mut handler = Guarded::new(handler);
        let outcome = match outcome {
            Some(outcome) => outcome,
            // The instance that waited for room holds a place in the layers' queues.
            None => match handler.replace_with_clone() {
                Ok(ready) => unsettled.attempt(ready).await,
                Err(reason) => Outcome::Dead(reason),
            },
        };
        let mut result = unsettled.classified(outcome);
        let mut evidence = Evidence::FirstFailure;
        loop {
            let step = match result {
                AttemptResult::Settled(settlement) => {
                    if settlement == Settlement::Done {
                        unsettled.shared.breakers.close_for(&unsettled.failed_by);
                    }
                    return Verdict::Settled(settlement);
                }
                AttemptResult::Dead(reason) => unsettled.permanent_failure(reason),
                AttemptResult::Failed(failure) => unsettled.next_step(failure, evidence),
            };
            if !matches!(step, Step::Abandon)
                && let Some(command) = unsettled.skip_command()
            {
                return unsettled.skip(&command).await;
            }
            let waited = match step {
                Step::Abandon => return Verdict::Abandoned,
                Step::Park(failure, delay) => return unsettled.park(&failure, delay).await,
                Step::DeadLetter(class, reason) => {
                    return unsettled.dead_letter(class, &reason).await;
                }
                Step::RetryAfter(delay, outage_of) => tokio::select! {
                    waited = unsettled.wait(delay, outage_of.as_deref(), &registration) => waited,
                    command = registration.skipped() => return unsettled.skip(&command).await,
                },
            };
            let Some(probe) = waited else {
                return Verdict::Abandoned;
            };
            unsettled.attempts = unsettled.attempts.saturating_add(1);
            unsettled.delivery.attempt = unsettled.attempts;
            unsettled.began = Instant::now();
            let outcome = match (handler.cloned(), &probe) {
                (Ok(next), Some(probe)) => probe.run(unsettled.attempt(next)).await,
                (Ok(next), None) => unsettled.attempt(next).await,
                (Err(reason), _) => Outcome::Dead(reason),
            };
            result = unsettled.classified(outcome);
            evidence = Evidence::FirstFailure;
            if let Some(probe) = probe {
                let answer = result.probe_answer(probe.dependency());
                probe.report(answer);
                evidence = Evidence::FailedProbe;
            }
        }
    });
    RetryFuture {
        future,
        attempt_clock,
    }
}

/// Dead-letters a record whose handler or retry panicked without an outcome. Runs no code of the
/// service.
pub(crate) fn dead_letter_panicked(
    mut unsettled: UnsettledRecord,
    reason: DeadReason,
) -> RetryFuture {
    let attempt_clock = unsettled.attempt_clock.clone();
    let future = Box::pin(async move {
        match unsettled.permanent_failure(reason) {
            Step::DeadLetter(class, reason) => unsettled.dead_letter(class, &reason).await,
            _ => Verdict::Abandoned,
        }
    });
    RetryFuture {
        future,
        attempt_clock,
    }
}

/// Settles a record that an operator skipped, without a handler.
///
/// The write to the dead-letter topic passes no flood guard: an operator asked for it.
pub(crate) fn skip(mut unsettled: UnsettledRecord, command: Box<Command>) -> RetryFuture {
    // The announced attempt is not made.
    unsettled.attempts = unsettled.attempts.saturating_sub(1);
    let attempt_clock = unsettled.attempt_clock.clone();
    let future = Box::pin(async move { unsettled.skip(&command).await });
    RetryFuture {
        future,
        attempt_clock,
    }
}

/// The result of an attempt, without values of the service's types.
enum AttemptResult {
    /// The handler succeeded, or recognised a duplicate, or ignored the record.
    Settled(Settlement),
    /// The handler asked for the dead-letter topic, or panicked.
    Dead(DeadReason),
    /// The attempt failed with an error that has a class.
    Failed(Failure),
}

impl AttemptResult {
    /// The result of a probe of `dependency` that ended like this.
    ///
    /// It tells whether the dependency answered, not whether the handler succeeded: a rejected
    /// payment proves that the bank is up. A handler that failed without an outage counts as having
    /// called the dependency; one that panicked does not.
    fn probe_answer(&self, dependency: &str) -> ProbeAnswer {
        match self {
            Self::Settled(Settlement::Done) => ProbeAnswer::Yes,
            Self::Settled(Settlement::Duplicate) if dependency == INBOX => ProbeAnswer::Yes,
            Self::Settled(_) => ProbeAnswer::NotAsked,
            Self::Failed(failure) => match (failure.class, failure.stage) {
                (Class::Outage | Class::Timeout, _) => ProbeAnswer::No,
                (_, Stage::Panic) => ProbeAnswer::NotAsked,
                (Class::Transient | Class::Permanent, _) => ProbeAnswer::Yes,
            },
            Self::Dead(reason) => match reason.stage {
                Stage::Handler => ProbeAnswer::Yes,
                Stage::Timeout => ProbeAnswer::No,
                _ => ProbeAnswer::NotAsked,
            },
        }
    }
}

/// What follows a failure.
enum Step {
    /// Wait for that time, and until the dependency answers.
    RetryAfter(Duration, Option<String>),
    /// Write the record to the retry topic, and retry it after that time.
    Park(Failure, Duration),
    /// Write the record to the dead-letter topic.
    DeadLetter(Class, DeadReason),
    /// Release the record unsettled: it is redelivered.
    Abandon,
}

impl UnsettledRecord {
    /// Calls the handler once it is ready. A panic becomes an outcome, also in the conversion of a
    /// layer's error or in a drop: both happen before the future is ready.
    ///
    /// The attempt clock also runs while the service is not ready: a layer may be stuck.
    fn attempt<H>(&self, handler: H) -> impl Future<Output = Outcome> + use<H>
    where
        H: tower::Service<Delivery, Response = Outcome>,
        H::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (delivery, attempt_clock) = (self.delivery.clone(), self.attempt_clock.clone());
        let handled = async move {
            match handler.oneshot(delivery).await {
                Ok(outcome) => outcome,
                Err(error) => Outcome::Retry(HandlerError::from(error.into())),
            }
        };
        async move {
            let _running = attempt_clock.start();
            match AssertUnwindSafe(handled).catch_unwind().await {
                Ok(outcome) => outcome,
                Err(panic) => Outcome::Dead(panics::reason_of("the handler", panic)),
            }
        }
    }

    /// Classifies the outcome of an attempt.
    fn classified(&self, outcome: Outcome) -> AttemptResult {
        match Settlement::of(outcome) {
            Ok(settlement) => AttemptResult::Settled(settlement),
            Err(Outcome::Retry(error)) => {
                AttemptResult::Failed(error.into_failure(&self.shared.classifier))
            }
            Err(Outcome::Dead(reason)) => AttemptResult::Dead(reason),
            // Settlement::of has mapped successes.
            Err(Outcome::Done | Outcome::Duplicate | Outcome::Ignored) => {
                AttemptResult::Settled(Settlement::Done)
            }
        }
    }

    /// The step after a permanent failure.
    fn permanent_failure(&mut self, reason: DeadReason) -> Step {
        self.first_failure.get_or_insert_with(Timestamp::now);
        self.shared.count_failure(Class::Permanent);
        Step::DeadLetter(Class::Permanent, reason)
    }

    /// The step after a failed attempt. Reports the failure to the breakers and counts it.
    ///
    /// A timeout counts as an outage while a breaker is open for its dependency: the dependency
    /// hangs, the handler is not slow.
    fn next_step(&mut self, mut failure: Failure, evidence: Evidence) -> Step {
        self.first_failure.get_or_insert_with(Timestamp::now);
        if let Some(reason) = failure.fatal {
            self.shared.abort(reason);
            return Step::Abandon;
        }
        let class = failure.class;
        self.shared.count_failure(class);
        if self.partition.is_fenced() {
            return Step::Abandon;
        }
        let is_outage = match class {
            Class::Outage | Class::Timeout => {
                let dependency = self.report_outage(&failure, evidence);
                // A single timeout means a slow record. With an open breaker, it means an outage.
                class == Class::Outage || self.shared.breakers.is_open_for(&dependency)
            }
            Class::Transient | Class::Permanent => {
                self.shared
                    .breakers
                    .failed_without_outage(&self.delivery.record);
                false
            }
        };
        // Only failures of the same kind count: an outage uses up no attempt.
        let (failures, outage_of) = match is_outage {
            true => {
                failure.class = Class::Outage;
                let last = self.failed_by.last().cloned();
                (&mut self.outage_failures, last)
            }
            false => (&mut self.transient_failures, None),
        };
        let class = failure.class;
        *failures = failures.saturating_add(1);
        let (policy, rounds) = (&self.shared.settings.retry, self.retry_state.rounds);
        let decided = policy.decide(class, *failures, rounds, rand::random());
        match policy.apply_retry_after(decided, failure.retry_after) {
            RetryDecision::RetryAfter(delay) => {
                telemetry::attempt_failed(self.logged(), &failure, delay);
                Step::RetryAfter(delay, outage_of)
            }
            // Without a retry topic no record can be parked.
            RetryDecision::Park(delay) if self.partition.can_park() => Step::Park(failure, delay),
            RetryDecision::Park(_) | RetryDecision::DeadLetter => {
                Step::DeadLetter(class, DeadReason::new(failure.stage, failure.message))
            }
        }
    }

    /// Reports the failure to the breakers. Returns the dependency that it is attributed to.
    ///
    /// Several dependencies may fail in turn. All are kept in `failed_by`, the latest last, so that
    /// a record that is handled at last closes the breakers of all of them.
    fn report_outage(&mut self, failure: &Failure, evidence: Evidence) -> String {
        let dependency = match self.failed_by.last() {
            // A timeout names no dependency. The handler probably hangs where it failed before.
            Some(before) if failure.stage == Stage::Timeout => before.clone(),
            _ => failure.dependency.clone().into_owned(),
        };
        let known = self.failed_by.iter().position(|name| *name == dependency);
        if let Some(at) = known {
            self.failed_by.remove(at);
        }
        self.failed_by.push(dependency.clone());
        let evidence = known.map_or(evidence, |_| Evidence::RepeatedFailure);
        let (record, took) = (&self.delivery.record, self.began.elapsed());
        let shared = &self.shared;
        shared
            .breakers
            .count_outage(&dependency, record, &failure.message, took, evidence);
        dependency
    }

    /// This record in a log line.
    fn logged(&self) -> LoggedRecord<'_> {
        LoggedRecord {
            group: &self.shared.group,
            record: &self.delivery.record,
            attempts: self.attempts,
        }
    }

    /// The command that requested the skip of the record, if there is one.
    fn skip_command(&self) -> Option<Command> {
        let control = &self.shared.control;
        let is_asked = control.has_skips();
        is_asked.then(|| control.skip_of(&self.delivery.record))?
    }
}

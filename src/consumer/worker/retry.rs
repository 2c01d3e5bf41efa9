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

use crate::consumer::settings::AfterDeadLetter;
use crate::consumer::shared::Shared;
use crate::consumer::shared::breakers::{Answer, Evidence, INBOX, Probe};
use crate::consumer::shared::control::{Waiting, position};
use crate::consumer::shared::dead_letters::{DeadLetterCause, WriteError};
use crate::consumer::state::partition::Partition;
use crate::consumer::state::settlement::{Settlement, Verdict};
use crate::consumer::worker::attempt_clock::AttemptClock;
use crate::control::{Command, CommandOutcome};
use crate::event::Record;
use crate::failure::panics::{self, Guarded};
use crate::handler::{Class, DeadReason, Delivery, Failure, HandlerError, Outcome, Stage};
use crate::publisher::PublishError;
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

/// How long a probe waits for a permit. If hanging handlers hold every permit, the probe runs
/// without one.
const PROBE_PERMIT_WITHIN: Duration = Duration::from_secs(1);

/// The retry of a record, with the clock of its running attempt.
pub(crate) struct RetryFuture {
    pub(crate) future: Pin<Box<dyn Future<Output = Verdict> + Send>>,
    pub(crate) activity: AttemptClock,
}

impl RetryFuture {
    /// A retry that never ends.
    pub(crate) fn never() -> Self {
        Self {
            future: Box::pin(std::future::pending()),
            activity: AttemptClock::default(),
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
    pub(crate) wait: RetryState,
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
    activity: AttemptClock,
}

impl UnsettledRecord {
    /// The state for the retry of a record. A parked record has a ticket and its wait so far.
    pub(crate) fn new(
        shared: Arc<Shared>,
        delivery: Delivery,
        partition: Arc<Partition>,
        ticket: Option<Ticket>,
        wait: RetryState,
    ) -> Self {
        Self {
            shared,
            attempts: delivery.attempt,
            delivery,
            partition,
            ticket,
            wait,
            transient_failures: 0,
            outage_failures: 0,
            first_failure: None,
            failed_by: Vec::new(),
            began: Instant::now(),
            activity: AttemptClock::default(),
        }
    }
}

/// Parks a record behind the others of its key.
pub(crate) fn park_behind(mut recovery: UnsettledRecord) -> RetryFuture {
    let activity = recovery.activity.clone();
    let future = Box::pin(async move { recovery.park_behind().await });
    RetryFuture { future, activity }
}

/// Handles `outcome`, which is not a success. None if the first attempt is still to be made.
///
/// The handler instance is held across the retry and cloned for each attempt; a panic in its clone
/// or drop becomes an outcome.
pub(crate) fn recover<H>(
    handler: H,
    mut recovery: UnsettledRecord,
    outcome: Option<Outcome>,
) -> RetryFuture
where
    H: tower::Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
    H::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    H::Future: Send,
{
    let activity = recovery.activity.clone();
    let future = Box::pin(async move {
        let waiting = Waiting::new(&recovery.shared.control, &recovery.delivery.record);
        let mut handler = Guarded::new(handler);
        let outcome = match outcome {
            Some(outcome) => outcome,
            // The instance that waited for room holds a place in the layers' queues.
            None => match handler.replace_with_clone() {
                Ok(asked) => recovery.attempt(asked).await,
                Err(reason) => Outcome::Dead(reason),
            },
        };
        let mut ended = recovery.judged(outcome);
        let mut evidence = Evidence::OneOfMany;
        loop {
            let step = match ended {
                Ended::Settled(settlement) => {
                    if settlement == Settlement::Done {
                        recovery.shared.breakers.answered(&recovery.failed_by);
                    }
                    return Verdict::Settled(settlement);
                }
                Ended::Dead(reason) => recovery.given_up(reason),
                Ended::Failed(failure) => recovery.next_step(failure, evidence),
            };
            if !matches!(step, Step::Abandon)
                && let Some(command) = recovery.skip_command()
            {
                return recovery.skip(&command).await;
            }
            let waited = match step {
                Step::Abandon => return Verdict::Abandoned,
                Step::Park(failure, delay) => return recovery.park(&failure, delay).await,
                Step::DeadLetter(class, reason) => {
                    return recovery.dead_letter(class, &reason).await;
                }
                Step::TryAfter(delay, outage_of) => tokio::select! {
                    waited = recovery.wait(delay, outage_of.as_deref(), &waiting) => waited,
                    command = waiting.skipped() => return recovery.skip(&command).await,
                },
            };
            let Some(probe) = waited else {
                return Verdict::Abandoned;
            };
            recovery.attempts = recovery.attempts.saturating_add(1);
            recovery.delivery.attempt = recovery.attempts;
            recovery.began = Instant::now();
            let outcome = match (handler.cloned(), &probe) {
                (Ok(next), Some(probe)) => probe.watch(recovery.attempt(next)).await,
                (Ok(next), None) => recovery.attempt(next).await,
                (Err(reason), _) => Outcome::Dead(reason),
            };
            ended = recovery.judged(outcome);
            evidence = Evidence::OneOfMany;
            if let Some(probe) = probe {
                let answer = ended.answer_of(probe.dependency());
                probe.ended(answer);
                evidence = Evidence::StandsForAll;
            }
        }
    });
    RetryFuture { future, activity }
}

/// Dead-letters a record whose handler or retry panicked without an outcome. Runs no code of the
/// service.
pub(crate) fn bury(mut recovery: UnsettledRecord, reason: DeadReason) -> RetryFuture {
    let activity = recovery.activity.clone();
    let future = Box::pin(async move {
        match recovery.given_up(reason) {
            Step::DeadLetter(class, reason) => recovery.dead_letter(class, &reason).await,
            _ => Verdict::Abandoned,
        }
    });
    RetryFuture { future, activity }
}

/// Settles a record that an operator skipped, without a handler.
///
/// The write to the dead-letter topic passes no flood guard: an operator asked for it.
pub(crate) fn skip(mut recovery: UnsettledRecord, command: Box<Command>) -> RetryFuture {
    // The announced attempt is not made.
    recovery.attempts = recovery.attempts.saturating_sub(1);
    let activity = recovery.activity.clone();
    let future = Box::pin(async move { recovery.skip(&command).await });
    RetryFuture { future, activity }
}

/// The result of an attempt, without values of the service's types.
enum Ended {
    /// The handler succeeded, or recognised a duplicate, or ignored the record.
    Settled(Settlement),
    /// The handler asked for the dead-letter topic, or panicked.
    Dead(DeadReason),
    /// The attempt failed with an error that has a class.
    Failed(Failure),
}

impl Ended {
    /// The result of a probe of `dependency` that ended like this. A handler that failed otherwise
    /// had asked the dependency before. A handler that panicked may not have.
    ///
    /// What counts is whether the dependency was asked and answered, not whether the handler
    /// succeeded: a rejected payment proves that the bank is up.
    fn answer_of(&self, dependency: &str) -> Answer {
        match self {
            Self::Settled(Settlement::Done) => Answer::Yes,
            Self::Settled(Settlement::Duplicate) if dependency == INBOX => Answer::Yes,
            Self::Settled(_) => Answer::Unasked,
            Self::Failed(failure) => match (failure.class, failure.stage) {
                (Class::Outage | Class::Timeout, _) => Answer::No,
                (_, Stage::Panic) => Answer::Unasked,
                (Class::Transient | Class::Permanent, _) => Answer::Yes,
            },
            Self::Dead(reason) => match reason.stage {
                Stage::Handler => Answer::Yes,
                Stage::Timeout => Answer::No,
                _ => Answer::Unasked,
            },
        }
    }
}

/// What follows a failure.
enum Step {
    /// Wait for that time, and until the dependency answers.
    TryAfter(Duration, Option<String>),
    /// Write the record to the retry topic, and retry it after that time.
    Park(Failure, Duration),
    /// Write the record to the dead-letter topic.
    DeadLetter(Class, DeadReason),
    /// Release the record unsettled: it is redelivered.
    Abandon,
}

impl UnsettledRecord {
    /// Calls the handler once it has room. A panic becomes an outcome, also in the conversion of a
    /// layer's error or in a drop: both happen before the future is ready.
    ///
    /// The clock of the attempt runs while the service is not ready, too: a layer may be what is
    /// stuck.
    fn attempt<H>(&self, handler: H) -> impl Future<Output = Outcome> + use<H>
    where
        H: tower::Service<Delivery, Response = Outcome>,
        H::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (delivery, activity) = (self.delivery.clone(), self.activity.clone());
        let handled = async move {
            match handler.oneshot(delivery).await {
                Ok(outcome) => outcome,
                Err(error) => Outcome::Retry(HandlerError::from(error.into())),
            }
        };
        async move {
            let _runs = activity.attempt();
            match AssertUnwindSafe(handled).catch_unwind().await {
                Ok(outcome) => outcome,
                Err(panic) => Outcome::Dead(panics::reason_of("the handler", panic)),
            }
        }
    }

    /// Classifies the outcome of an attempt.
    fn judged(&self, outcome: Outcome) -> Ended {
        match Settlement::of(outcome) {
            Ok(settlement) => Ended::Settled(settlement),
            Err(Outcome::Retry(error)) => {
                Ended::Failed(error.into_failure(&self.shared.classifier))
            }
            Err(Outcome::Dead(reason)) => Ended::Dead(reason),
            // Settlement::of has mapped successes.
            Err(Outcome::Done | Outcome::Duplicate | Outcome::Ignored) => {
                Ended::Settled(Settlement::Done)
            }
        }
    }

    /// The step after a failure that no retry can mend.
    fn given_up(&mut self, reason: DeadReason) -> Step {
        self.first_failure.get_or_insert_with(Timestamp::now);
        self.shared.count_failure(Class::Permanent);
        Step::DeadLetter(Class::Permanent, reason)
    }

    /// The step after a failed attempt. Reports the failure to the breakers and counts it.
    ///
    /// A timeout counts as an outage while a breaker is open for its dependency: the handler hangs
    /// there, and is not slow.
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
                let dependency = self.blame(&failure, evidence);
                // A single timeout means a slow record. With an open breaker, it means an outage.
                class == Class::Outage || self.shared.breakers.is_open_for(&dependency)
            }
            Class::Transient | Class::Permanent => {
                self.shared.breakers.failed_otherwise(&self.delivery.record);
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
        let (policy, rounds) = (&self.shared.settings.retry, self.wait.rounds);
        let decided = policy.decide(class, *failures, rounds, rand::random());
        match policy.apply_retry_after(decided, failure.retry_after) {
            RetryDecision::RetryAfter(delay) => {
                self.log_retry(&failure, delay);
                Step::TryAfter(delay, outage_of)
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
    /// Several dependencies may fail in turn. The order of `failed_by` is kept, so that a record
    /// that is handled at last closes the breakers of all of them.
    fn blame(&mut self, failure: &Failure, evidence: Evidence) -> String {
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
        let evidence = known.map_or(evidence, |_| Evidence::KnownAlready);
        let (record, took) = (&self.delivery.record, self.began.elapsed());
        let shared = &self.shared;
        shared
            .breakers
            .outage(&dependency, record, &failure.message, took, evidence);
        dependency
    }

    /// Logs a failed attempt that is repeated in place.
    fn log_retry(&self, failure: &Failure, delay: Duration) {
        tracing::warn!(
            group = self.shared.group,
            record = ?self.delivery.record,
            attempt = self.attempts,
            class = failure.class.as_str(),
            error = failure.message,
            retry_in_ms = delay.as_millis() as u64,
            "attempt failed"
        );
    }

    /// The command that requested the skip of the record, if there is one.
    fn skip_command(&self) -> Option<Command> {
        let control = &self.shared.control;
        let is_asked = control.has_skips();
        is_asked.then(|| control.skip_of(&self.delivery.record))?
    }

    /// Settles the record as an operator requested: written to the dead-letter topic, and not
    /// handled.
    ///
    /// The acknowledgement follows the write. A member that dies in between skips again, which is
    /// the same.
    async fn skip(&self, command: &Command) -> Verdict {
        let record = &self.delivery.record;
        tracing::warn!(
            group = self.shared.group,
            record = ?record,
            command = command.id,
            by = command.by,
            why = command.why,
            "record skipped by an operator; writing it to the dead-letter topic"
        );
        let reason = DeadReason::new(
            Stage::Skipped,
            format!("skipped by {}: {}", command.by, command.why),
        );
        match self
            .write_dead_letter(Class::Permanent, &reason, Some(command))
            .await
        {
            Verdict::Settled(_) => {
                let detail = "written to the dead-letter topic and settled";
                let control = &self.shared.control;
                control.skip_ended(&position(record), CommandOutcome::Skipped, detail);
                Verdict::Settled(Settlement::Skipped)
            }
            abandoned => abandoned,
        }
    }

    /// Writes the dead letter. The record is settled only after the brokers acknowledged it.
    ///
    /// First the flood guard, then the write, then the hold of the key: a hold without its dead
    /// letter would never end.
    pub(crate) async fn dead_letter(&self, class: Class, reason: &DeadReason) -> Verdict {
        let record = &self.delivery.record;
        tracing::error!(
            group = self.shared.group,
            record = ?record,
            attempts = self.attempts,
            class = class.as_str(),
            stage = %reason.stage,
            reason = reason.message,
            "record failed for good; writing it to the dead-letter topic"
        );
        // Skips by an operator do not count as a flood.
        let writer = &self.shared.dead_letters;
        if self
            .wait_for(writer.pass_flood_guard(reason))
            .await
            .is_none()
        {
            return Verdict::Abandoned;
        }
        let written = self.write_dead_letter(class, reason, None).await;
        if written == Verdict::Settled(Settlement::Dead)
            && self.shared.settings.after_dead_letter == AfterDeadLetter::HoldKey
            && self.hold().await.is_none()
        {
            return Verdict::Abandoned;
        }
        written
    }

    /// Writes to the dead-letter topic until the brokers acknowledge it.
    ///
    /// The delay between tries follows the backoff of the policy, without an end: the record is not
    /// lost, and the member is not ready.
    async fn write_dead_letter(
        &self,
        class: Class,
        reason: &DeadReason,
        skip: Option<&Command>,
    ) -> Verdict {
        let Some(record) = self.whole_record().await else {
            return Verdict::Abandoned;
        };
        let record: &Record = &record;
        let given_up = DeadLetterCause {
            class,
            reason,
            attempts: self.attempts,
            first_failure: self.first_failure,
            skip,
        };
        let mut dead_letter = self.shared.dead_letters.pending(record, given_up);
        let backoff = self.shared.settings.retry.backoff;
        let mut tries = 0_u32;
        loop {
            match dead_letter.write().await {
                Ok(()) => break,
                Err(WriteError::Publish(error @ PublishError::Fatal(_))) => {
                    self.shared.abort(error.to_string());
                    return Verdict::Abandoned;
                }
                Err(error) => {
                    self.shared.group_topics_check.notify_one();
                    tracing::error!(
                        group = self.shared.group,
                        record = ?record,
                        %error,
                        "the dead letter cannot be written; the record stays unsettled and the write is retried"
                    )
                }
            }
            tries = tries.saturating_add(1);
            let delay = backoff.delay(tries, rand::random());
            if self.wait_for(tokio::time::sleep(delay)).await.is_none() {
                return Verdict::Abandoned;
            }
        }
        Verdict::Settled(Settlement::Dead)
    }

    /// Waits until the next attempt may be made. Returns a probe if the attempt tests a dependency
    /// that is down. None if the partition was revoked.
    ///
    /// Returns only when three things hold: the delay is over or an operator does not want to wait,
    /// no breaker forbids the attempt, and a permit was taken back (a probe waits a second for it).
    async fn wait(
        &self,
        delay: Duration,
        outage_of: Option<&str>,
        waiting: &Waiting,
    ) -> Option<Option<Probe>> {
        let shared = &self.shared;
        let is_down = outage_of.is_some_and(|dependency| shared.breakers.is_open_for(dependency));
        // The breaker decides when the dependency is tried again.
        let mut delay = if is_down { Duration::ZERO } else { delay };
        loop {
            let lent = shared.permits.lend();
            let waited = async {
                waiting.unless_retried(tokio::time::sleep(delay)).await;
                let probe = shared.breakers.may_try(outage_of).await;
                let permit = lent.take_back();
                match probe {
                    // It runs even without a permit.
                    Some(_) => drop(tokio::time::timeout(PROBE_PERMIT_WITHIN, permit).await),
                    None => permit.await,
                }
                probe
            };
            let probe = tokio::select! {
                probe = waited => probe,
                () = self.partition.fenced() => return None,
            };
            // A breaker may have opened while the record waited for its permit.
            if probe.is_some() || !shared.breakers.is_open() {
                return Some(probe);
            }
            delay = Duration::ZERO;
        }
    }

    /// Waits for `until` and lends its permit to other handlers meanwhile. None if the partition
    /// was revoked.
    ///
    /// The permit is taken back after `until`: a result that is ready may wait for a permit.
    pub(crate) async fn wait_for<T>(&self, until: impl Future<Output = T>) -> Option<T> {
        let lent = self.shared.permits.lend();
        let waited = async {
            let value = until.await;
            lent.take_back().await;
            value
        };
        tokio::select! {
            value = waited => Some(value),
            () = self.partition.fenced() => None,
        }
    }
}

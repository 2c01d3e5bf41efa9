//! What happens to a record whose attempt failed: wait and try again, park it, or dead-letter it.
//!
//! Runs beside the record's lane, which waits meanwhile. Ends without settling when the record's partition is fenced.

use super::activity::Activity;
use super::breakers::{Answer, Evidence, INBOX, Probe};
use super::control::{Waiting, position};
use super::dead::{GivenUp, WriteError};
use super::engine::Engine;
use super::partition::Partition;
use super::settings::AfterDeadLetter;
use super::tally::{Settlement, Verdict};
use crate::control::{Command, Outcome as CommandOutcome};
use crate::event::Record;
use crate::handler::panics::{self, Guarded};
use crate::handler::{Class, DeadReason, Delivery, Failure, HandlerError, Outcome, Stage};
use crate::publisher::PublishError;
use crate::recovery::Decision;
use crate::recovery::parked::Wait;
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

/// How long a probe waits for a permit: handlers that hang may hold every one, and then it runs beside them.
const PROBE_PERMIT_WITHIN: Duration = Duration::from_secs(1);

/// A record's recovery, and what it does at present.
pub(crate) struct Recovering {
    pub(super) future: Pin<Box<dyn Future<Output = Verdict> + Send>>,
    pub(super) activity: Activity,
}

impl Recovering {
    /// One that never ends.
    pub(crate) fn never() -> Self {
        Self {
            future: Box::pin(std::future::pending()),
            activity: Activity::default(),
        }
    }
}

/// A record, and what is known of its way so far.
pub(crate) struct Recovery {
    pub(super) engine: Arc<Engine>,
    pub(super) delivery: Delivery,
    pub(super) partition: Arc<Partition>,
    /// Its place in the retry partition, if it is parked.
    pub(super) ticket: Option<Ticket>,
    pub(super) wait: Wait,
    /// Attempts made, by whatever class they failed.
    pub(super) attempts: u32,
    transient_failures: u32,
    outage_failures: u32,
    /// When an attempt failed first.
    first_failure: Option<Timestamp>,
    /// What it failed by, the last at the end.
    failed_by: Vec<String>,
    /// When the last attempt began.
    pub(super) began: Instant,
    activity: Activity,
}

impl Recovery {
    /// The recovery of a record; a parked one has a ticket, and its wait until now.
    pub(crate) fn new(
        engine: Arc<Engine>,
        delivery: Delivery,
        partition: Arc<Partition>,
        ticket: Option<Ticket>,
        wait: Wait,
    ) -> Self {
        Self {
            engine,
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
            activity: Activity::default(),
        }
    }
}

/// Parks a record behind the others of its key.
pub(crate) fn park_behind(mut recovery: Recovery) -> Recovering {
    let activity = recovery.activity.clone();
    let future = Box::pin(async move { recovery.park_behind().await });
    Recovering { future, activity }
}

/// Recovers from `outcome`, which is not a success; none for a record whose first attempt is still to be made.
pub(crate) fn recover<H>(handler: H, mut recovery: Recovery, outcome: Option<Outcome>) -> Recovering
where
    H: tower::Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
    H::Error: Into<Box<dyn Error + Send + Sync>> + Send,
    H::Future: Send,
{
    let activity = recovery.activity.clone();
    let future = Box::pin(async move {
        let waiting = Waiting::new(&recovery.engine, &recovery.delivery.record);
        let mut handler = Guarded::new(handler);
        let outcome = match outcome {
            Some(outcome) => outcome,
            // Which instance waited for room matters to the layers that gave it a place in their queue.
            None => match handler.exchanged() {
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
                        recovery.engine.answered(&recovery.failed_by);
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
    Recovering { future, activity }
}

/// Gives up a record whose handler, or whose recovery, panicked in a way that left no outcome. Runs none of the service's code.
pub(crate) fn bury(mut recovery: Recovery, reason: DeadReason) -> Recovering {
    let activity = recovery.activity.clone();
    let future = Box::pin(async move {
        match recovery.given_up(reason) {
            Step::DeadLetter(class, reason) => recovery.dead_letter(class, &reason).await,
            _ => Verdict::Abandoned,
        }
    });
    Recovering { future, activity }
}

/// Settles a record that an operator has skipped, without a handler.
pub(crate) fn skip(mut recovery: Recovery, command: Box<Command>) -> Recovering {
    // The attempt that it stands before is not made.
    recovery.attempts = recovery.attempts.saturating_sub(1);
    let activity = recovery.activity.clone();
    let future = Box::pin(async move { recovery.skip(&command).await });
    Recovering { future, activity }
}

/// How an attempt ended, without anything of the service in it.
enum Ended {
    Settled(Settlement),
    Dead(DeadReason),
    Failed(Failure),
}

impl Ended {
    /// What this says of `dependency`, which the record was to try. Whatever a handler found wrong with a record that had failed by
    /// it before, it found out after asking; one that panicked may not have got there.
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

enum Step {
    /// After that time, and when what is down answers.
    TryAfter(Duration, Option<String>),
    Park(Failure, Duration),
    DeadLetter(Class, DeadReason),
    Abandon,
}

impl Recovery {
    /// Calls the handler once it has room. A panic is an outcome, be it in the conversion of a layer's error or in a drop: both
    /// happen before this is ready.
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
                Err(panic) => Outcome::Dead(panics::told("the handler", panic)),
            }
        }
    }

    fn judged(&self, outcome: Outcome) -> Ended {
        match Settlement::of(outcome) {
            Ok(settlement) => Ended::Settled(settlement),
            Err(Outcome::Retry(error)) => Ended::Failed(error.judged(&self.engine.classifier)),
            Err(Outcome::Dead(reason)) => Ended::Dead(reason),
            // Successes were sorted out before.
            Err(Outcome::Done | Outcome::Duplicate | Outcome::Ignored) => {
                Ended::Settled(Settlement::Done)
            }
        }
    }

    fn given_up(&mut self, reason: DeadReason) -> Step {
        self.first_failure.get_or_insert_with(Timestamp::now);
        self.engine.failed(Class::Permanent);
        Step::DeadLetter(Class::Permanent, reason)
    }

    fn next_step(&mut self, mut failure: Failure, evidence: Evidence) -> Step {
        self.first_failure.get_or_insert_with(Timestamp::now);
        if let Some(reason) = failure.fatal {
            self.engine.fail(reason);
            return Step::Abandon;
        }
        let class = failure.class;
        self.engine.failed(class);
        if self.partition.is_fenced() {
            return Step::Abandon;
        }
        let is_outage = match class {
            Class::Outage | Class::Timeout => {
                let dependency = self.blame(&failure, evidence);
                // One that was too slow alone is slow; where all are, something is down.
                class == Class::Outage || self.engine.breakers.is_open_for(&dependency)
            }
            Class::Transient | Class::Permanent => {
                self.engine.failed_otherwise(&self.delivery.record);
                false
            }
        };
        // Only failures of their own kind count: an outage spends no attempt.
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
        let (policy, rounds) = (&self.engine.settings.retry, self.wait.rounds);
        match policy.decide(class, *failures, rounds, rand::random()) {
            Decision::RetryAfter(delay) => {
                self.log_retry(&failure, delay);
                Step::TryAfter(delay, outage_of)
            }
            // Without a retry topic nothing can be parked.
            Decision::Park(delay) if self.partition.can_park() => Step::Park(failure, delay),
            Decision::Park(_) | Decision::DeadLetter => {
                Step::DeadLetter(class, DeadReason::new(failure.stage, failure.message))
            }
        }
    }

    /// Tells the breakers what the attempt failed by, and returns that.
    fn blame(&mut self, failure: &Failure, evidence: Evidence) -> String {
        let dependency = match self.failed_by.last() {
            // A handler that was cut off names nothing: it may well hang where it failed before.
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
        let engine = &self.engine;
        engine.outage(&dependency, record, &failure.message, took, evidence);
        dependency
    }

    fn log_retry(&self, failure: &Failure, delay: Duration) {
        tracing::warn!(
            group = self.engine.group,
            record = ?self.delivery.record,
            attempt = self.attempts,
            class = failure.class.as_str(),
            error = failure.message,
            retry_in_ms = delay.as_millis() as u64,
            "attempt failed"
        );
    }

    /// The command that has the record skipped, if one does.
    fn skip_command(&self) -> Option<Command> {
        let control = &self.engine.control;
        let is_asked = control.has_skips();
        is_asked.then(|| control.skip_of(&self.delivery.record))?
    }

    /// Has the record settled as an operator wants it: written to the dead-letter topic, and not handled.
    async fn skip(&self, command: &Command) -> Verdict {
        let record = &self.delivery.record;
        tracing::warn!(
            group = self.engine.group,
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
            .write_letter(Class::Permanent, &reason, Some(command))
            .await
        {
            Verdict::Settled(_) => {
                let detail = "written to the dead-letter topic and settled";
                let control = &self.engine.control;
                control.skip_ended(&position(record), CommandOutcome::Skipped, detail);
                Verdict::Settled(Settlement::Skipped)
            }
            abandoned => abandoned,
        }
    }

    /// Writes the dead letter; the record is settled only when the brokers have acknowledged it.
    pub(super) async fn dead_letter(&self, class: Class, reason: &DeadReason) -> Verdict {
        let record = &self.delivery.record;
        tracing::error!(
            group = self.engine.group,
            record = ?record,
            attempts = self.attempts,
            class = class.as_str(),
            stage = %reason.stage,
            reason = reason.message,
            "record failed for good; writing it to the dead-letter topic"
        );
        // What an operator has skipped is no flood.
        let writer = &self.engine.dead_letters;
        if self
            .wait_for(writer.pass_flood_guard(reason))
            .await
            .is_none()
        {
            return Verdict::Abandoned;
        }
        let written = self.write_letter(class, reason, None).await;
        if written == Verdict::Settled(Settlement::Dead)
            && self.engine.settings.after_dead_letter == AfterDeadLetter::HoldKey
            && self.hold().await.is_none()
        {
            return Verdict::Abandoned;
        }
        written
    }

    /// Writes to the dead-letter topic, again and again until the brokers have it.
    async fn write_letter(
        &self,
        class: Class,
        reason: &DeadReason,
        skip: Option<&Command>,
    ) -> Verdict {
        let Some(record) = self.whole_record().await else {
            return Verdict::Abandoned;
        };
        let record: &Record = &record;
        let given_up = GivenUp {
            class,
            reason,
            attempts: self.attempts,
            first_failure: self.first_failure,
            skip,
        };
        let mut letter = self.engine.dead_letters.letter(record, given_up);
        let backoff = self.engine.settings.retry.backoff;
        let mut tries = 0_u32;
        loop {
            match letter.write().await {
                Ok(()) => break,
                Err(WriteError::Publish(error @ PublishError::Fatal(_))) => {
                    self.engine.fail(error.to_string());
                    return Verdict::Abandoned;
                }
                Err(error) => {
                    self.engine.own_topics_asked.notify_one();
                    tracing::error!(group = self.engine.group, record = ?record, %error, "the dead letter cannot be written; the record stays unsettled and is tried again")
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

    /// Waits until the next attempt may be made; none when the partition went. It may be the one that finds out whether what
    /// is down answers.
    async fn wait(
        &self,
        delay: Duration,
        outage_of: Option<&str>,
        waiting: &Waiting,
    ) -> Option<Option<Probe>> {
        let engine = &self.engine;
        let is_down = outage_of.is_some_and(|dependency| engine.breakers.is_open_for(dependency));
        // The breaker knows better when to try again.
        let mut delay = if is_down { Duration::ZERO } else { delay };
        loop {
            let lent = engine.permits.lend();
            let waited = async {
                waiting.unless_retried(tokio::time::sleep(delay)).await;
                let probe = engine.may_try(outage_of).await;
                let permit = lent.take_back();
                match probe {
                    // Without one it runs all the same.
                    Some(_) => drop(tokio::time::timeout(PROBE_PERMIT_WITHIN, permit).await),
                    None => permit.await,
                }
                probe
            };
            let probe = tokio::select! {
                probe = waited => probe,
                () = self.partition.fenced() => return None,
            };
            // One may have opened while this record waited for its permit.
            if probe.is_some() || !engine.breakers.is_open() {
                return Some(probe);
            }
            delay = Duration::ZERO;
        }
    }

    /// Waits for `until`, and lets other handlers run meanwhile; none when the partition went.
    pub(super) async fn wait_for<T>(&self, until: impl Future<Output = T>) -> Option<T> {
        let lent = self.engine.permits.lend();
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

//! Writes parked records and the notes about them.
//!
//! A write that fails is tried again until the brokers take it or the partition goes: a record counts as parked only when
//! it stands in the retry topic. A record that the brokers do not take for what it is, such as one that is larger than the
//! retry topic takes, is dead-lettered: no further try would succeed.

use super::super::dead::{WriteError, told};
use super::super::engine::Engine;
use super::super::recover::Recovery;
use super::super::tally::{Settlement, Verdict};
use super::clock::steady_ms;
use super::order_name;
use crate::event::{OutgoingRecord, Record};
use crate::handler::{Class, DeadReason, Failure, Stage};
use crate::publisher::PublishError;
use crate::recovery::RepetitionOutcome;
use crate::recovery::parked::{self, Reason, Wait, repetition};
use crate::recovery::parking::Ticket;
use jiff::Timestamp;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The component under which a retry topic that cannot be written shows in the health.
const COMPONENT: &str = "retry_topics";

pub(crate) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Notes for a drill how its repetition was settled. Nothing waits for that: where it cannot be written the drill has no answer,
/// which it says.
pub(crate) fn tell_drill(
    engine: Arc<Engine>,
    record: Record,
    ticket: Ticket,
    settlement: Settlement,
) {
    let outcome = match settlement {
        Settlement::Duplicate => RepetitionOutcome::Duplicate,
        Settlement::Done => RepetitionOutcome::Done,
        Settlement::Ignored => RepetitionOutcome::Ignored,
        Settlement::Dead => RepetitionOutcome::Dead,
        Settlement::Skipped => RepetitionOutcome::Skipped,
        // What is parked already stays where it is.
        Settlement::Parked => return,
    };
    let note = repetition::answer(&engine.group, &record, ticket.offset, outcome);
    tokio::spawn(async move {
        if let Err(error) = engine.dead_letters.send(note).await {
            tracing::warn!(group = engine.group, ?record, %outcome, %error, "a drill cannot be told how its repetition was settled");
        }
    });
}

impl Recovery {
    /// Parks a record of the source topic behind the others of its key.
    pub(crate) async fn park_behind(&mut self) -> Verdict {
        let Some(record) = self.whole_record().await else {
            return Verdict::Abandoned;
        };
        let now_ms = now_ms();
        let entry = || parked::parked(&self.engine.group, &record, Wait::default(), None, now_ms);
        match self.write(entry).await {
            Written::Acknowledged => Verdict::Settled(Settlement::Parked),
            Written::Abandoned => Verdict::Abandoned,
            Written::Refused(cause) => {
                self.forget_entry();
                // The attempt that it stands before is not made.
                self.attempts = self.attempts.saturating_sub(1);
                let message = format!(
                    "records of its key wait in the retry topic, and it cannot wait behind them: {cause}"
                );
                let reason = DeadReason::new(Stage::Handler, message);
                self.dead_letter(Class::Permanent, &reason).await
            }
        }
    }

    /// A record that was to be written to the retry topic does not come.
    fn forget_entry(&self) {
        let record = &self.delivery.record;
        if let Some(retry) = &self.partition.retry
            && let Some(name) = order_name(&self.engine.settings, record.key())
        {
            retry.change(|state| state.not_written(name, record.offset()));
        }
    }

    /// Parks a record that failed, until `delay` is over; or again, if it is parked already.
    pub(crate) async fn park(&self, failure: &Failure, delay: Duration) -> Verdict {
        let (record, group) = (&self.delivery.record, &self.engine.group);
        let reason = Reason {
            class: failure.class,
            message: &failure.message,
        };
        let now_ms = now_ms();
        let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        let wait = Wait {
            rounds: self.wait.rounds.saturating_add(1),
            attempts: self.attempts,
            not_before_ms: now_ms.saturating_add(delay_ms),
        };
        tracing::warn!(
            group,
            record = ?record,
            attempts = self.attempts,
            class = failure.class.as_str(),
            error = failure.message,
            retry_in_s = delay.as_secs(),
            "attempts failed; the record is parked, and its key waits"
        );
        let (written, verdict) = match self.ticket {
            Some(ticket) => {
                let of = ticket.offset;
                let note = || parked::failed_again(group, record, of, wait, reason, now_ms);
                let here = Wait {
                    not_before_ms: steady_ms().saturating_add(delay_ms),
                    ..wait
                };
                (self.write(note).await, Verdict::PutBack(here))
            }
            None => {
                let name = order_name(&self.engine.settings, record.key());
                if let Some(retry) = &self.partition.retry {
                    retry.change(|state| state.begin(name, record.offset()));
                }
                let Some(record) = self.whole_record().await else {
                    return Verdict::Abandoned;
                };
                let entry = || parked::parked(group, &record, wait, Some(reason), now_ms);
                let verdict = Verdict::Settled(Settlement::Parked);
                (self.write(entry).await, verdict)
            }
        };
        match written {
            Written::Acknowledged => verdict,
            Written::Abandoned => Verdict::Abandoned,
            Written::Refused(cause) => {
                if self.ticket.is_none() {
                    self.forget_entry();
                }
                let message = format!("{} (it cannot be parked: {cause})", failure.message);
                let reason = DeadReason::new(failure.stage, message);
                self.dead_letter(failure.class, &reason).await
            }
        }
    }

    /// The record is a dead letter: holds its key, so that later records wait for its replay. None when the partition went.
    pub(crate) async fn hold(&self) -> Option<()> {
        let record = &self.delivery.record;
        let name = order_name(&self.engine.settings, record.key());
        let retry = self.partition.retry.as_ref();
        let (Some(retry), Some(name)) = (retry.filter(|retry| retry.can_park()), name) else {
            return Some(());
        };
        retry.change(|state| state.begin_hold(name, record.offset()));
        let now_ms = now_ms();
        let note = || parked::held(&self.engine.group, record, now_ms);
        match self.write(note).await {
            Written::Acknowledged => Some(()),
            Written::Abandoned => None,
            Written::Refused(cause) => {
                tracing::error!(group = self.engine.group, record = ?record, cause, "the key cannot be held for the replay of its dead letter; its later records go on");
                retry.change(|state| state.not_held(name, record.offset()));
                Some(())
            }
        }
    }

    /// Writes to the retry topic until the brokers have acknowledged or refused it, or the partition went. The record is made
    /// anew for each try: no copy of it is held while it waits.
    async fn write(&self, record: impl Fn() -> OutgoingRecord) -> Written {
        let backoff = self.engine.settings.retry.backoff;
        let mut alarm = None;
        let mut tries = 0_u32;
        loop {
            let record = record();
            let topic = record.topic.clone();
            match self.engine.dead_letters.send(record).await {
                Ok(()) => return Written::Acknowledged,
                Err(WriteError::Publish(error @ PublishError::Fatal(_))) => {
                    self.engine.fail(error.to_string());
                    return Written::Abandoned;
                }
                Err(WriteError::Publish(
                    error @ (PublishError::TooLarge { .. } | PublishError::Unfit { .. }),
                )) => {
                    tracing::error!(group = self.engine.group, record = ?self.delivery.record, topic, %error, "the retry topic does not take it");
                    return Written::Refused(error.to_string());
                }
                Err(error) => {
                    tracing::error!(group = self.engine.group, record = ?self.delivery.record, topic, %error, "the record cannot be parked; it stays unsettled and is tried again");
                    self.engine.own_topics_asked.notify_one();
                    let error = told(&self.engine.group, &error);
                    let reason = format!("the retry topic {topic} cannot be written: {error}");
                    alarm
                        .get_or_insert_with(|| Alarm::new(&self.engine))
                        .tell(reason);
                }
            }
            tries = tries.saturating_add(1);
            let delay = backoff.delay(tries, rand::random());
            if self.wait_for(tokio::time::sleep(delay)).await.is_none() {
                return Written::Abandoned;
            }
        }
    }
}

/// What came of a write to the retry topic.
enum Written {
    Acknowledged,
    /// The partition went.
    Abandoned,
    /// The brokers take others, and not this one.
    Refused(String),
}

/// A record that waits for its retry topic to be writable. The health says so until none does.
struct Alarm<'a>(&'a Engine);

impl<'a> Alarm<'a> {
    fn new(engine: &'a Engine) -> Self {
        engine.parking.unwritten.fetch_add(1, Relaxed);
        Self(engine)
    }

    fn tell(&self, reason: String) {
        self.0.health.set_ready(COMPONENT, Err(reason));
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if self.0.parking.unwritten.fetch_sub(1, Relaxed) == 1 {
            self.0.health.set_ready(COMPONENT, Ok(()));
        }
    }
}

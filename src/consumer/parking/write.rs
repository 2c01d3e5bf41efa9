//! Writes parked records and the notes about them.
//!
//! A write that fails is tried again until the brokers take it or the partition goes: a record counts as parked only when
//! it stands in the retry topic.

use super::super::dead::WriteError;
use super::super::engine::Engine;
use super::super::recover::Recovery;
use super::super::tally::{Settlement, Verdict};
use super::clock::steady_ms;
use super::order_name;
use crate::event::{OutgoingRecord, Record};
use crate::handler::Failure;
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
    pub(crate) async fn park_behind(&self) -> Verdict {
        let record = &self.delivery.record;
        let (group, now_ms) = (&self.engine.group, now_ms());
        self.parked(|| parked::parked(group, record, Wait::default(), None, now_ms))
            .await
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
        let Some(ticket) = self.ticket else {
            let name = order_name(&self.engine.settings, record.key());
            if let Some(retry) = &self.partition.retry {
                retry.change(|state| state.begin(name, record.offset()));
            }
            return self
                .parked(|| parked::parked(group, record, wait, Some(reason), now_ms))
                .await;
        };
        let note = || parked::failed_again(group, record, ticket.offset, wait, reason, now_ms);
        let here = Wait {
            not_before_ms: steady_ms().saturating_add(delay_ms),
            ..wait
        };
        match self.write(note).await {
            Some(()) => Verdict::PutBack(here),
            None => Verdict::Abandoned,
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
        self.write(|| parked::held(&self.engine.group, record, now_ms))
            .await
    }

    async fn parked(&self, record: impl Fn() -> OutgoingRecord) -> Verdict {
        match self.write(record).await {
            Some(()) => Verdict::Settled(Settlement::Parked),
            None => Verdict::Abandoned,
        }
    }

    /// Writes to the retry topic until the brokers have acknowledged it; none when the partition went. The record is made anew
    /// for each try: no copy of it is held while it waits.
    async fn write(&self, record: impl Fn() -> OutgoingRecord) -> Option<()> {
        let backoff = self.engine.settings.retry.backoff;
        let mut alarm = None;
        let mut tries = 0_u32;
        loop {
            let record = record();
            let topic = record.topic.clone();
            match self.engine.dead_letters.send(record).await {
                Ok(()) => return Some(()),
                Err(WriteError::Publish(error @ PublishError::Fatal(_))) => {
                    self.engine.fail(error.to_string());
                    return None;
                }
                Err(error) => {
                    tracing::error!(group = self.engine.group, record = ?self.delivery.record, topic, %error, "the record cannot be parked; it stays unsettled and is tried again");
                    let reason = format!("the retry topic {topic} cannot be written: {error}");
                    alarm
                        .get_or_insert_with(|| Alarm::new(&self.engine))
                        .tell(reason);
                }
            }
            tries = tries.saturating_add(1);
            let delay = backoff.delay(tries, rand::random());
            self.wait_for(tokio::time::sleep(delay)).await?;
        }
    }
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

//! Writes records, and notes about them, to the retry topic.
//!
//! A failed write is repeated until the brokers acknowledge it or the partition is revoked: a
//! record counts as parked only after it was written. A record that the brokers refuse, such as one
//! larger than the topic allows, is dead-lettered.
//!
//! # Order of steps
//!
//! The parked set learns of a record before it is written
//! ([`ParkedSet`](crate::recovery::parking::ParkedSet): `begin` or `begin_if_waiting`), and cancels
//! it if the write is refused. So a later record of the key that arrives meanwhile is parked behind
//! it, and never handled before it. The source offset is settled after the acknowledgement: a crash
//! in between leaves the record in both topics, and the inbox recognises the second delivery.
//!
//! # Example
//!
//! Records 10, 11 and 12 of one key arrive; 10 keeps failing:
//!
//! | source | retry topic | source offset may pass |
//! |---|---|---|
//! | 10 fails for the last time in place | 0: record 10, due in 10 s | 10 |
//! | 11 starts: its key waits | 1: record 11, due after the one before | 11 |
//! | 12 the same | 2: record 12 | 12 |
//! | | 3: note, offset 0 failed again, due in 1 min | |
//! | | offset 0 is handled, then 1, then 2 | |
//!
//! A restart reads the retry topic from its committed offset and finds the same set.

use crate::consumer::shared::Shared;
use crate::consumer::shared::clock::{now_ms, steady_ms};
use crate::consumer::shared::dead_letters::{WriteError, describe_write_error};
use crate::consumer::state::ordering_key::ordering_key;
use crate::consumer::state::settlement::{Settlement, Verdict};
use crate::consumer::worker::retry::{UnsettledRecord, telemetry};
use crate::event::OutgoingRecord;
use crate::handler::{Class, DeadReason, Failure, Stage};
use crate::publisher::PublishError;
use crate::recovery::parked::{self, Reason, RetryState};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The health component of a retry topic that cannot be written.
const COMPONENT: &str = "retry_topics";

impl UnsettledRecord {
    /// Parks a record of the source topic behind the others of its key.
    ///
    /// No attempt was made, so that the entry has no failure, and is due as soon as the records
    /// before it are settled.
    pub(crate) async fn park_behind(&mut self) -> Verdict {
        let Some(record) = self.record_with_headers().await else {
            return Verdict::Abandoned;
        };
        let now_ms = now_ms();
        let entry = || {
            parked::parked(
                &self.shared.group,
                &record,
                RetryState::default(),
                None,
                now_ms,
            )
        };
        match self.write_entry(entry).await {
            WriteResult::Acknowledged => Verdict::Settled(Settlement::Parked),
            WriteResult::Abandoned => Verdict::Abandoned,
            WriteResult::Refused(cause) => {
                self.cancel_entry();
                // The announced attempt is not made.
                self.attempts = self.attempts.saturating_sub(1);
                let message = format!(
                    "records of its key wait in the retry topic, and it cannot wait behind them: {cause}"
                );
                let reason = DeadReason::new(Stage::Handler, message);
                self.dead_letter(Class::Permanent, &reason).await
            }
        }
    }

    /// Cancels the announced write of a record to the retry topic.
    ///
    /// Without it later records of the key would wait for an entry that never comes.
    fn cancel_entry(&self) {
        let record = &self.delivery.record;
        if let Some(retry) = &self.partition.retry
            && let Some(name) = ordering_key(&self.shared.settings, record.key())
        {
            retry.change(|state| state.not_written(name, record.offset()));
        }
    }

    /// Parks a failed record for `delay`, or again if it is parked already.
    ///
    /// A record of the source topic is written as a whole. A parked record gets a note that refers
    /// to it by its offset in the retry topic, since it is there already.
    pub(crate) async fn park(&self, failure: &Failure, delay: Duration) -> Verdict {
        let (record, group) = (&self.delivery.record, &self.shared.group);
        let reason = Reason {
            class: failure.class,
            message: &failure.message,
        };
        let now_ms = now_ms();
        let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        let retry_state = RetryState {
            rounds: self.retry_state.rounds.saturating_add(1),
            attempts: self.attempts,
            not_before_ms: now_ms.saturating_add(delay_ms),
        };
        telemetry::record_parked(self.logged(), failure, delay);
        let (written, verdict) = match self.ticket {
            Some(ticket) => {
                let of = ticket.offset;
                let note = || parked::failed_again(group, record, of, retry_state, reason, now_ms);
                let here = RetryState {
                    not_before_ms: steady_ms().saturating_add(delay_ms),
                    ..retry_state
                };
                (self.write_entry(note).await, Verdict::PutBack(here))
            }
            None => {
                let name = ordering_key(&self.shared.settings, record.key());
                if let Some(retry) = &self.partition.retry {
                    retry.change(|state| state.begin(name, record.offset()));
                }
                let Some(record) = self.record_with_headers().await else {
                    return Verdict::Abandoned;
                };
                let entry = || parked::parked(group, &record, retry_state, Some(reason), now_ms);
                let verdict = Verdict::Settled(Settlement::Parked);
                (self.write_entry(entry).await, verdict)
            }
        };
        match written {
            WriteResult::Acknowledged => verdict,
            WriteResult::Abandoned => Verdict::Abandoned,
            WriteResult::Refused(cause) => {
                if self.ticket.is_none() {
                    self.cancel_entry();
                }
                let message = format!("{} (it cannot be parked: {cause})", failure.message);
                let reason = DeadReason::new(failure.stage, message);
                self.dead_letter(failure.class, &reason).await
            }
        }
    }

    /// Holds the key of a dead-lettered record until its replay: later records of the key wait.
    /// None if the partition was revoked.
    pub(crate) async fn hold_key(&self) -> Option<()> {
        let record = &self.delivery.record;
        let name = ordering_key(&self.shared.settings, record.key());
        let retry = self.partition.retry.as_ref();
        let (Some(retry), Some(name)) = (retry.filter(|retry| retry.can_park()), name) else {
            return Some(());
        };
        retry.change(|state| state.begin_hold(name, record.offset()));
        let now_ms = now_ms();
        let note = || parked::held(&self.shared.group, record, now_ms);
        match self.write_entry(note).await {
            WriteResult::Acknowledged => Some(()),
            WriteResult::Abandoned => None,
            WriteResult::Refused(cause) => {
                telemetry::key_not_held(self.logged(), &cause);
                retry.change(|state| state.not_held(name, record.offset()));
                Some(())
            }
        }
    }

    /// Writes to the retry topic until the brokers acknowledge or refuse it, or the partition is
    /// revoked.
    ///
    /// `record` is called for each try, so that no copy of a large record is kept during an outage
    /// of the brokers.
    async fn write_entry(&self, record: impl Fn() -> OutgoingRecord) -> WriteResult {
        let backoff = self.shared.settings.retry.backoff;
        let mut alarm = None;
        let mut tries = 0_u32;
        loop {
            let record = record();
            let topic = record.topic.clone();
            match self.shared.dead_letters.send(record).await {
                Ok(()) => return WriteResult::Acknowledged,
                Err(WriteError::Publish(error @ PublishError::Fatal(_))) => {
                    self.shared.abort(error.to_string());
                    return WriteResult::Abandoned;
                }
                Err(WriteError::Publish(
                    error @ (PublishError::TooLarge { .. } | PublishError::Unfit { .. }),
                )) => {
                    telemetry::entry_refused(self.logged(), &topic, &error);
                    return WriteResult::Refused(error.to_string());
                }
                Err(error) => {
                    telemetry::entry_not_written(self.logged(), &topic, &error);
                    self.shared.group_topics_check.notify_one();
                    let error = describe_write_error(&self.shared.group, &error);
                    let reason = format!("the retry topic {topic} cannot be written: {error}");
                    alarm
                        .get_or_insert_with(|| Alarm::new(&self.shared))
                        .report(reason);
                }
            }
            tries = tries.saturating_add(1);
            let delay = backoff.delay(tries, rand::random());
            if self.wait_for(tokio::time::sleep(delay)).await.is_none() {
                return WriteResult::Abandoned;
            }
        }
    }
}

/// The result of a write to the retry topic.
enum WriteResult {
    /// The brokers have it, in all in-sync replicas.
    Acknowledged,
    /// The partition was revoked.
    Abandoned,
    /// The brokers refuse this record, but accept others.
    Refused(String),
}

/// Counts a record that waits until its retry topic can be written. The health reports it until
/// none waits.
///
/// Its count, not the last result, decides when the health is ready again: several records may wait
/// for different topics.
struct Alarm<'a>(&'a Shared);

impl<'a> Alarm<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.retry_topics.unwritten.fetch_add(1, Relaxed);
        Self(shared)
    }

    /// Sets the reason in the health. The latest failure is shown.
    fn report(&self, reason: String) {
        self.0.health.set_ready(COMPONENT, Err(reason));
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if self.0.retry_topics.unwritten.fetch_sub(1, Relaxed) == 1 {
            self.0.health.set_ready(COMPONENT, Ok(()));
        }
    }
}

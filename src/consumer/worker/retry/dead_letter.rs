//! Writes the dead letter of a record that failed for good, or that an operator skipped.

use crate::consumer::settings::AfterDeadLetter;
use crate::consumer::shared::control::position;
use crate::consumer::shared::dead_letters::{DeadLetterCause, WriteError};
use crate::consumer::state::settlement::{Settlement, Verdict};
use crate::consumer::worker::retry::{UnsettledRecord, telemetry};
use crate::control::{Command, CommandOutcome};
use crate::event::Record;
use crate::handler::{Class, DeadReason, Stage};
use crate::publisher::PublishError;

impl UnsettledRecord {
    /// Dead-letters the record without handling it, as an operator requested.
    ///
    /// The command is acknowledged after the write. If the member dies in between, the next one
    /// skips the record again.
    pub(super) async fn skip(&self, command: &Command) -> Verdict {
        let record = &self.delivery.record;
        telemetry::record_skipped(self.logged(), command);
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
    /// The order is: flood guard, write, hold of the key. A hold without its dead letter would
    /// never end.
    pub(crate) async fn dead_letter(&self, class: Class, reason: &DeadReason) -> Verdict {
        telemetry::record_dead(self.logged(), class, reason);
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
            && self.hold_key().await.is_none()
        {
            return Verdict::Abandoned;
        }
        written
    }

    /// Writes to the dead-letter topic until the brokers acknowledge it.
    ///
    /// Tries for ever, with the backoff of the retry policy. Meanwhile the record is unsettled and
    /// the member is not ready.
    async fn write_dead_letter(
        &self,
        class: Class,
        reason: &DeadReason,
        skip: Option<&Command>,
    ) -> Verdict {
        let Some(record) = self.record_with_headers().await else {
            return Verdict::Abandoned;
        };
        let record: &Record = &record;
        let cause = DeadLetterCause {
            class,
            reason,
            attempts: self.attempts,
            first_failure: self.first_failure,
            skip,
        };
        let mut dead_letter = self.shared.dead_letters.pending(record, cause);
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
                    telemetry::dead_letter_not_written(self.logged(), &error);
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
}

//! Writes the dead letter of a record that failed for good, or that an operator skipped.

use crate::consumer::settings::AfterDeadLetter;
use crate::consumer::shared::control::position;
use crate::consumer::shared::dead_letters::{DeadLetterCause, WriteError};
use crate::consumer::state::settlement::{Settlement, Verdict};
use crate::consumer::worker::retry::UnsettledRecord;
use crate::control::{Command, CommandOutcome};
use crate::event::Record;
use crate::handler::{Class, DeadReason, Stage};
use crate::publisher::PublishError;

impl UnsettledRecord {
    /// Settles the record as an operator requested: written to the dead-letter topic, and not
    /// handled.
    ///
    /// The acknowledgement follows the write. A member that dies in between skips again, which is
    /// the same.
    pub(super) async fn skip(&self, command: &Command) -> Verdict {
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
}

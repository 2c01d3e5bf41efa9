//! Counts of a simulation and its summary.

use super::content::Content;
use super::journal::{Fate, Journal, SentEvent};
use crate::output::Columns;
use crate::pipeline::Outcome;
use crate::progress::{ProgressDisplay, per_second};
use evenkeel::publisher::PublishError;
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::Duration;

/// Counts outcomes and writes them to the journal.
pub(super) struct Tally {
    journal: Option<Journal>,
    display: ProgressDisplay,
    published: u64,
    acknowledged: u64,
    failed: u64,
    unknown: u64,
    journal_error: Option<std::io::Error>,
}

impl Tally {
    pub(super) fn new(journal: Option<Journal>, display: ProgressDisplay) -> Self {
        Self {
            journal,
            display,
            published: 0,
            acknowledged: 0,
            failed: 0,
            unknown: 0,
            journal_error: None,
        }
    }

    /// Counts an event. Breaks if the journal cannot be written: an audit could no longer trust it.
    pub(super) fn settle(&mut self, event: &SentEvent, outcome: Outcome) -> ControlFlow<()> {
        self.published += 1;
        let (fate, receipt) = match outcome {
            Outcome::Answered(Ok(receipt)) => (Fate::Acknowledged, Some(receipt)),
            Outcome::Answered(Err(error)) => {
                self.display
                    .say(&format!("event {}: {error}", event.event_id));
                (fate_of(&error), None)
            }
            Outcome::Unanswered | Outcome::NotSent => (Fate::Unknown, None),
        };
        match fate {
            Fate::Acknowledged => self.acknowledged += 1,
            Fate::Failed => self.failed += 1,
            Fate::Unknown => self.unknown += 1,
        }
        self.display.advance(self.acknowledged, self.published);
        if let Some(journal) = &mut self.journal
            && let Err(error) = journal.write(event, fate, receipt.as_ref())
        {
            self.journal_error = Some(error);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Creates the summary and removes the progress display from the terminal.
    ///
    /// # Errors
    /// If the journal could not be written.
    pub(super) fn finish(self, content: &Content, elapsed: Duration) -> std::io::Result<Summary> {
        if let Some(error) = self.journal_error {
            return Err(error);
        }
        Ok(Summary {
            run_id: content.run_id.clone(),
            seed: content.seed,
            published: self.published,
            acknowledged: self.acknowledged,
            failed: self.failed,
            unknown: self.unknown,
            elapsed_seconds: elapsed.as_secs_f64(),
            rate_per_second: per_second(self.acknowledged, elapsed),
        })
    }
}

/// The fate that an error implies: only a refusal proves that the event is not on the log.
fn fate_of(error: &PublishError) -> Fate {
    match error {
        PublishError::Invalid(_)
        | PublishError::Serialize(_)
        | PublishError::Refused { .. }
        | PublishError::TooLarge { .. }
        | PublishError::Unfit { .. }
        | PublishError::NoTopic { .. }
        | PublishError::NoPartition { .. } => Fate::Failed,
        _ => Fate::Unknown,
    }
}

/// The summary of a simulation.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    run_id: String,
    seed: u64,
    published: u64,
    acknowledged: u64,
    failed: u64,
    unknown: u64,
    elapsed_seconds: f64,
    rate_per_second: f64,
}

impl Summary {
    /// A sentence about the published events.
    pub(super) fn done(&self) -> String {
        format!("{} events are acknowledged", self.acknowledged)
    }

    /// Whether every event is on the log.
    pub(super) fn is_all_acknowledged(&self) -> bool {
        self.acknowledged == self.published
    }
}

impl Columns for Summary {
    const NAMES: &'static [&'static str] = &[
        "run_id",
        "seed",
        "published",
        "acknowledged",
        "failed",
        "unknown",
        "elapsed_seconds",
        "rate_per_second",
    ];

    fn texts(&self) -> Vec<String> {
        vec![
            self.run_id.clone(),
            self.seed.to_string(),
            self.published.to_string(),
            self.acknowledged.to_string(),
            self.failed.to_string(),
            self.unknown.to_string(),
            format!("{:.1}", self.elapsed_seconds),
            format!("{:.0}", self.rate_per_second),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::publisher::Receipt;

    #[test]
    fn unknown_outcomes_are_counted_and_not_called_failed() {
        let topic = || "shop.orders".to_owned();
        let reason = || "why".to_owned();
        let mut tally = Tally::new(None, ProgressDisplay::start(true, None));
        let event = SentEvent {
            event_id: "e".to_owned(),
            source: "s".to_owned(),
            ty: "t",
            key: "k".to_owned(),
            topic: "shop.orders",
            seq: 0,
        };
        let receipt = Receipt::new(topic(), 0, 0);
        for outcome in [
            Outcome::Answered(Ok(receipt)),
            Outcome::Answered(Err(PublishError::Refused {
                topic: topic(),
                reason: reason(),
            })),
            Outcome::Answered(Err(PublishError::Unknown {
                topic: topic(),
                reason: reason(),
            })),
            Outcome::Answered(Err(PublishError::Fatal(reason()))),
            Outcome::Unanswered,
        ] {
            assert!(tally.settle(&event, outcome).is_continue());
        }
        let counts = (
            tally.published,
            tally.acknowledged,
            tally.failed,
            tally.unknown,
        );
        assert_eq!(counts, (5, 1, 1, 3));
    }
}

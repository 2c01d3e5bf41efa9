//! Reports the settlement of a repetition to the drill that asked for it.

use crate::consumer::shared::Shared;
use crate::consumer::state::settlement::Settlement;
use crate::event::Record;
use crate::recovery::RepetitionOutcome;
use crate::recovery::parked::repetition;
use crate::recovery::parking::Ticket;
use std::sync::Arc;

/// Writes a note for a drill about the settlement of its repetition. Nothing waits for the write:
/// if it fails, the drill reports that it has no answer.
pub(crate) fn report_to_drill(
    shared: Arc<Shared>,
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
        // A parked record stays in the retry topic.
        Settlement::Parked => return,
    };
    let note = repetition::answer(&shared.group, &record, ticket.offset, outcome);
    tokio::spawn(async move {
        if let Err(error) = shared.dead_letters.send(note).await {
            tracing::warn!(
                group = shared.group,
                ?record,
                %outcome,
                %error,
                "the note about the settlement of a drill's repetition cannot be written"
            );
        }
    });
}

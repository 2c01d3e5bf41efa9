//! The events that the turns of a transaction published, until the end of the transaction.
//!
//! Owns which of them an undone turn takes back. Knows no store.
//!
//! A store writes them when the last turn has ended: one statement for all turns instead of one
//! for each, and no turn waits for it.

use super::replies;
use crate::event::OutgoingRecord;
use crate::inbox::InboxKey;

/// The published events of the turns of a transaction, in their order.
#[derive(Default)]
pub(in crate::inbox) struct StagedEvents {
    /// For the outbox.
    outgoing: Vec<OutgoingRecord>,
    /// For the rows of the deliveries, encoded.
    replies: Vec<(InboxKey, Vec<u8>)>,
    /// How many of them belong to turns that are kept.
    outgoing_kept: usize,
    replies_kept: usize,
}

impl StagedEvents {
    /// Adds what the present turn published to the events for the outbox.
    pub(in crate::inbox) fn add_outgoing(&mut self, published: Vec<OutgoingRecord>) {
        self.outgoing.extend(published);
    }

    /// Adds what the present turn published to the events for the rows of the deliveries.
    pub(in crate::inbox) fn add_replies(&mut self, key: &InboxKey, published: &[OutgoingRecord]) {
        if !published.is_empty() {
            self.replies.push((key.clone(), replies::encode(published)));
        }
    }

    /// Keeps the events of the present turn and begins the next one.
    pub(in crate::inbox) fn keep_turn(&mut self) {
        self.outgoing_kept = self.outgoing.len();
        self.replies_kept = self.replies.len();
    }

    /// Removes the events of the present turn.
    pub(in crate::inbox) fn undo_turn(&mut self) {
        self.outgoing.truncate(self.outgoing_kept);
        self.replies.truncate(self.replies_kept);
    }

    /// Whether there is nothing to write.
    pub(in crate::inbox) fn is_empty(&self) -> bool {
        self.outgoing.is_empty() && self.replies.is_empty()
    }

    /// The events for the outbox.
    pub(in crate::inbox) fn outgoing(&self) -> &[OutgoingRecord] {
        &self.outgoing
    }

    /// The events for the rows of the deliveries, encoded, for each delivery that has some.
    pub(in crate::inbox) fn replies(&self) -> &[(InboxKey, Vec<u8>)] {
        &self.replies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::conformance::record;

    fn key(id: &str) -> InboxKey {
        InboxKey::new("g", "h", "/s", id)
    }

    #[test]
    fn an_undone_turn_takes_back_its_own_events_only() {
        let mut staged = StagedEvents::default();
        for id in ["1", "2", "3"] {
            staged.add_outgoing(vec![record(id), record(id)]);
            staged.add_replies(&key(id), &[record(id)]);
            match id {
                "2" => staged.undo_turn(),
                _ => staged.keep_turn(),
            }
        }
        let outgoing = ["1", "1", "3", "3"].map(record);
        assert_eq!(staged.outgoing(), outgoing);
        let replies = ["1", "3"].map(|id| (key(id), replies::encode(&[record(id)])));
        assert_eq!(staged.replies(), replies);
    }

    #[test]
    fn a_turn_that_publishes_nothing_needs_no_statement() {
        let mut staged = StagedEvents::default();
        staged.add_outgoing(Vec::new());
        staged.add_replies(&key("1"), &[]);
        assert!(staged.is_empty());
    }
}

//! The results of the drills, by handler.
//!
//! A delivery is identified by its inbox key. Its start and its completion are recorded: a start
//! after a completion means that the handler ran again, whether the inbox forgot the event or the
//! router has no inbox.

use crate::inbox::InboxKey;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Maximum number of events that are named for each handler.
const NAMED_MAX: usize = 10;

/// The results of the drills, from [`Drills::report`](super::Drills::report): a copy of the state
/// at that moment.
///
/// ```
/// use evenkeel::testing::drills::Drills;
///
/// let report = Drills::seeded(7).deliver_twice().report();
/// assert!(report.handlers.is_empty(), "no event was delivered yet");
/// report.check().expect("every handler is idempotent");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a report shows nothing before `check`"]
pub struct DrillReport {
    /// Results by handler: its name in the inbox, or the event's type if the router has no inbox.
    pub handlers: BTreeMap<String, HandlerReport>,
}

/// The results of the drills for one handler. Compare [`completed`](Self::completed) with the
/// number of published events, so that a test in which nothing was handled does not pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandlerReport {
    /// How many times the handler received an event.
    pub started: u64,
    /// How many times its effect was committed.
    pub completed: u64,
    /// How many duplicates the inbox suppressed.
    pub suppressed: u64,
    /// How many of its commits were refused.
    pub refused: u64,
    /// Events for which it ran again after it had completed them: the first 10.
    pub ran_again: Vec<String>,
    /// Number of events for which it ran again.
    pub ran_again_count: u64,
    /// Events whose delivery changed effects although it was not completed or was a duplicate: the
    /// first 10.
    pub changed: Vec<String>,
    /// Number of events that changed effects in this way.
    pub changed_count: u64,
}

/// The error of a check: at least one handler is not idempotent. Its text names the handlers, up to
/// ten of their events, and the remedy: an inbox that outlives the process, or effects that are
/// written through the transaction of the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct NotIdempotent {
    /// The handlers that are not idempotent.
    pub handlers: BTreeMap<String, HandlerReport>,
}

impl fmt::Display for NotIdempotent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, report)) in self.handlers.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}the handler of {name} is not idempotent:")?;
            if report.ran_again_count > 0 {
                let (count, named) = (report.ran_again_count, report.ran_again.join(", "));
                write!(
                    f,
                    " it ran again for {count} events that it had completed ({named}): give its \
                     router an inbox that outlives the \
                     process"
                )?;
            }
            if report.changed_count > 0 {
                let (count, named) = (report.changed_count, report.changed.join(", "));
                write!(
                    f,
                    " {count} duplicate or uncompleted deliveries changed effects ({named}): \
                     write effects through the \
                     store's transaction"
                )?;
            }
        }
        Ok(())
    }
}

impl DrillReport {
    /// Checks that every handler was idempotent in the deliveries so far.
    ///
    /// # Errors
    /// [`NotIdempotent`] with the handlers that were not, and their events.
    pub fn check(&self) -> Result<(), NotIdempotent> {
        let is_wrong = |report: &HandlerReport| report.ran_again_count + report.changed_count > 0;
        let wrong = self.handlers.iter().filter(|(_, report)| is_wrong(report));
        let handlers: BTreeMap<_, _> = wrong
            .map(|(name, report)| (name.clone(), report.clone()))
            .collect();
        match handlers.is_empty() {
            true => Ok(()),
            false => Err(NotIdempotent { handlers }),
        }
    }
}

/// The record from which reports are made.
#[derive(Default)]
pub(super) struct DrillRecord {
    report: DrillReport,
    /// For each delivery, how many times it started and whether it was completed.
    deliveries: HashMap<InboxKey, (u32, bool)>,
}

impl DrillRecord {
    pub(super) fn report(&self) -> DrillReport {
        self.report.clone()
    }

    fn handler(&mut self, name: &str) -> &mut HandlerReport {
        self.report.handlers.entry(name.to_owned()).or_default()
    }

    /// Records that a handler receives an event. Returns the number of the attempt, from 1.
    pub(super) fn started(&mut self, key: &InboxKey) -> u32 {
        let delivery = self.deliveries.entry(key.clone()).or_default();
        delivery.0 += 1;
        let (attempt, was_completed) = *delivery;
        self.handler(&key.handler).started += 1;
        if was_completed {
            self.ran_again(&key.handler, &key.id);
        }
        attempt
    }

    /// Records a duplicate that the inbox recognised.
    pub(super) fn suppressed(&mut self, key: &InboxKey) {
        self.handler(&key.handler).suppressed += 1;
    }

    /// Records a commit that a drill refused.
    pub(super) fn refused(&mut self, key: &InboxKey) {
        self.handler(&key.handler).refused += 1;
    }

    /// Records a committed delivery, also if the answer is lost afterwards.
    pub(super) fn completed(&mut self, key: &InboxKey) {
        self.deliveries.entry(key.clone()).or_default().1 = true;
        self.handler(&key.handler).completed += 1;
    }

    /// Number of completed deliveries of all handlers.
    pub(super) fn completions(&self) -> u64 {
        let handlers = self.report.handlers.values();
        handlers.map(|handler| handler.completed).sum()
    }

    /// Records that a duplicate was handled like a first delivery. With an inbox, the claim has
    /// recorded it already.
    pub(super) fn ran_again_without_inbox(&mut self, name: &str, id: &str) {
        if self.completions() == 0 {
            self.ran_again(name, id);
        }
    }

    fn ran_again(&mut self, name: &str, id: &str) {
        let handler = self.handler(name);
        handler.ran_again_count += 1;
        note(&mut handler.ran_again, id);
    }

    /// Records a delivery that changed effects although it must not.
    pub(super) fn changed(&mut self, name: &str, id: &str) {
        let handler = self.handler(name);
        handler.changed_count += 1;
        note(&mut handler.changed, id);
    }
}

/// Keeps the name of an event, up to a limit: a report stays readable.
fn note(named: &mut Vec<String>, id: &str) {
    if named.len() < NAMED_MAX {
        named.push(id.to_owned());
    }
}

//! When intake stands still because records in flight take all the room, and how that is said.
//!
//! Owns since when there has been none. A full house is normal while handlers are slow; it is worth a word once nothing was
//! taken for a while and records wait for their next attempt, or once it lasts as long as a handler may take.

use super::engine::Engine;
use std::time::{Duration, Instant};

/// How long intake may stand still while records wait for their next attempt.
const WAITING_WITHIN: Duration = Duration::from_secs(5);

/// Whether intake stands still, and since when.
#[derive(Default)]
pub(crate) struct Crowding {
    full_since: Option<Instant>,
    is_shown: bool,
}

impl Crowding {
    /// There is room, or something else is what intake waits for.
    pub(crate) fn has_room(&mut self, engine: &Engine) {
        if self.full_since.take().is_some() && std::mem::take(&mut self.is_shown) {
            engine.readiness.crowded(None);
            tracing::warn!(group = engine.group, "records are taken again");
        }
    }

    /// There is no room. Called all the time while there is none.
    pub(crate) fn is_full(&mut self, engine: &Engine, bytes: usize) {
        let since = *self.full_since.get_or_insert_with(Instant::now);
        let full_for = since.elapsed();
        if self.is_shown || full_for < WAITING_WITHIN {
            return;
        }
        let waiting = engine.control.waiting();
        if waiting == 0 && full_for < engine.settings.stuck_after {
            return;
        }
        self.is_shown = true;
        let (records, settings) = (engine.in_flight(), &engine.settings);
        let reason = format!(
            "no room for further records: {records} of {} records and {} of {} MiB are in flight, {waiting} of them failed and wait for their next attempt",
            settings.in_flight_records_max(),
            bytes >> 20,
            settings.in_flight_bytes_max >> 20,
        );
        tracing::error!(
            group = engine.group,
            reason,
            "no records are taken until some of those in flight are settled"
        );
        engine.readiness.crowded(Some(reason));
    }
}

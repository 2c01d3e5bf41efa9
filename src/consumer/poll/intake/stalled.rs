//! Detects that intake takes no record because the in-flight limit is used up, and reports it to
//! the health.
//!
//! Short stalls are normal: the limit is back-pressure. It is reported when records that failed and
//! wait use it up for longer than 5 s, as nothing is handled until some of them are settled, or
//! when it lasts as long as a stuck handler.

use crate::consumer::shared::Shared;
use std::time::{Duration, Instant};

/// How long intake may stall while records wait for their next attempt.
const STALL_TOLERATED: Duration = Duration::from_secs(5);

/// Whether intake is stalled, and since when.
#[derive(Default)]
pub(crate) struct StalledIntake {
    /// Since when there has been no room.
    full_since: Option<Instant>,
    is_shown: bool,
}

impl StalledIntake {
    /// Notes that there is room, or that intake waits for another reason.
    pub(crate) fn note_room(&mut self, shared: &Shared) {
        if self.full_since.take().is_some() && std::mem::take(&mut self.is_shown) {
            shared.readiness.report_stall(None);
            tracing::warn!(
                group = shared.group,
                "the in-flight limit has room again: records are taken"
            );
        }
    }

    /// Notes that there is no room. Called on every turn while there is none.
    pub(crate) fn note_full(&mut self, shared: &Shared, bytes: usize) {
        let since = *self.full_since.get_or_insert_with(Instant::now);
        let full_for = since.elapsed();
        if self.is_shown || full_for < STALL_TOLERATED {
            return;
        }
        let waiting = shared.control.waiting();
        if waiting == 0 && full_for < shared.settings.stuck_handler_after {
            return;
        }
        self.is_shown = true;
        let (records, settings) = (shared.in_flight(), &shared.settings);
        let reason = format!(
            "no room for further records: {records} of {} records and {} of {} MiB are in flight, {waiting} of them failed and wait for their next attempt",
            settings.in_flight_records_max(),
            bytes >> 20,
            settings.in_flight_bytes_max >> 20,
        );
        tracing::error!(
            group = shared.group,
            reason,
            "no records are taken until some of those in flight are settled"
        );
        shared.readiness.report_stall(Some(reason));
    }
}

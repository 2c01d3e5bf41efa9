//! Transactions that were in each other's way: why, and what operators hear of it.
//!
//! Owns a metric and a log line. Which level follows is `contention.rs`'s to decide.

use super::contention::Level;
use crate::telemetry::Metric;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Why a transaction could not go on beside another one.
#[cfg_attr(not(feature = "postgres"), allow(dead_code))] // SQLite has one writer at a time, so nothing collides there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::inbox) enum Cause {
    /// Each waited for the other.
    Deadlock,
    /// What it had read was changed by another one.
    Serialization,
    /// Another one held a lock for longer than it was worth waiting for.
    LockWait,
}

impl Cause {
    /// What it costs: a deadlock is found after a second (`deadlock_timeout`), in which all who take part stand still.
    pub(super) fn cost(self) -> f64 {
        match self {
            Self::Deadlock => 2.0,
            Self::Serialization | Self::LockWait => 1.0,
        }
    }

    /// Its name as a label.
    fn as_str(self) -> &'static str {
        match self {
            Self::Deadlock => "deadlock",
            Self::Serialization => "serialization",
            Self::LockWait => "lock_wait",
        }
    }
}

/// A line comes that often at most.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

/// A transaction collided with another one.
pub(super) struct TransactionCollided<'a> {
    /// The consumer group.
    pub(super) group: &'a str,
    pub(super) cause: Cause,
    /// The level at which it was opened.
    pub(super) level: Level,
    /// For how long a stricter level holds now, if one does.
    pub(super) hold: Option<Duration>,
}

impl TransactionCollided<'_> {
    pub(super) fn tell(&self, said: &Said) {
        let labels = [
            ("group", self.group.to_owned()),
            ("cause", self.cause.as_str().to_owned()),
        ];
        metrics::counter!(Metric::Collisions.name(), &labels).increment(1);
        let Some(collisions) = said.line(self.hold.is_some()) else {
            return;
        };
        let (group, cause, hold) = (self.group, self.cause.as_str(), self.hold);
        match self.level {
            Level::Parallel => tracing::warn!(
                group,
                cause,
                ?hold,
                collisions,
                "transactions of the inbox wait for each other's rows: one at a time is open now, in all instances of the group. \
                 Handlers that share rows gain nothing from several; the inbox's setting `connections` = 1 keeps it so. No \
                 attempt is counted"
            ),
            Level::Exclusive | Level::Single => tracing::warn!(
                group,
                cause,
                ?hold,
                collisions,
                "transactions of the inbox and of other programs wait for each other's rows: each has one delivery now. The \
                 inbox's setting `group_max` = 1 keeps it so. No attempt is counted"
            ),
        }
    }
}

/// What was said of collisions.
#[derive(Default)]
pub(super) struct Said(Mutex<Line>);

#[derive(Default)]
struct Line {
    at: Option<Instant>,
    collisions: u64,
}

impl Said {
    /// Counts a collision. Where the level has changed and it is time for a line: how many there were since the last.
    fn line(&self, is_due: bool) -> Option<u64> {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        line.collisions += 1;
        if !is_due || line.at.is_some_and(|at| at.elapsed() < LINE_INTERVAL) {
            return None;
        }
        line.at = Some(Instant::now());
        Some(std::mem::take(&mut line.collisions))
    }
}

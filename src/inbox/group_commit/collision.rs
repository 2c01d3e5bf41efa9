//! Collisions of transactions: their causes, a metric and a log line.
//!
//! `contention.rs` decides the level that follows.
//!
//! A collision is counted every time and logged at most once a minute, and only when it changes the
//! level: rare collisions need no attention.

use super::contention::Level;
use crate::telemetry::Metric;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Why a transaction could not continue beside another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::inbox) enum Cause {
    /// Each waited for the other.
    Deadlock,
    /// Another transaction changed data that this one had read.
    Serialization,
    /// Another transaction held a lock for longer than this one waits.
    LockWait,
}

impl Cause {
    /// The cost of a collision. A deadlock is detected after a second (`deadlock_timeout`), during
    /// which all its transactions are blocked.
    pub(super) fn cost(self) -> f64 {
        match self {
            Self::Deadlock => 2.0,
            Self::Serialization | Self::LockWait => 1.0,
        }
    }

    /// The value of the metric's label.
    fn as_str(self) -> &'static str {
        match self {
            Self::Deadlock => "deadlock",
            Self::Serialization => "serialization",
            Self::LockWait => "lock_wait",
        }
    }
}

/// Minimum interval between two log lines.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

/// A transaction collided with another one.
pub(super) struct TransactionCollided<'a> {
    /// The consumer group.
    pub(super) group: &'a str,
    pub(super) cause: Cause,
    /// The level at which it was opened.
    pub(super) level: Level,
    /// How long a stricter level holds from now on, if the level changed.
    pub(super) hold: Option<Duration>,
}

impl TransactionCollided<'_> {
    /// Counts the collision, and logs the change of the level if there is one.
    pub(super) fn report(&self, log: &CollisionLog) {
        let (group, cause, level) = (self.group, self.cause, self.level);
        let labels = [
            ("group", group.to_owned()),
            ("cause", cause.as_str().to_owned()),
        ];
        metrics::counter!(Metric::Collisions.name(), &labels).increment(1);
        log.count();
        if let Some(hold) = self.hold {
            let changed = LevelChanged {
                group,
                cause,
                level,
                hold,
            };
            changed.report(log);
        }
    }
}

/// The level changed: fewer transactions are open from now on.
pub(super) struct LevelChanged<'a> {
    /// The consumer group.
    pub(super) group: &'a str,
    pub(super) cause: Cause,
    /// The level before the change.
    pub(super) level: Level,
    /// How long the stricter level holds.
    pub(super) hold: Duration,
}

impl LevelChanged<'_> {
    /// Logs the change with its remedy, unless a line was logged within the last minute.
    pub(super) fn report(&self, log: &CollisionLog) {
        let Some(collisions) = log.take_due_line() else {
            return;
        };
        let (group, cause, hold) = (self.group, self.cause.as_str(), self.hold);
        match self.level {
            Level::Parallel => tracing::warn!(
                group,
                cause,
                ?hold,
                collisions,
                "transactions of the inbox collided on shared rows: one at a time is open now, in \
                 all instances of the group. Handlers that share rows gain nothing from several; \
                 the inbox's setting `connections` = 1 makes this permanent. No attempt is counted"
            ),
            Level::Exclusive | Level::Single => tracing::warn!(
                group,
                cause,
                ?hold,
                collisions,
                "transactions of the inbox collided with other programs on shared rows: each has \
                 one delivery now. The inbox's setting `group_max` = 1 makes this permanent. No \
                 attempt is counted"
            ),
        }
    }
}

/// Counts the collisions between two log lines.
#[derive(Default)]
pub(super) struct CollisionLog(Mutex<CollisionCount>);

#[derive(Default)]
struct CollisionCount {
    /// When the last line was logged.
    at: Option<Instant>,
    /// Collisions since that line.
    collisions: u64,
}

impl CollisionLog {
    fn lock(&self) -> MutexGuard<'_, CollisionCount> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a collision.
    fn count(&self) {
        self.lock().collisions += 1;
    }

    /// Returns the number of collisions since the last line, if a line is due.
    fn take_due_line(&self) -> Option<u64> {
        let mut line = self.lock();
        if line.at.is_some_and(|at| at.elapsed() < LINE_INTERVAL) {
            return None;
        }
        line.at = Some(Instant::now());
        Some(std::mem::take(&mut line.collisions))
    }
}

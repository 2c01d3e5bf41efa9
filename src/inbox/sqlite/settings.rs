//! How a SQLite store is opened.

use crate::inbox::group::GROUP_MAX;
use std::time::Duration;

/// How a SQLite store is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteSettings {
    /// The consumer group that the store belongs to. Another group's store is refused.
    pub group: String,
    /// The service's own DDL, idempotent (`CREATE TABLE IF NOT EXISTS …`): it runs at every start, in a transaction.
    pub schema: String,
    /// What a completed delivery survives.
    pub durability: Durability,
    /// How long a claim waits while another process holds the write lock, before it fails as unavailable, which is an
    /// outage: no attempt is counted, and the breaker names the inbox. Those that wait behind it fail with it. 3 s by default.
    /// Waiting for claims of the same process has no limit: it is a queue, and each in it is served.
    pub lock_timeout: Duration,
    /// How many deliveries share a transaction at most; 256 by default, 2,000 at most, 1 for a transaction each. It is what is ready that
    /// decides: nothing waits for others to come.
    pub group_max: u32,
}

/// What a completed delivery survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The process being killed at any moment (SQLite's `synchronous=NORMAL`). After a power cut or a crash of the
    /// operating system the file is sound, but the last completions may be missing although their offsets are committed in
    /// Kafka: those effects are then lost. Fast: no wait for the disk.
    ProcessCrash,
    /// A power cut, too (`synchronous=FULL`), which is the default: every completion waits until the disk has it, those that are
    /// ready together once for all of them.
    #[default]
    PowerLoss,
}

impl SqliteSettings {
    /// The settings of `group` with the service's DDL; everything else by default.
    pub fn new(group: impl Into<String>, schema: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            schema: schema.into(),
            durability: Durability::default(),
            lock_timeout: Duration::from_secs(3),
            group_max: GROUP_MAX,
        }
    }

    /// The same with another durability.
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The same with another lock timeout.
    pub fn with_lock_timeout(mut self, lock_timeout: Duration) -> Self {
        self.lock_timeout = lock_timeout;
        self
    }

    /// The same with another number of deliveries to a transaction.
    pub fn with_group_max(mut self, group_max: u32) -> Self {
        self.group_max = group_max;
        self
    }
}

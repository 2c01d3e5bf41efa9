//! Settings of an inbox in SQLite.

use crate::inbox::group_commit::GROUP_MAX;
use std::time::Duration;

/// Settings of an inbox in SQLite. [`SqliteSettings::new`] sets the defaults.
///
/// | setting | default | bounds |
/// |---|---|---|
/// | [`durability`](Self::durability) | power loss | the crashes that completions survive |
/// | [`lock_timeout`](Self::lock_timeout) | 3 s | waits for another process's write lock |
/// | [`group_max`](Self::group_max) | 256 | deliveries per transaction |
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteSettings {
    /// The consumer group that the store belongs to. A store of another group is refused.
    pub group: String,
    /// The service's own DDL. It must be idempotent (`CREATE TABLE IF NOT EXISTS …`), because it
    /// runs at every start, in a transaction.
    pub schema: String,
    /// Which crashes a completed delivery survives. Default: [`Durability::PowerLoss`].
    pub durability: Durability,
    /// Bounds how long a claim waits while another process holds the write lock. Default 3 s. At
    /// the bound the claim, and the claims that wait behind it, fail as unavailable. That is an
    /// outage: no attempt is counted, and the breaker names the inbox. The wait for claims of the
    /// same process has no limit: they are served in a queue.
    pub lock_timeout: Duration,
    /// Bounds the deliveries of one transaction. Default 256, at most 2,000; 1 gives each delivery
    /// its own transaction. Batches only claims that are already queued; never delays a claim.
    pub group_max: u32,
}

/// Which crashes a completed delivery survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A kill of the process at any moment (SQLite's `synchronous=NORMAL`). After a power failure
    /// or a crash of the operating system the file is intact, but the last completions may be
    /// missing although their offsets are committed in Kafka: those effects are then lost. Fast,
    /// because it never waits for the disk.
    ProcessCrash,
    /// Also a power failure (`synchronous=FULL`). The default. Every completion waits until the
    /// disk has it; completions that are ready together share one wait.
    #[default]
    PowerLoss,
}

impl SqliteSettings {
    /// Creates the settings of `group` with the service's DDL; all others have their defaults.
    pub fn new(group: impl Into<String>, schema: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            schema: schema.into(),
            durability: Durability::default(),
            lock_timeout: Duration::from_secs(3),
            group_max: GROUP_MAX,
        }
    }

    /// Sets the durability.
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets the lock timeout.
    pub fn with_lock_timeout(mut self, lock_timeout: Duration) -> Self {
        self.lock_timeout = lock_timeout;
        self
    }

    /// Sets the maximum of deliveries per transaction.
    pub fn with_group_max(mut self, group_max: u32) -> Self {
        self.group_max = group_max;
        self
    }
}

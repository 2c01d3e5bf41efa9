//! Settings of an inbox in SQLite.

use crate::inbox::group_commit::claim_queue::GROUP_MAX;
use std::time::Duration;

/// Settings of an inbox in SQLite. [`SqliteSettings::new`] sets the defaults.
///
/// | setting | default | bounds |
/// |---|---|---|
/// | [`durability`](Self::durability) | power loss | the crashes that completions survive |
/// | [`lock_timeout`](Self::lock_timeout) | 3 s | waits for another process's write lock |
/// | [`group_max`](Self::group_max) | 256 | deliveries per transaction |
///
/// # Examples
/// ```
/// use evenkeel::inbox::{Durability, SqliteSettings};
/// use std::time::Duration;
///
/// let mails = "CREATE TABLE IF NOT EXISTS mails (recipient TEXT)";
/// let settings = SqliteSettings::new("mailer", mails)
///     .with_durability(Durability::ProcessCrash)
///     .with_lock_timeout(Duration::from_secs(1));
/// assert_eq!(settings.group_max, 256);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct SqliteSettings {
    /// The consumer group that the store belongs to. No default. Written into the file when it is
    /// created; a store of another group is refused with
    /// [`InboxError::Foreign`](crate::inbox::InboxError::Foreign). Use the group of the consumer.
    pub group: String,
    /// The service's own DDL. No default; empty for none. It must be idempotent (`CREATE TABLE IF
    /// NOT EXISTS …`), because it runs at every start, in the transaction that upgrades the inbox's
    /// tables: if it fails, the store does not open and nothing is changed.
    pub schema: String,
    /// Which crashes a completed delivery survives. Default: [`Durability::PowerLoss`], for which
    /// every commit waits for the disk. Group commit shares that wait between the deliveries that
    /// are ready together.
    pub durability: Durability,
    /// Bounds how long a claim waits while another process holds the write lock. Default 3 s. At
    /// the bound the claim, and the claims that wait behind it, fail as unavailable. That is an
    /// outage: no attempt is counted, and the breaker names the inbox. The wait for claims of the
    /// same process has no limit: they are served in a queue. Reads wait as long for a locked file.
    /// Set it above the longest write transaction of other programs on the file, backups included.
    pub lock_timeout: Duration,
    /// Bounds the deliveries of one transaction. Default 256, at most 2,000 (more counts as that);
    /// 1 gives each delivery its own transaction. Batches only claims that are already queued;
    /// never delays a claim. A group is never larger than the consumer's `concurrency`. A larger
    /// group shares one wait for the disk between more deliveries, but all of them wait for its
    /// commit.
    pub group_max: u32,
}

/// Which crashes a completed delivery survives. Neither choice can tear an effect from its inbox
/// row; they differ in the last completions that a power failure may take back, together with their
/// effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
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

    /// Sets the group.
    pub fn with_group(mut self, group: impl Into<String>) -> Self {
        self.group = group.into();
        self
    }

    /// Sets the service's DDL.
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Sets the durability.
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets the lock timeout. [`Duration::MAX`] waits for ever.
    pub fn with_lock_timeout(mut self, lock_timeout: Duration) -> Self {
        self.lock_timeout = lock_timeout;
        self
    }

    /// Sets the maximum of deliveries per transaction; 0 counts as 1.
    pub fn with_group_max(mut self, group_max: u32) -> Self {
        self.group_max = group_max;
        self
    }
}

//! SQLite's result codes, for inbox and outbox.
//!
//! The driver returns the extended code as text; its low byte is the primary one, which is stable.

/// SQLite's primary result codes (the low byte of an extended code), see
/// <https://www.sqlite.org/rescode.html>.
pub(crate) mod code {
    pub(crate) const PERM: u32 = 3;
    pub(crate) const BUSY: u32 = 5;
    pub(crate) const LOCKED: u32 = 6;
    pub(crate) const NOMEM: u32 = 7;
    pub(crate) const READONLY: u32 = 8;
    pub(crate) const IOERR: u32 = 10;
    pub(crate) const CORRUPT: u32 = 11;
    pub(crate) const FULL: u32 = 13;
    pub(crate) const CANTOPEN: u32 = 14;
    pub(crate) const TOOBIG: u32 = 18;
    pub(crate) const CONSTRAINT: u32 = 19;
    pub(crate) const MISMATCH: u32 = 20;
    pub(crate) const NOTADB: u32 = 26;
}

/// Whether another connection holds the lock.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(code::BUSY | code::LOCKED))
}

/// The primary code of `error`, if SQLite returned it.
pub(crate) fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

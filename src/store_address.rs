//! The address of a store as text, for command lines and environment variables.
//!
//! Owns the formats. Errors never contain an address, because it may contain a password.
//!
//! Known kinds are recognised whether or not this build has them, so that the error can name the
//! missing one. An inbox in Redis has no address here: it cannot be audited and has no outbox.

use std::path::Path;

/// The kind and the address of a store.
pub(crate) enum StoreAddress<'a> {
    #[cfg_attr(
        not(feature = "postgres"),
        allow(dead_code, reason = "known, and not built in")
    )]
    /// The whole URL.
    Postgres(&'a str),
    #[cfg_attr(
        not(feature = "sqlite"),
        allow(dead_code, reason = "known, and not built in")
    )]
    /// The path of the file.
    Sqlite(&'a Path),
}

impl<'a> StoreAddress<'a> {
    /// Parses `postgres://user@host/database` (also `postgresql://`) or `sqlite:PATH` (also
    /// `sqlite://PATH`). The path is taken as it is, without decoding.
    ///
    /// # Errors
    /// A text that describes the formats, and does not repeat the address.
    pub(crate) fn of(address: &'a str) -> Result<Self, String> {
        if address.starts_with("postgres://") || address.starts_with("postgresql://") {
            return Ok(Self::Postgres(address));
        }
        match address.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => Ok(Self::Sqlite(Path::new(
                path.strip_prefix("//").unwrap_or(path),
            ))),
            _ => Err(
                "the address of a store is postgres://user@host/database or sqlite:PATH".to_owned(),
            ),
        }
    }
}

/// The message for a store that this program was built without.
#[allow(dead_code, reason = "not needed where all kinds are built in, or none")]
pub(crate) fn not_built_in() -> String {
    "this program was built without this kind of store".to_owned()
}

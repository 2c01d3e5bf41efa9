//! The address of a store as text, for command lines and environment variables.
//!
//! Owns the formats. Errors never contain an address, because it may contain a password.

use std::path::Path;

/// The kind and the address of a store.
pub(crate) enum StoreAddress<'a> {
    #[cfg_attr(
        not(feature = "postgres"),
        allow(dead_code, reason = "known, and not built in")
    )]
    Postgres(&'a str),
    #[cfg_attr(
        not(feature = "sqlite"),
        allow(dead_code, reason = "known, and not built in")
    )]
    Sqlite(&'a Path),
}

impl<'a> StoreAddress<'a> {
    /// Parses `postgres://user@host/database` or `sqlite:PATH`. The error describes the formats.
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

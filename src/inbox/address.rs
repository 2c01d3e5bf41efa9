//! How a store is named where text is all there is: on a command line, in the environment.
//!
//! Owns the forms. Never tells an address further, as it may hold a password.

use std::path::Path;

/// A store's kind and where it is.
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
    /// Reads `postgres://user@host/database` or `sqlite:PATH`; or says how a store is named.
    pub(crate) fn of(address: &'a str) -> Result<Self, String> {
        if address.starts_with("postgres://") || address.starts_with("postgresql://") {
            return Ok(Self::Postgres(address));
        }
        match address.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => Ok(Self::Sqlite(Path::new(
                path.strip_prefix("//").unwrap_or(path),
            ))),
            _ => Err("a store is named as postgres://user@host/database or sqlite:PATH".to_owned()),
        }
    }
}

/// What to say of a store that this program was built without.
#[allow(dead_code, reason = "not needed where all kinds are built in, or none")]
pub(crate) fn not_built_in() -> String {
    "this program was built without that kind of store".to_owned()
}

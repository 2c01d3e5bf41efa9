//! The addresses of stores as text, for command lines and environment variables.
//!
//! Owns the list of their forms. Each store reads the addresses of its own form. Errors never
//! contain an address, because it may contain a password.
//!
//! A form is known whether or not this build has its store, so that the error can name the missing
//! one. An inbox in Redis has no address here: it cannot be audited and has no outbox.

/// Checks that an address has the form of any store: `postgres://user@host/database` (also
/// `postgresql://`) or `sqlite:PATH` (also `sqlite://PATH`).
///
/// # Errors
/// A text that describes the forms, and does not repeat the address.
pub(crate) fn check(address: &str) -> Result<(), String> {
    let is_known = ["postgres://", "postgresql://"]
        .into_iter()
        .any(|scheme| address.starts_with(scheme))
        || address
            .strip_prefix("sqlite:")
            .is_some_and(|path| !path.is_empty());
    match is_known {
        true => Ok(()),
        false => {
            Err("the address of a store is postgres://user@host/database or sqlite:PATH".to_owned())
        }
    }
}

/// Why no store of this build has this address.
pub(crate) fn refusal(address: &str) -> String {
    match check(address) {
        Ok(()) => "this program was built without this kind of store".to_owned(),
        Err(forms) => forms,
    }
}

//! Why authentication cannot be set up.

use std::path::PathBuf;

/// Why an [`Authenticator`](super::Authenticator) cannot be built. No message contains a token, a
/// hash or a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// A file cannot be read.
    #[error("the {what} {} cannot be read", .path.display())]
    Unreadable {
        /// Which file: `token file` or `key set`.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file has an invalid content.
    #[error("the {what} {} is invalid: {reason}", .path.display())]
    Invalid {
        /// Which file: `token file` or `key set`.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong and, where it is known, in which line.
        reason: String,
    },
    /// A setting is invalid.
    #[error("the setting {setting} {reason}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Neither a token file nor a key set is configured.
    #[error(
        "neither a token file nor a JWT key set is configured; use Authenticator::open for a \
         gateway without authentication"
    )]
    NothingConfigured,
}

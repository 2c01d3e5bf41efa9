//! What failed in a store, told with what to do about it.
//!
//! Owns the form of such an error. Each store knows its own codes, and says what they advise.

use super::InboxError;
use std::error::Error;
use std::fmt;

/// A store's failure; its source stays what the store's driver gave.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What to do about a failure.
pub(super) enum Advice {
    /// It may pass by itself.
    Wait(&'static str),
    /// It passes if the whole is done again.
    #[cfg(feature = "postgres")]
    TryAgain(&'static str),
    /// Somebody has to do something.
    Mend(&'static str),
    /// It is what was written, not the store; says who refused it.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    Refused(&'static str),
}

impl Failure {
    /// The inbox error for `error`, which happened to `store` during `doing`.
    pub(super) fn of(
        store: impl fmt::Display,
        doing: &'static str,
        advice: &Advice,
        error: impl Error + Send + Sync + 'static,
    ) -> InboxError {
        let failure = |advice: &str| {
            Box::new(Self {
                message: format!("{doing} on {store}: {advice}: {error}"),
                source: Some(Box::new(error)),
            })
        };
        match advice {
            Advice::Wait(advice) => InboxError::Unavailable(failure(advice)),
            #[cfg(feature = "postgres")]
            Advice::TryAgain(advice) => InboxError::TryAgain(failure(advice)),
            Advice::Mend(advice) => InboxError::NotWritable(failure(advice)),
            #[cfg(any(feature = "postgres", feature = "sqlite"))]
            Advice::Refused(refused) => InboxError::Other(failure(refused)),
        }
    }

    /// The error for a store that says nothing.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(super) fn unavailable(message: String) -> InboxError {
        InboxError::Unavailable(Box::new(Self {
            message,
            source: None,
        }))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

//! A store's failure, together with its remedy.
//!
//! Owns the form of such an error. Each store maps its own codes to an advice.
//!
//! The kind of the inbox error follows from the advice, because the kind decides whether events
//! wait, are retried or fail: what an operator must do and what the consumer does are one decision.

use crate::inbox::InboxError;
use std::error::Error;
use std::fmt;

/// A store's failure; the source is the error of the store's driver.
#[derive(Debug)]
pub(in crate::inbox) struct Failure {
    /// The operation, the store, the remedy and the text of the source.
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The remedy for a failure.
pub(in crate::inbox) enum Advice {
    /// It may pass by itself.
    Wait(&'static str),
    /// It passes if the whole transaction is repeated.
    TryAgain(&'static str),
    /// An operator must act.
    Mend(&'static str),
    /// The written data cause it, not the store; names the refusing program.
    Refused(&'static str),
}

impl Failure {
    /// The inbox error for `error`, which occurred in `store` during `doing`.
    pub(in crate::inbox) fn of(
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
            Advice::TryAgain(advice) => InboxError::TryAgain(failure(advice)),
            Advice::Mend(advice) => InboxError::NotWritable(failure(advice)),
            Advice::Refused(refused) => InboxError::Other(failure(refused)),
        }
    }

    /// The error of a store that does not answer.
    pub(in crate::inbox) fn unavailable(message: String) -> InboxError {
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

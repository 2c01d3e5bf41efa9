//! Why a request is not accepted, and why a store cannot be opened.

use crate::http::{Problem, ProblemKind};
use evenkeel::outbox::OutboxError;
use std::time::Duration;

/// Why a store cannot be opened. No error contains the address, which may hold a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The outbox in the file or database cannot be opened; the source says why.
    #[error("the outbox of the gateway's store cannot be opened")]
    Outbox(#[from] OutboxError),
    /// The file or database failed.
    #[error("the gateway's store cannot {doing}")]
    Database {
        /// What failed.
        doing: &'static str,
        /// The database's error.
        #[source]
        source: sqlx::Error,
    },
    /// The gateway's tables do not exist, and the settings leave them to migrations of your own.
    #[error(
        "the tables gateway_requests and gateway_events do not exist: create them with the SQL of \
         PostgresStore::migration_sql, or let the gateway do it (Migration::OnOpen)"
    )]
    NoTables,
}

impl StoreError {
    /// For `map_err`: the error of the operation `doing`.
    pub(super) fn during(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Database { doing, source }
    }
}

/// Why a store did not accept a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// A request with the same `Idempotency-Key` is under way.
    #[error("a request with the same Idempotency-Key is under way")]
    InProgress,
    /// The `Idempotency-Key` was used for another request, or the event's id for another event.
    #[error("{what} was used before with another content")]
    Reused {
        /// What was used before, such as `the Idempotency-Key`.
        what: String,
    },
    /// An `Idempotency-Key` was sent, and this store keeps none.
    #[error("this gateway keeps no Idempotency-Key")]
    NoIdentities,
    /// There is no room. Nothing was accepted.
    #[error("no room for more events")]
    Full {
        /// When there will be room, if it is known.
        retry_after: Option<Duration>,
    },
    /// The deadline passed before the request was begun. Nothing was accepted.
    #[error("the deadline passed before the events were written")]
    DeadlineExceeded,
    /// The event can never be published, such as one larger than the brokers allow.
    #[error("{0}")]
    Rejected(String),
    /// The store or the brokers do not answer. Nothing was accepted.
    #[error("{doing} failed")]
    Unavailable {
        /// What failed.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is not known whether the events were accepted.
    #[error("it is not known whether the events were accepted")]
    Unknown {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<AcceptError> for Problem {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::InProgress => Self::new(
                ProblemKind::InProgress,
                "a request with this Idempotency-Key is under way; repeat the request later",
            )
            .with_retry_after(Duration::from_secs(1)),
            AcceptError::Reused { what } => Self::new(
                ProblemKind::Reused,
                format!("{what} was used before with another content; use a new one"),
            ),
            AcceptError::NoIdentities => Self::new(
                ProblemKind::Unsupported,
                "this gateway has no store for an Idempotency-Key; omit it, and set the event's \
                 id: consumers handle an id once",
            ),
            AcceptError::Full { retry_after } => Self::new(
                ProblemKind::Overloaded,
                "no room for more events; nothing was accepted",
            )
            .with_retry_after(retry_after.unwrap_or(Duration::from_secs(1))),
            AcceptError::DeadlineExceeded => Self::new(
                ProblemKind::DeadlineExceeded,
                "the deadline passed before the events were written; nothing was accepted",
            ),
            AcceptError::Rejected(reason) => Self::new(ProblemKind::TooLarge, reason),
            AcceptError::Unavailable { .. } => Self::new(
                ProblemKind::Unavailable,
                "the events could not be stored; nothing was accepted",
            )
            .with_retry_after(Duration::from_secs(1)),
            AcceptError::Unknown { .. } => Self::new(
                ProblemKind::DeadlineExceeded,
                "it is not known whether the events were accepted; repeat the request with the \
                 same Idempotency-Key or event id",
            ),
        }
    }
}

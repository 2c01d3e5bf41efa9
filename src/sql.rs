//! The classes of the driver's errors that mean the same for every SQL database.
//!
//! Knows no server: the code of a database's error is judged by the store it belongs to.

use crate::failure::Class;
use sqlx::error::{DatabaseError, ErrorKind};
use std::error::Error;

/// The class of an error of sqlx, and of no other. A violated constraint is the event's fault; a
/// connection is the server's. `of_code` judges other errors of the database; it returns `None` for
/// those of another store.
pub(crate) fn class_of(
    error: &(dyn Error + 'static),
    of_code: fn(&(dyn DatabaseError + 'static)) -> Option<Class>,
) -> Option<Class> {
    match error.downcast_ref::<sqlx::Error>()? {
        // A connection was lost or could not be opened: the event did not cause it. It may cause
        // `Protocol`, for example by too many arguments.
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_) => Some(Class::Outage),
        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
            Some(Class::Permanent)
        }
        sqlx::Error::Database(error) => match error.kind() {
            ErrorKind::UniqueViolation
            | ErrorKind::CheckViolation
            | ErrorKind::ForeignKeyViolation
            | ErrorKind::NotNullViolation => Some(Class::Permanent),
            _ => of_code(error.as_ref()),
        },
        _ => None,
    }
}

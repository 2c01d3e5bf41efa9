//! What an error of the driver means for a group.
//!
//! Owns the classes of PostgreSQL's error codes: its documentation, appendix A. Knows no statement.

use super::super::writer::{Failure, FailureKind};
use evenkeel::outbox::OutboxError;

/// The error of a call that the server did not answer in time.
pub(super) fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// What an error before the commit means for a group.
pub(super) fn failure(error: sqlx::Error) -> Failure {
    let kind = match code_of(&error) {
        Some(code) => kind_of(&code),
        None => FailureKind::Unavailable,
    };
    Failure::new(kind, error)
}

/// What an error of the commit means. Without an answer of the server the result is unknown.
pub(super) fn failure_of_commit(error: sqlx::Error) -> Failure {
    let kind = match code_of(&error) {
        Some(code) => kind_at_commit(&code),
        None => FailureKind::Unknown,
    };
    Failure::new(kind, error)
}

/// What an error of the outbox means, which is before the commit.
pub(super) fn failure_of_outbox(error: OutboxError) -> Failure {
    match error {
        OutboxError::Store { source, .. } => failure(source),
        other => Failure::new(FailureKind::Unavailable, other),
    }
}

fn code_of(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}

fn kind_of(code: &str) -> FailureKind {
    match code {
        // A deadlock, a serialisation failure, or a row that another transaction inserted.
        "40001" | "40P01" | "23505" => FailureKind::Collided,
        "55P03" => FailureKind::Blocked,
        // Data, and limits of a row or an index.
        code if code.starts_with("22") || code.starts_with("54") => FailureKind::Refused,
        _ => FailureKind::Unavailable,
    }
}

/// An answer to a commit means that the transaction is rolled back, unless it may be that of a
/// pooler or of a server that ended after the commit had arrived: connection exceptions, an
/// operator's intervention, errors of the system, internal ones, and an unknown completion.
fn kind_at_commit(code: &str) -> FailureKind {
    let class = code.get(..2).unwrap_or_default();
    match class {
        "08" | "57" | "58" | "XX" => FailureKind::Unknown,
        _ if code == "40003" => FailureKind::Unknown,
        _ => kind_of(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_unknown_if_another_may_have_answered() {
        use FailureKind::{Blocked, Collided, Refused, Unavailable, Unknown};
        for (code, before, at_commit) in [
            ("40001", Collided, Collided),
            ("40P01", Collided, Collided),
            ("23505", Collided, Collided),
            ("55P03", Blocked, Blocked),
            ("22001", Refused, Refused),
            ("54000", Refused, Refused),
            ("53100", Unavailable, Unavailable),
            ("25P03", Unavailable, Unavailable),
            ("08P01", Unavailable, Unknown),
            ("57P01", Unavailable, Unknown),
            ("58000", Unavailable, Unknown),
            ("XX000", Unavailable, Unknown),
            ("40003", Unavailable, Unknown),
        ] {
            let kinds = (kind_of(code), kind_at_commit(code));
            assert_eq!(kinds, (before, at_commit), "{code}");
        }
    }

    #[test]
    fn a_commit_without_an_answer_is_unknown() {
        assert_eq!(failure(timed_out()).kind, FailureKind::Unavailable);
        assert_eq!(failure_of_commit(timed_out()).kind, FailureKind::Unknown);
    }
}

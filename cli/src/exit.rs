//! How a run ends: the exit codes that scripts rely on, and the one place that prints an error.

use evenkeel::audit::AuditError;
use evenkeel::inbox::InboxError;
use evenkeel::kafka::KafkaError;
use evenkeel::outbox::OutboxError;
use std::io;
use std::process::ExitCode;

/// How a command ended that was able to do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything was done.
    Done,
    /// Some or all records failed; each was named already.
    SomeFailed,
    /// The command looked, and found what its user wants to be told about.
    FoundBad,
    /// Stopped by a signal of that number.
    Stopped(u8),
}

/// Arguments that contradict each other or mean nothing here.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Nobody answered in time.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoAnswer(pub(crate) String);

/// Prints what went wrong, if anything, and gives the exit code.
pub(crate) fn report(result: anyhow::Result<Ending>) -> ExitCode {
    ExitCode::from(match result {
        Ok(ending) => ending.code(),
        Err(error) if is_broken_pipe(&error) => 0,
        Err(error) => {
            anstream::eprintln!("evenkeel: {}", message(&error));
            code(&error)
        }
    })
}

/// The error and its causes, each unless the text before it says the same already.
fn message(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut message, cause| {
        let cause = cause.to_string();
        if !message.contains(&cause) {
            if !message.is_empty() {
                message.push_str(": ");
            }
            message.push_str(&cause);
        }
        message
    })
}

impl Ending {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::SomeFailed => 1,
            Self::FoundBad => 3,
            Self::Stopped(signal) => 128 + signal,
        }
    }
}

/// The reader of our output has seen enough: that is no error of ours.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(1)
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<Usage>() || cause.is::<evenkeel::kafka::ConfigError>() {
        return Some(2);
    }
    if cause.is::<NoAnswer>() {
        return Some(5);
    }
    // Its message is that of its cause, which the chain therefore passes over.
    if let Some(error) = cause.downcast_ref::<AuditError>() {
        return match error {
            AuditError::Kafka(error) => code_of(error),
            AuditError::Store(error) => code_of(error),
            _ => None,
        };
    }
    if let Some(InboxError::Setting(_)) = cause.downcast_ref::<InboxError>() {
        return Some(2);
    }
    if let Some(error) = cause.downcast_ref::<OutboxError>() {
        return match error {
            OutboxError::Setting(_) => Some(2),
            OutboxError::NoAnswer { .. } => Some(5),
            _ => None,
        };
    }
    match cause.downcast_ref::<KafkaError>()? {
        KafkaError::Config(_) => Some(2),
        KafkaError::Unreachable { .. } => Some(4),
        KafkaError::Timeout { .. } => Some(5),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    fn unreachable() -> KafkaError {
        KafkaError::Unreachable {
            brokers: "localhost:1".to_owned(),
            seconds: 1,
            cause: "refused".to_owned(),
        }
    }

    #[test]
    fn the_exit_code_follows_the_innermost_known_cause() {
        let check =
            |error: anyhow::Error, expected| assert_eq!(code(&error), expected, "{error:?}");
        check(anyhow::anyhow!("anything"), 1);
        check(Usage("both".to_owned()).into(), 2);
        check(unreachable().into(), 4);
        check(
            Err::<(), _>(unreachable())
                .context("listing topics")
                .unwrap_err(),
            4,
        );
        let timeout = KafkaError::Timeout {
            what: "listing topics".to_owned(),
            seconds: 1,
        };
        check(timeout.into(), 5);
        check(NoAnswer("nobody".to_owned()).into(), 5);
        check(AuditError::Kafka(unreachable()).into(), 4);
        check(
            AuditError::Store(InboxError::Setting("no store".to_owned())).into(),
            2,
        );
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        let cause = io::Error::other("disk full");
        let error = anyhow::Error::from(cause).context("writing: disk full");
        assert_eq!(message(&error), "writing: disk full");
        let cause = io::Error::other("disk full");
        let error = anyhow::Error::from(cause).context("writing");
        assert_eq!(message(&error), "writing: disk full");
    }

    #[test]
    fn a_broken_pipe_is_found_below_any_context() {
        let broken = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(
            &anyhow::Error::from(broken).context("writing")
        ));
        assert!(!is_broken_pipe(&anyhow::anyhow!("Broken pipe")));
    }
}

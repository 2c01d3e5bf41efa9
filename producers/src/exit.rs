//! How a command ends: its exit code and its last words. Knows no command.

use evenkeel::kafka::{ConfigError, KafkaError};
use evenkeel::publisher::PublishError;
use std::process::ExitCode;

/// How a command that ran to its end ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything was done: 0.
    Complete,
    /// Some records failed, each named on standard error: 1.
    SomeFailed,
    /// A signal stopped it; what was done is said on standard error: 128 and the signal's number.
    Interrupted {
        /// The signal's number.
        signal: u8,
    },
}

/// The arguments fit their syntax but not each other or the world: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Runs a command and turns what comes of it into an exit code; an error is printed with its causes.
pub fn run(command: impl Future<Output = anyhow::Result<Ended>>) -> ExitCode {
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(command));
    match result {
        Ok(Ended::Complete) => ExitCode::SUCCESS,
        Ok(Ended::SomeFailed) => ExitCode::from(1),
        Ok(Ended::Interrupted { signal }) => ExitCode::from(128 + signal),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(code(&error))
        }
    }
}

/// Whoever read our output has had enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The exit code that the first known cause stands for.
fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of_cause).unwrap_or(1)
}

fn code_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<UsageError>() || cause.is::<ConfigError>() {
        return Some(2);
    }
    match cause.downcast_ref::<KafkaError>() {
        Some(KafkaError::Unreachable { .. }) => return Some(4),
        Some(KafkaError::Config(_)) => return Some(2),
        _ => {}
    }
    match cause.downcast_ref::<PublishError>() {
        Some(PublishError::Unknown { .. }) => Some(5),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_whose_fault_it_was_however_deep_the_cause() {
        let check = |error: anyhow::Error, expected: u8| {
            assert_eq!(code(&error.context("while it ran")), expected);
        };
        check(UsageError("no".into()).into(), 2);
        check(ConfigError::new("acks", "must be all").into(), 2);
        check(
            KafkaError::Unreachable {
                brokers: "localhost:1".into(),
                seconds: 1,
                cause: "refused".into(),
            }
            .into(),
            4,
        );
        check(
            PublishError::Unknown {
                topic: "t".into(),
                reason: "timed out".into(),
            }
            .into(),
            5,
        );
        check(PublishError::Fatal("fenced".into()).into(), 1);
    }
}

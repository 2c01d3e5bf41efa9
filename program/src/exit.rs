//! The end of a program: the table of exit codes, and printing of the error.
//!
//! A script that runs a program decides by its exit code: try again later (4, 5), correct the call
//! (2), look at the output (1, 3). So the code follows from the type of an error anywhere in its
//! chain, never from its text, and is the same for one cause in all programs.
//!
//! ```
//! use evenkeel_program::exit::{Ending, NO_ANSWER, NoAnswer, code};
//!
//! assert_eq!(Ending::Stopped(2).code(), 130);
//! let error = anyhow::Error::from(NoAnswer("no answer within 10s".to_owned()));
//! assert_eq!(code(&error.context("pausing payments")), NO_ANSWER);
//! ```

use evenkeel::consumer::ConsumerError;
use evenkeel::inbox::InboxError;
use evenkeel::kafka::{ConfigError, KafkaError};
use evenkeel::outbox::OutboxError;
use evenkeel::publisher::PublishError;
use evenkeel::telemetry::say;
use std::error::Error;
use std::process::ExitCode;

/// Success.
pub const DONE: u8 = 0;
/// A failure for some or all records, or a named thing does not exist.
pub const FAILED: u8 = 1;
/// A flag, a variable or the configuration file is invalid.
pub const USAGE: u8 = 2;
/// A check found a problem.
pub const FOUND_BAD: u8 = 3;
/// No broker can be reached.
pub const UNREACHABLE: u8 = 4;
/// No answer in time, or it is unknown whether the brokers have the published records.
pub const NO_ANSWER: u8 = 5;
/// Stopped by SIGINT.
pub const INTERRUPTED: u8 = 130;

/// The meaning of each exit code, for help and manual pages.
pub const STATUS: [(&str, &str); 8] = [
    (
        "0",
        "Done. Also if the reader of standard output closed it early.",
    ),
    (
        "1",
        "Failed, for some records or all; or something that was named does not exist.",
    ),
    ("2", "Wrong usage."),
    (
        "3",
        "A check found a problem: a threshold passed, an invalid schema, an event without its \
         effect, a handler that is not idempotent, a topic that differs from its declaration; \
         listings only with --check.",
    ),
    ("4", "No broker can be reached."),
    (
        "5",
        "No answer in time, or it is unknown whether the brokers have the published records.",
    ),
    ("130", "Stopped by SIGINT."),
    ("143", "Stopped by SIGTERM."),
];

/// How a program ended that could do its work. A program that could not returns an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "it decides the exit code"]
pub enum Ending {
    /// Success.
    Done,
    /// Some or all records failed. Each was named already.
    SomeFailed,
    /// A check found a problem that its user wants to know.
    FoundBad,
    /// For some records it is unknown whether the brokers have them; the others succeeded. Each was
    /// named already.
    Unknown,
    /// Stopped by the signal of this number.
    Stopped(u8),
}

impl Ending {
    /// The exit code. For a signal, 128 and its number, as shells do.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => DONE,
            Self::SomeFailed => FAILED,
            Self::FoundBad => FOUND_BAD,
            Self::Unknown => NO_ANSWER,
            Self::Stopped(signal) => 128 + signal,
        }
    }
}

/// Arguments that are contradictory or meaningless here. Exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// No answer in time. Exit code 5.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(pub String);

/// The exit code of a run. Prints an error first, on one line of standard error, formatted by
/// `describe`, such as [`message`]. Called once, at the end of `main`.
pub fn report(
    result: anyhow::Result<Ending>,
    describe: impl FnOnce(&anyhow::Error) -> String,
) -> ExitCode {
    ExitCode::from(match result {
        Ok(ending) => ending.code(),
        Err(error) => {
            say(&describe(&error));
            code(&error)
        }
    })
}

/// The error and its causes, separated by colons. A cause whose text is already contained in the
/// text before it is omitted, since many libraries repeat the source of an error in its text.
///
/// ```
/// use evenkeel_program::exit::message;
///
/// let error = anyhow::anyhow!("connection refused").context("reading shop.orders");
/// assert_eq!(message(&error), "reading shop.orders: connection refused");
/// ```
pub fn message(error: &anyhow::Error) -> String {
    message_of(error, |cause| cause.to_string())
}

/// [`message`], with each cause formatted by `word`.
pub fn message_of(
    error: &anyhow::Error,
    word: impl Fn(&(dyn Error + 'static)) -> String,
) -> String {
    error.chain().fold(String::new(), |mut message, cause| {
        let cause = word(cause);
        if !message.contains(&cause) {
            if !message.is_empty() {
                message.push_str(": ");
            }
            message.push_str(&cause);
        }
        message
    })
}

/// The exit code of an error: that of its first known cause, else 1.
pub fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(FAILED)
}

fn code_of(cause: &(dyn Error + 'static)) -> Option<u8> {
    if cause.is::<Usage>() || cause.is::<ConfigError>() {
        return Some(USAGE);
    }
    if cause.is::<NoAnswer>() {
        return Some(NO_ANSWER);
    }
    if let Some(error) = cause.downcast_ref::<KafkaError>() {
        return code_of_kafka(error);
    }
    if let Some(PublishError::Unknown { .. }) = cause.downcast_ref() {
        return Some(NO_ANSWER);
    }
    if let Some(InboxError::Setting(_)) = cause.downcast_ref() {
        return Some(USAGE);
    }
    if let Some(error) = cause.downcast_ref::<OutboxError>() {
        return match error {
            OutboxError::Setting(_) => Some(USAGE),
            OutboxError::NoAnswer { .. } => Some(NO_ANSWER),
            _ => None,
        };
    }
    // Its messages are those of its causes, so the chain skips the causes.
    match cause.downcast_ref::<ConsumerError>()? {
        ConsumerError::Config(_) => Some(USAGE),
        ConsumerError::Kafka(error) => code_of_kafka(error),
        _ => None,
    }
}

/// The code of an error of the client. None for errors that are failures like any other.
fn code_of_kafka(error: &KafkaError) -> Option<u8> {
    match error {
        KafkaError::Config(_) => Some(USAGE),
        KafkaError::Unreachable { .. } | KafkaError::Tls { .. } => Some(UNREACHABLE),
        KafkaError::Timeout { .. } => Some(NO_ANSWER),
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
    fn the_exit_code_follows_the_first_known_cause() {
        let timeout = || KafkaError::Timeout {
            what: "listing topics".to_owned(),
            seconds: 1,
        };
        let unknown = PublishError::Unknown {
            topic: "t".to_owned(),
            reason: "timed out".to_owned(),
        };
        let setting = InboxError::Setting("no store".to_owned());
        let errors: [(anyhow::Error, u8); 13] = [
            (anyhow::anyhow!("anything"), FAILED),
            (Usage("both".to_owned()).into(), USAGE),
            (ConfigError::new("acks", "must be all").into(), USAGE),
            (unreachable().into(), UNREACHABLE),
            (timeout().into(), NO_ANSWER),
            (NoAnswer("nobody".to_owned()).into(), NO_ANSWER),
            (unknown.into(), NO_ANSWER),
            (PublishError::Fatal("fenced".to_owned()).into(), FAILED),
            (ConsumerError::Kafka(unreachable()).into(), UNREACHABLE),
            (ConsumerError::Kafka(timeout()).into(), NO_ANSWER),
            (ConsumerError::Fatal("fenced".to_owned()).into(), FAILED),
            (OutboxError::Setting("no".to_owned()).into(), USAGE),
            (setting.into(), USAGE),
        ];
        for (error, expected) in errors {
            assert_eq!(code(&error), expected, "{error:?}");
            let error = Err::<(), _>(error).context("while starting").unwrap_err();
            assert_eq!(code(&error), expected, "{error:?}");
        }
    }

    #[test]
    fn each_ending_has_a_code_of_the_table() {
        let endings = [
            (Ending::Done, DONE),
            (Ending::SomeFailed, FAILED),
            (Ending::FoundBad, FOUND_BAD),
            (Ending::Unknown, NO_ANSWER),
            (Ending::Stopped(2), INTERRUPTED),
            (Ending::Stopped(15), 143),
        ];
        for (ending, expected) in endings {
            let code = ending.code();
            assert_eq!(code, expected, "{ending:?}");
            assert!(STATUS.iter().any(|(known, _)| *known == code.to_string()));
        }
    }

    #[test]
    fn a_cause_in_the_text_before_it_is_not_repeated() {
        let cause = std::io::Error::other("disk full");
        let error = anyhow::Error::from(cause).context("writing: disk full");
        assert_eq!(message(&error), "writing: disk full");
        let cause = std::io::Error::other("disk full");
        let error = anyhow::Error::from(cause).context("writing");
        assert_eq!(message(&error), "writing: disk full");
    }
}

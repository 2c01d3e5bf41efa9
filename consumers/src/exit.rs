//! Exit codes of the daemons, the same as the operator's tool has.

use evenkeel::consumer::ConsumerError;
use evenkeel::inbox::InboxError;
use evenkeel::kafka::{ConfigError, KafkaError};

/// It did what it was asked to.
pub const OK: u8 = 0;
/// It failed.
pub const FAILED: u8 = 1;
/// A flag, a variable or the configuration file cannot be used.
pub const USAGE: u8 = 2;
/// What was found is not what it should be, such as another service's store.
pub const FOUND_BAD: u8 = 3;
/// The cluster cannot be reached.
pub const UNREACHABLE: u8 = 4;
/// A deadline passed, such as that of a drain.
pub const TIMEOUT: u8 = 5;
/// It was stopped before the bound of its run.
pub const INTERRUPTED: u8 = 130;

/// The exit code that an error stands for.
pub fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(known).unwrap_or(FAILED)
}

fn known(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<ConfigError>() {
        return Some(USAGE);
    }
    if let Some(error) = cause.downcast_ref::<ConsumerError>() {
        return match error {
            ConsumerError::Config(_) => Some(USAGE),
            ConsumerError::Kafka(error) => of_kafka(error),
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<KafkaError>() {
        return of_kafka(error);
    }
    match cause.downcast_ref::<InboxError>() {
        Some(InboxError::Foreign { .. }) => Some(FOUND_BAD),
        _ => None,
    }
}

fn of_kafka(error: &KafkaError) -> Option<u8> {
    match error {
        KafkaError::Config(_) => Some(USAGE),
        KafkaError::Unreachable { .. } => Some(UNREACHABLE),
        KafkaError::Timeout { .. } => Some(TIMEOUT),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn errors_have_the_exit_codes_of_the_tool() {
        let unreachable = || KafkaError::Unreachable {
            brokers: "127.0.0.1:1".to_owned(),
            seconds: 10,
            cause: "refused".to_owned(),
        };
        let slow = KafkaError::Timeout {
            what: "describing topics".to_owned(),
            seconds: 10,
        };
        let foreign = InboxError::Foreign {
            path: "payments.db".to_owned(),
            reason: "belongs to the group inventory".to_owned(),
        };
        let fatal = ConsumerError::Fatal("fenced".to_owned());
        for (error, expected) in [
            (ConfigError::new("concurrency", "is 0").into(), USAGE),
            (anyhow::Error::new(unreachable()), UNREACHABLE),
            (ConsumerError::Kafka(unreachable()).into(), UNREACHABLE),
            (ConsumerError::Kafka(slow).into(), TIMEOUT),
            (anyhow::Error::new(foreign), FOUND_BAD),
            (fatal.into(), FAILED),
        ] {
            let error = Err::<(), _>(error).context("while starting").unwrap_err();
            assert_eq!(code(&error), expected, "{error:#}");
        }
    }
}

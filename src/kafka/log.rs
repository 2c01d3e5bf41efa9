//! Forwards librdkafka's log lines to `tracing`.
//!
//! Owns the mapping of levels, and the target `librdkafka` for filters.
//!
//! librdkafka queues its log lines, and the bindings deliver them from inside a poll of the client,
//! on the polling thread. Two consequences shape this file:
//! - Each line ends a poll without a wait. [`next_event`] therefore polls on as long as lines were
//!   delivered, or a rebalance behind a burst of lines would be served late.
//! - A broken connection logs a line several times a second for each broker and client. Such lines
//!   are logged at debug level, and `error/error_log.rs` writes one summary for the process.

use super::error::error_log;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, ClientContext};
use std::cell::Cell;
use std::time::Duration;

/// The facilities under which librdkafka logs that a connection, or a request on it, fails.
const CONNECTION_FACILITIES: [&str; 2] = ["FAIL", "REQTMOUT"];
/// Under `ERROR` it logs all errors that no caller takes as events. Only this one is about
/// connections.
const ALL_BROKERS_DOWN: &str = "brokers are down";

thread_local! {
    /// The number of lines that this thread has forwarded.
    static LINES: Cell<u64> = const { Cell::new(0) };
}

/// The most lines that are served before a caller continues with its own work.
const LINES_MAX: usize = 1_000;

/// The next event of a client that is already available. The bindings end a poll without a wait at
/// each log line, so that an event behind several lines, even a rebalance, would wait for as many
/// polls.
pub(crate) fn next_event<C: ConsumerContext>(
    client: &BaseConsumer<C>,
) -> Option<KafkaResult<BorrowedMessage<'_>>> {
    for _ in 0..LINES_MAX {
        let before = LINES.get();
        let event = client.poll(Duration::ZERO);
        if event.is_some() || LINES.get() == before {
            return event;
        }
    }
    None
}

/// Forwards a line, at the level nearest to its own. Failed connections are summarised for the
/// whole process, and other warnings are logged once a minute for each kind.
pub(crate) fn forward(level: RDKafkaLogLevel, facility: &str, message: &str) {
    LINES.set(LINES.get() + 1);
    let message = super::config::mask_userinfo(message);
    let is_warning = level as i32 <= RDKafkaLogLevel::Warning as i32;
    if CONNECTION_FACILITIES.contains(&facility) || message.ends_with(ALL_BROKERS_DOWN) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
        // Connections that brokers close because they are idle are logged as information.
        if is_warning {
            // The logging thread does not matter.
            let (_, told) = message.split_once("]: ").unwrap_or(("", &message));
            error_log::connection_failed(Some(told));
        }
        return;
    }
    if is_warning && error_log::is_due(facility).is_none() {
        tracing::debug!(target: "librdkafka", facility, "{message}");
        return;
    }
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// Sets librdkafka's log level to that of the subscriber, so that it formats no unused lines.
///
/// A `log_level` in the user's properties has precedence. It is moved because the client's own
/// level would override it.
///
/// The level is that of the moment at which a client is created. A filter that is changed later
/// hides lines, but shows no finer ones than the client formats.
pub(super) fn set_level(config: &mut ClientConfig) {
    let asked = config.get("log_level").and_then(|level| level.parse().ok());
    config.set_log_level(match asked {
        Some(0..=3) => RDKafkaLogLevel::Error,
        Some(4) => RDKafkaLogLevel::Warning,
        Some(5 | 6) => RDKafkaLogLevel::Info,
        Some(_) => RDKafkaLogLevel::Debug,
        None if tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG) => {
            RDKafkaLogLevel::Debug
        }
        // Some causes of failed connections are logged at this level.
        None => RDKafkaLogLevel::Info,
    });
}

/// A client context that only logs. For clients whose errors appear in the results of requests.
#[derive(Clone, Default)]
pub(crate) struct LoggingContext;

impl ClientContext for LoggingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        error_log::report_client_error(&error, reason);
    }
}

impl ConsumerContext for LoggingContext {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_do_not_delay_the_events_behind_them() {
        let mut config = ClientConfig::new();
        // Nothing listens on the discard port.
        config.set("bootstrap.servers", "127.0.0.1:9");
        config.set("group.id", "g").set("debug", "broker");
        config.set_log_level(RDKafkaLogLevel::Debug);
        let client: BaseConsumer<LoggingContext> = config
            .create_with_context(LoggingContext)
            .expect("a client");
        std::thread::sleep(Duration::from_millis(300));
        let before = LINES.get();
        let _ = next_event(&client);
        let served = LINES.get() - before;
        assert!(served > 5, "{served} lines");
    }
}

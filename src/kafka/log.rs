//! librdkafka's log lines in our log.
//!
//! Owns the mapping of levels and the target `librdkafka` under which they can be filtered.

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

/// Passes one line on, at the level nearest to its own.
pub(crate) fn forward(level: RDKafkaLogLevel, facility: &str, message: &str) {
    let message = super::config::mask_userinfo(message);
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

/// Asks librdkafka for no more than is listened to, so that it need not format lines that nobody reads.
///
/// A `log_level` among the user's properties counts instead; it is moved because the client's own level would win.
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
        None if tracing::enabled!(target: "librdkafka", tracing::Level::INFO) => {
            RDKafkaLogLevel::Info
        }
        None => RDKafkaLogLevel::Warning,
    });
}

/// A client context that does nothing but log.
#[derive(Clone, Default)]
pub(crate) struct LoggingContext;

impl ClientContext for LoggingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "librdkafka", %error, "{reason}");
    }
}

impl rdkafka::consumer::ConsumerContext for LoggingContext {}

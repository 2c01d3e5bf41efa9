//! The error of a setting.

use super::mask::{self, mask_userinfo};

/// A setting that cannot be used: of a connection, a consumer, a publisher or a store.
///
/// It is found before anything is sent or started. A retry with the same settings fails in the same
/// way: correct the setting that it names, and start again. The programs of this workspace exit
/// with the code of a usage error.
///
/// ```
/// use evenkeel::kafka::KafkaConfig;
///
/// let error = KafkaConfig::new("").validate().expect_err("no broker is named");
/// assert_eq!(error.setting, "brokers");
/// assert!(error.to_string().starts_with("brokers: no bootstrap server"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The name of the setting: a field, a property of librdkafka, an environment variable or a
    /// file.
    pub setting: String,
    /// The fault and its remedy. Contains no secret, so it may be logged.
    pub reason: String,
}

impl ConfigError {
    /// Creates an error for a setting, with the reason. For settings of a service's own that are
    /// checked beside evenkeel's. The reason should name the remedy, and no secret.
    pub fn new(setting: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            setting: setting.into(),
            reason: reason.into(),
        }
    }

    /// Converts librdkafka's error about a setting or a combination of settings. Never contains the
    /// value of a secret.
    pub(crate) fn from_client(error: rdkafka::error::KafkaError) -> Self {
        match error {
            rdkafka::error::KafkaError::ClientConfig(_, _, setting, _)
                if mask::is_secret(&setting) =>
            {
                Self::new(setting, "librdkafka does not accept this value")
            }
            rdkafka::error::KafkaError::ClientConfig(_, reason, setting, _) => {
                Self::new(setting, reason)
            }
            rdkafka::error::KafkaError::ClientCreation(reason) => {
                Self::new("kafka", mask_userinfo(&reason))
            }
            other => Self::new("kafka", other.to_string()),
        }
    }
}

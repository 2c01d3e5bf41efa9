//! The error of a setting.

use super::mask::{self, mask_userinfo};

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct ConfigError {
    /// The name of the setting.
    pub setting: String,
    /// The fault and its remedy. Contains no secret.
    pub reason: String,
}

impl ConfigError {
    /// Creates an error for a setting, with the reason.
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

//! A running Kafka that the environment names.
//!
//! If it does not answer, that is an error and not a reason to start another one: the tests would
//! silently run against another Kafka than the configured one.

use super::cluster::{ADMIN_TIMEOUT, ClusterOwner};
use crate::kafka::KafkaConfig;
use crate::kafka::admin::Admin;
use crate::testing::{KafkaKind, StartError, TestKafka};

/// The variable that messages name. `KAFKA_BROKERS` is read as well.
pub(in crate::testing) const VARIABLE: &str = "KAFKA_BOOTSTRAP_SERVERS";

/// The environment's Kafka. `None` if the environment names no brokers; an error if they do not
/// answer.
pub(in crate::testing) async fn find() -> Result<Option<TestKafka>, StartError> {
    let Some(variable) = [VARIABLE, "KAFKA_BROKERS"]
        .into_iter()
        .find(|name| std::env::var(name).is_ok_and(|brokers| !brokers.trim().is_empty()))
    else {
        return Ok(None);
    };
    let config = KafkaConfig::from_env()?;
    Admin::connect(&config, ADMIN_TIMEOUT).await?;
    Ok(Some(TestKafka {
        kind: KafkaKind::Auto,
        description: format!("the Kafka at {}, named by {variable}", config.brokers),
        config,
        backing: ClusterOwner::Found,
    }))
}

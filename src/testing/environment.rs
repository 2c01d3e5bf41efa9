//! A Kafka that somebody runs already, named by the environment.

use super::{ADMIN_TIMEOUT, Backing, KafkaKind, StartError, TestKafka};
use crate::kafka::KafkaConfig;
use crate::kafka::admin::Admin;

/// The variable that reasons name; `KAFKA_BROKERS` is read as well.
pub(super) const VARIABLE: &str = "KAFKA_BOOTSTRAP_SERVERS";

/// The environment's Kafka; none when it names no brokers, an error when they do not answer.
pub(super) async fn find() -> Result<Option<TestKafka>, StartError> {
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
        backing: Backing::Found,
    }))
}

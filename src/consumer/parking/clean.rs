//! Deletes parked records that are settled: nobody reads them again, and retry topics keep what they hold for ever.

use super::super::engine::Engine;
use crate::kafka::admin::Admin;
use crate::kafka::{KafkaConfig, KafkaError};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// How often settled records are deleted.
const CLEAN_EVERY: Duration = Duration::from_secs(60);

/// Deletes what is settled from time to time, until the handle is dropped.
pub(in super::super) fn spawn(engine: &Arc<Engine>, kafka: KafkaConfig) -> AbortOnDropHandle<()> {
    let engine = Arc::clone(engine);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut deleted = HashMap::new();
        loop {
            tokio::time::sleep(CLEAN_EVERY).await;
            if let Err(error) = clean(&engine, &kafka, &mut deleted).await {
                // Brokers may refuse it. What is settled then stays where it is, and costs its room only.
                tracing::debug!(group = engine.group, %error, "settled records of the retry topics are not deleted");
            }
        }
    }))
}

/// Deletes what was settled since the last time. Only what is committed: nobody may look for the rest again.
async fn clean(
    engine: &Engine,
    kafka: &KafkaConfig,
    deleted: &mut HashMap<(Arc<str>, i32), i64>,
) -> Result<(), KafkaError> {
    let mut due: BTreeMap<Arc<str>, BTreeMap<i32, i64>> = BTreeMap::new();
    for ((topic, partition), committed) in engine.parking.committed() {
        let place = (Arc::clone(&topic), partition);
        if deleted.get(&place).copied().unwrap_or(0) < committed {
            due.entry(topic).or_default().insert(partition, committed);
        }
    }
    if due.is_empty() {
        return Ok(());
    }
    let admin = Admin::connect(kafka, engine.settings.startup_timeout).await?;
    for (topic, before) in due {
        for (partition, first) in admin.delete_records(&topic, &before).await? {
            deleted.insert((Arc::clone(&topic), partition), first);
        }
    }
    Ok(())
}

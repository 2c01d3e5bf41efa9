//! Deletes parked records that are settled: nobody reads them again, and retry topics keep what they hold for ever.

use super::super::engine::Engine;
use crate::kafka::admin::Admin;
use crate::kafka::{KafkaConfig, KafkaError};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;

/// How often settled records are looked for, at most.
const CLEAN_EVERY: Duration = Duration::from_secs(60);

/// Committed offsets of retry partitions.
type Committed = HashMap<(Arc<str>, i32), i64>;

/// Deletes what has been settled for long enough, until the handle is dropped.
pub(in super::super) fn spawn(engine: &Arc<Engine>, kafka: KafkaConfig) -> AbortOnDropHandle<()> {
    let engine = Arc::clone(engine);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let kept = engine.settings.settled_parked_kept;
        let every = kept.clamp(Duration::from_secs(1), CLEAN_EVERY);
        let (mut deleted, mut looks) = (Committed::new(), VecDeque::new());
        loop {
            tokio::time::sleep(every).await;
            looks.push_back((Instant::now(), engine.parking.committed()));
            let mut due = Committed::new();
            while let Some((_, look)) = looks.pop_front_if(|(at, _)| at.elapsed() >= kept) {
                due = look;
            }
            if let Err(error) = clean(&engine, &kafka, due, &mut deleted).await {
                // Brokers may refuse it. What is settled then stays where it is, and costs its room only.
                tracing::debug!(group = engine.group, %error, "settled records of the retry topics are not deleted");
            }
        }
    }))
}

/// Deletes what was committed, and not deleted before.
async fn clean(
    engine: &Engine,
    kafka: &KafkaConfig,
    committed: Committed,
    deleted: &mut Committed,
) -> Result<(), KafkaError> {
    let mut due: BTreeMap<Arc<str>, BTreeMap<i32, i64>> = BTreeMap::new();
    for ((topic, partition), committed) in committed {
        let place = (Arc::clone(&topic), partition);
        if deleted.get(&place).copied().unwrap_or(0) < committed {
            due.entry(topic).or_default().insert(partition, committed);
        }
    }
    if due.is_empty() {
        return Ok(());
    }
    let admin = Admin::connect(kafka, engine.settings.startup_timeout).await?;
    let mut refusal = Ok(());
    for (topic, before) in due {
        match admin.delete_records(&topic, &before).await {
            Ok(firsts) => {
                let places = firsts.into_iter();
                deleted.extend(
                    places.map(|(partition, first)| ((Arc::clone(&topic), partition), first)),
                );
            }
            Err(error) => refusal = Err(error),
        }
    }
    refusal
}

//! Watches what a contestant does, in its database and on the topic of its results. Owns the check
//! of the answer.

use super::peer::Peer;
use super::work::RESULTS;
use super::{results, tables};
use crate::spec::{Data, Spec};
use ::evenkeel::kafka::KafkaConfig;
use ::evenkeel::kafka::admin::{Admin, NewTopic};
use anyhow::bail;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Interval between two readings of the table or the topic.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// A turn fails after this time without an effect or a result. The JVM starts within it.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Time limit of a request to the brokers.
const REQUEST_MAX: Duration = Duration::from_secs(15);
/// The results are needed until they are compared.
const RETENTION_MS: &str = "3600000";

/// The database and the topic of a contestant.
pub(super) struct Progress {
    pool: PgPool,
    admin: Admin,
    kafka: KafkaConfig,
    /// The end of each partition of the topic before the contestant was started.
    before: BTreeMap<i32, i64>,
    data: Data,
}

impl Progress {
    /// Creates the contestants' tables, and the topic of their results if it does not exist.
    pub(super) async fn open(spec: &Spec, database: &str) -> anyhow::Result<Self> {
        let pool = PgPoolOptions::new().max_connections(1);
        let pool = pool.connect(database).await?;
        tables::create(&pool).await?;
        let kafka = spec.kafka()?;
        let admin = Admin::connect(&kafka, REQUEST_MAX).await?;
        let topic = NewTopic::new(RESULTS)
            .with_partitions(spec.data.partitions)
            .with_setting("retention.ms", RETENTION_MS);
        admin.create_topics(&[topic]).await?;
        let mut progress = Self {
            pool,
            admin,
            kafka,
            before: BTreeMap::new(),
            data: spec.data,
        };
        progress.before = progress.ends().await?;
        Ok(progress)
    }

    /// Waits for this number of effects. Returns how many there were.
    pub(super) async fn wait_for_effects(
        &self,
        peer: &mut Peer,
        effects: u64,
    ) -> anyhow::Result<u64> {
        let read = async || anyhow::Ok(tables::effects(&self.pool, self.data.records).await?);
        wait_for(peer, effects, "effects", read).await
    }

    /// Waits for this number of records on the topic of the results.
    pub(super) async fn wait_for_results(
        &self,
        peer: &mut Peer,
        results: u64,
    ) -> anyhow::Result<u64> {
        wait_for(peer, results, "results", async || self.results().await).await
    }

    /// The number of records on the topic of the results.
    pub(super) async fn results(&self) -> anyhow::Result<u64> {
        let sum = |ends: &BTreeMap<i32, i64>| -> i64 { ends.values().sum() };
        Ok((sum(&self.ends().await?) - sum(&self.before)).unsigned_abs())
    }

    /// Fails unless each event has its effect once, and its result under one id. Returns the number
    /// of results that are there again.
    pub(super) async fn check(&self) -> anyhow::Result<u64> {
        let keys = self.data.keys as u64;
        tables::check(&self.pool, keys, self.data.records / keys).await?;
        let ends = self.ends().await?;
        results::check(self.kafka.clone(), self.data, &self.before, &ends).await
    }

    /// The ends of the topic's partitions.
    async fn ends(&self) -> anyhow::Result<BTreeMap<i32, i64>> {
        let topic = self.admin.describe_topic(RESULTS).await?;
        let ends = topic.partitions.iter();
        Ok(ends.map(|of| (of.partition, of.high)).collect())
    }
}

/// Reads until `target` is reached. Fails if the contestant ends or makes no progress.
async fn wait_for(
    peer: &mut Peer,
    target: u64,
    what: &str,
    read: impl AsyncFn() -> anyhow::Result<u64>,
) -> anyhow::Result<u64> {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let now = read().await?;
        if now >= target {
            return Ok(now);
        }
        if now > last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > SILENCE_MAX {
            bail!(
                "{now} of {target} {what}, and then nothing; {}",
                peer.log_end()
            );
        }
        peer.check()?;
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

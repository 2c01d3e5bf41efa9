//! The state of a run from outside, sampled once per second: lag of the groups, effects in the
//! stores, readiness.

use super::lag::Lags;
use crate::shop::services::GATEWAY;
use crate::sources::{count_effects, has_unpublished};
use anyhow::Context;
use evenkeel::kafka::admin::Admin;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// Interval between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// The progress of one service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) lag: i64,
    pub(crate) effects: u64,
}

/// One sample of all services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) services: BTreeMap<&'static str, Progress>,
    /// Sum of the topics' end offsets: the number of records ever published to them.
    pub(crate) end: i64,
    /// Number of records that all groups have settled.
    pub(crate) settled: i64,
    /// Whether a service or a gateway has committed events that are not published yet.
    pub(crate) is_unpublished: bool,
}

impl Sample {
    /// Number of records that some group has not settled, parked or not.
    pub(crate) fn lag(&self) -> i64 {
        self.services.values().map(|progress| progress.lag).sum()
    }
}

/// Takes samples.
pub(crate) struct Sampler {
    pub(crate) lags: Lags,
    pub(crate) directory: PathBuf,
}

impl Sampler {
    /// Reads the state of every group and every store.
    pub(crate) async fn take(&self) -> anyhow::Result<Sample> {
        let lags = self.lags.clone();
        let looked = tokio::task::spawn_blocking(move || lags.look()).await?;
        let positions = looked.context("cannot read the groups' positions")?;
        let mut sample = Sample {
            end: positions.end,
            settled: positions.settled,
            ..Sample::default()
        };
        for (service, lag) in positions.lag {
            let store = store_of(&self.directory, service);
            let effects = count_effects(&store).await?;
            sample.is_unpublished |= has_unpublished(&store).await?;
            sample.services.insert(service, Progress { lag, effects });
        }
        sample.is_unpublished |= has_unpublished(&store_of(&self.directory, GATEWAY)).await?;
        Ok(sample)
    }
}

/// The number of records in a service's retry topics: those of `existing` that are named after its
/// group.
pub(crate) async fn parked(
    admin: &Admin,
    service: &str,
    existing: &[String],
) -> anyhow::Result<i64> {
    let prefix = format!("retry.{service}.");
    let own = existing.iter().filter(|topic| topic.starts_with(&prefix));
    let topics: Vec<String> = own.cloned().collect();
    if topics.is_empty() {
        return Ok(0);
    }
    let partitions = admin.group_lag(service, &topics).await?;
    Ok(partitions.iter().map(|partition| partition.lag).sum())
}

/// Takes samples in the background until it is dropped.
pub(crate) struct Watch {
    latest: watch::Receiver<Look>,
    task: JoinHandle<()>,
}

/// A sample, or the reason why there is none, with its time.
#[derive(Clone)]
pub(crate) struct Look {
    pub(crate) at: Instant,
    pub(crate) sample: Result<Sample, String>,
}

impl Look {
    fn now(sample: Result<Sample, String>) -> Self {
        let at = Instant::now();
        Self { at, sample }
    }
}

impl Watch {
    /// Starts with a first look, which may fail on a machine that is busy with the daemons' start.
    pub(crate) async fn start(sampler: Sampler) -> Self {
        let take = async || sampler.take().await.map_err(|error| format!("{error:#}"));
        let (sender, latest) = watch::channel(Look::now(take().await));
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let sample = sampler.take().await.map_err(|error| format!("{error:#}"));
                if sender.send(Look::now(sample)).is_err() {
                    return;
                }
            }
        });
        Self { latest, task }
    }

    /// The latest look.
    pub(crate) fn latest(&self) -> Look {
        self.latest.borrow().clone()
    }

    /// Waits for the next sample.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Result<Sample, String>> {
        self.latest.changed().await?;
        Ok(self.latest.borrow_and_update().sample.clone())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The path of the store of a service, or of the gateways.
pub(crate) fn store_of(directory: &Path, service: &str) -> PathBuf {
    directory.join(format!("{service}.db"))
}

/// Whether the daemon with this admin port reports that it is ready.
pub(crate) async fn is_ready(port: u16) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        std::io::Result::Ok(&status == b"HTTP/1.1 200")
    };
    let answer = tokio::time::timeout(Duration::from_millis(500), asked).await;
    matches!(answer, Ok(Ok(true)))
}

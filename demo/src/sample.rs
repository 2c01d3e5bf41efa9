//! What the run looks like from outside, taken once a second: lag of the groups, effects in the stores, readiness.

use crate::audit::DUTIES;
use crate::read::{count_effects, has_unpublished};
use evenkeel::kafka::admin::Admin;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Pause between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// How one service is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) lag: i64,
    pub(crate) effects: u64,
}

/// One look at everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) services: BTreeMap<&'static str, Progress>,
    /// Where the topics end, added up: the records that were ever published to them.
    pub(crate) end: i64,
    /// Whether some service has committed events that are yet to be published.
    pub(crate) is_unpublished: bool,
}

impl Sample {
    /// Records that some group still has to settle, parked or not.
    pub(crate) fn lag(&self) -> i64 {
        self.services.values().map(|progress| progress.lag).sum()
    }
}

/// Takes samples.
pub(crate) struct Sampler {
    pub(crate) admin: Admin,
    pub(crate) directory: PathBuf,
}

impl Sampler {
    /// Looks at every group and every store.
    pub(crate) async fn take(&self) -> anyhow::Result<Sample> {
        let mut sample = Sample::default();
        let mut ends = BTreeMap::new();
        let existing = self.admin.topics().await?;
        for (service, kinds) in DUTIES {
            let mut topics: Vec<String> =
                kinds.iter().map(|(topic, _)| (*topic).to_owned()).collect();
            topics.sort();
            topics.dedup();
            let partitions = self.admin.group_lag(service, &topics).await?;
            let lag: i64 = partitions.iter().map(|partition| partition.lag).sum();
            let progress = Progress {
                lag: lag + parked(&self.admin, service, &existing).await?,
                effects: count_effects(&store_of(&self.directory, service)).await?,
            };
            sample.is_unpublished |= has_unpublished(&store_of(&self.directory, service)).await?;
            sample.services.insert(service, progress);
            for partition in partitions {
                // The first look counts: an end seen later could hide a record that came after an earlier group's look.
                ends.entry((partition.topic, partition.partition))
                    .or_insert(partition.high);
            }
        }
        sample.end = ends.values().sum();
        Ok(sample)
    }
}

/// The records that wait on a service's retry topics: those of `existing` that are named after its group.
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
    latest: watch::Receiver<Result<Sample, String>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Starts with a first sample.
    pub(crate) async fn start(sampler: Sampler) -> anyhow::Result<Self> {
        let (sender, latest) = watch::channel(Ok(sampler.take().await?));
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                let sample = sampler.take().await.map_err(|error| format!("{error:#}"));
                if sender.send(sample).is_err() {
                    return;
                }
            }
        });
        Ok(Self { latest, task })
    }

    /// The latest sample, or why there is none.
    pub(crate) fn latest(&self) -> Result<Sample, String> {
        self.latest.borrow().clone()
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Result<Sample, String>> {
        self.latest.changed().await?;
        Ok(self.latest.borrow_and_update().clone())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where a service keeps its store.
pub(crate) fn store_of(directory: &Path, service: &str) -> PathBuf {
    directory.join(format!("{service}.db"))
}

/// Whether the daemon with this admin port says that it is ready.
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

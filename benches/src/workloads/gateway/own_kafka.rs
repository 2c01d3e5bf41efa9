//! An Apache Kafka of a turn's own, which the turn may freeze, or stop and start again.
//!
//! One broker, a Java process on 127.0.0.1, with its data in a temporary folder. A broker whose
//! data outlives it cannot be frozen.

use crate::spec::Spec;
use anyhow::{Context, bail};
use evenkeel::testing::{TestKafka, unique};
use tempfile::TempDir;

/// The broker. Ends with the value, at the latest with the process.
pub(super) struct OwnKafka {
    /// None while it is stopped.
    broker: Option<TestKafka>,
    brokers: String,
    /// The data of a broker that can be started again. Dropped after the broker.
    directory: Option<TempDir>,
}

impl OwnKafka {
    /// Starts a broker that can be stopped and started again. Needs Java.
    pub(super) async fn start_with_stops() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let broker = TestKafka::start_in(directory.path()).await;
        let broker = broker.context("this turn needs a Kafka that it can stop")?;
        Ok(Self::of(broker, Some(directory)))
    }

    /// Starts a broker that can be frozen. Needs Java.
    pub(super) async fn start_with_freezes() -> anyhow::Result<Self> {
        let broker = TestKafka::start_with(&[]).await;
        let broker = broker.context("this turn needs a Kafka that it can freeze")?;
        Ok(Self::of(broker, None))
    }

    fn of(broker: TestKafka, directory: Option<TempDir>) -> Self {
        eprintln!("a Kafka of the turn's own: {}", broker.description());
        Self {
            brokers: broker.brokers().to_owned(),
            broker: Some(broker),
            directory,
        }
    }

    /// The input of the turn on this broker, with a new topic.
    pub(super) async fn spec(&self, spec: &Spec) -> anyhow::Result<Spec> {
        let topic = unique("evenkeel-bench");
        let broker = self.running()?;
        broker.create_topic(&topic, spec.data.partitions).await?;
        Ok(Spec {
            brokers: self.brokers.clone(),
            topic,
            ..spec.clone()
        })
    }

    /// Kills the broker. Its connections break, and new ones are refused.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let broker = self.broker.take();
        // Its end is waited for, which must not hold up the tasks of this thread.
        tokio::task::spawn_blocking(move || drop(broker)).await?;
        Ok(())
    }

    /// Starts the broker with its data, at the same address.
    pub(super) async fn start_again(&mut self) -> anyhow::Result<()> {
        let directory = self.directory.as_ref();
        let directory = directory.context("the broker has no data any more")?;
        self.broker = Some(TestKafka::start_in(directory.path()).await?);
        Ok(())
    }

    /// Suspends the broker: connections remain, and no request is answered.
    pub(super) async fn freeze(&self) -> anyhow::Result<()> {
        Ok(self.running()?.freeze().await?)
    }

    /// Resumes the broker.
    pub(super) async fn thaw(&self) -> anyhow::Result<()> {
        Ok(self.running()?.thaw().await?)
    }

    fn running(&self) -> anyhow::Result<&TestKafka> {
        match &self.broker {
            Some(broker) => Ok(broker),
            None => bail!("the broker is stopped"),
        }
    }
}

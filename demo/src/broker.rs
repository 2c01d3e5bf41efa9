//! The broker under chaos: stands still for a while, where the demo started it beside itself.

use crate::chaos::Standstill;
use anyhow::Context;
use evenkeel::testing::TestKafka;
use std::collections::VecDeque;
use std::time::Duration;

/// The broker, and when it stands still.
pub(crate) struct Broker<'a> {
    /// None where it must not be frozen: it is somebody else's, or a part of this process.
    kafka: Option<&'a TestKafka>,
    to_come: VecDeque<Standstill>,
    /// When it goes on, from the start of the load.
    frozen_until: Option<Duration>,
}

impl<'a> Broker<'a> {
    /// A broker that stands still no time yet.
    pub(crate) fn new(kafka: Option<&'a TestKafka>) -> Self {
        Self {
            kafka,
            to_come: VecDeque::new(),
            frozen_until: None,
        }
    }

    /// Has it stand still at these times, which are in order. Returns a line where it cannot.
    pub(crate) fn expect(&mut self, standstills: Vec<Standstill>) -> Option<&'static str> {
        match self.kafka {
            Some(_) => {
                self.to_come = standstills.into();
                None
            }
            None => Some(
                "the broker is not frozen: it is somebody else's, or the mock cluster in this process",
            ),
        }
    }

    /// Freezes it or has it go on, if it is time. Returns a line that says so.
    pub(crate) async fn tick(&mut self, now: Duration) -> anyhow::Result<Option<String>> {
        if self.frozen_until.is_some_and(|until| until <= now) {
            self.relieve().await?;
            return Ok(Some("the broker goes on".to_owned()));
        }
        let Some((kafka, next)) = self.kafka.zip(self.to_come.front().copied()) else {
            return Ok(None);
        };
        if next.at > now || self.frozen_until.is_some() {
            return Ok(None);
        }
        self.to_come.pop_front();
        kafka
            .freeze()
            .await
            .context("the broker cannot be frozen")?;
        // Late is not longer.
        self.frozen_until = Some(now + next.span);
        let seconds = next.span.as_secs_f64();
        Ok(Some(format!("the broker stands still for {seconds:.1} s")))
    }

    /// Has it go on at once.
    pub(crate) async fn relieve(&mut self) -> anyhow::Result<()> {
        if let Some(kafka) = self.kafka.filter(|_| self.frozen_until.is_some()) {
            kafka.thaw().await.context("the broker cannot go on")?;
            self.frozen_until = None;
        }
        Ok(())
    }
}

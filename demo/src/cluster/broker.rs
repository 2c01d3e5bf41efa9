//! The broker under chaos: it is frozen for a while, if the demo started it as a separate process.

use crate::chaos::Standstill;
use anyhow::Context;
use evenkeel::testing::TestKafka;
use std::collections::VecDeque;
use std::time::Duration;

/// The broker and its planned standstills.
pub(crate) struct Broker<'a> {
    /// `None` if it must not be frozen: the demo did not start it, or it is part of this process.
    kafka: Option<&'a TestKafka>,
    to_come: VecDeque<Standstill>,
    /// End of the current standstill, from the start of the load.
    frozen_until: Option<Duration>,
}

impl<'a> Broker<'a> {
    /// A broker without standstills.
    pub(crate) fn new(kafka: Option<&'a TestKafka>) -> Self {
        Self {
            kafka,
            to_come: VecDeque::new(),
            frozen_until: None,
        }
    }

    /// Plans these standstills, which are sorted. Returns a message if the broker cannot be frozen.
    pub(crate) fn expect(&mut self, standstills: Vec<Standstill>) -> Option<&'static str> {
        match self.kafka {
            Some(_) => {
                self.to_come = standstills.into();
                None
            }
            None => Some(
                "the broker is not frozen: the demo did not start it, or it is the mock cluster",
            ),
        }
    }

    /// Freezes or thaws the broker if it is time. Returns a message about it.
    pub(crate) async fn tick(&mut self, now: Duration) -> anyhow::Result<Option<String>> {
        if self.frozen_until.is_some_and(|until| until <= now) {
            self.relieve().await?;
            return Ok(Some("the broker resumes".to_owned()));
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
        // A late start does not make the standstill longer.
        self.frozen_until = Some(now + next.span);
        let seconds = next.span.as_secs_f64();
        Ok(Some(format!("the broker is frozen for {seconds:.1} s")))
    }

    /// Thaws the broker immediately.
    pub(crate) async fn relieve(&mut self) -> anyhow::Result<()> {
        if let Some(kafka) = self.kafka.filter(|_| self.frozen_until.is_some()) {
            kafka.thaw().await.context("the broker cannot be resumed")?;
            self.frozen_until = None;
        }
        Ok(())
    }
}

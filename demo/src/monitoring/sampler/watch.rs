//! Samples once per second, in the background.

use super::Sampler;
use crate::monitoring::latest::Round;
use crate::monitoring::rates::History;
use crate::monitoring::readiness::ready_of;
use anyhow::Context;
use std::collections::BTreeSet;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

/// Interval between two rounds.
const INTERVAL: Duration = Duration::from_secs(1);

/// Takes samples until it is ended or dropped.
pub(crate) struct Watch {
    latest: watch::Receiver<Round>,
    ready: watch::Receiver<BTreeSet<u16>>,
    thread: JoinHandle<io::Result<()>>,
}

impl Watch {
    /// Starts the sampler on a thread with a runtime of its own: callers and streams share the
    /// demo's, and would delay it under load. Waits for the end of the first round.
    ///
    /// # Errors
    /// If the thread cannot be started, or ends.
    pub(crate) async fn start(sampler: Sampler, admin_ports: Vec<u16>) -> anyhow::Result<Self> {
        let thread = thread::Builder::new().name("demo-sampler".to_owned());
        Self::start_on(thread, sampler, admin_ports).await
    }

    pub(super) async fn start_on(
        thread: thread::Builder,
        sampler: Sampler,
        admin_ports: Vec<u16>,
    ) -> anyhow::Result<Self> {
        let (rounds, latest) = watch::channel(sampler.latest.merge(Instant::now()));
        let (readiness, ready) = watch::channel(BTreeSet::new());
        // The runtime is made on its thread: it must not be dropped here, in another runtime.
        let sample = move || -> io::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                tokio::join!(run(sampler, rounds), probe(&admin_ports, readiness))
            });
            // Does not wait for requests to brokers.
            runtime.shutdown_background();
            Ok(())
        };
        let thread = thread
            .spawn(sample)
            .context("cannot start the sampler's thread")?;
        let mut watch = Self {
            latest,
            ready,
            thread,
        };
        let Err(ended) = watch.next().await else {
            return Ok(watch);
        };
        match watch.thread.join() {
            Ok(Err(error)) => Err(error).context("cannot start the sampler's runtime"),
            _ => Err(ended),
        }
    }

    /// The latest round.
    pub(crate) fn latest(&self) -> Round {
        self.latest.borrow().clone()
    }

    /// Waits for the end of the next round.
    ///
    /// # Errors
    /// If the sampler's thread has ended.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Round> {
        let changed = self.latest.changed().await;
        changed.context("the sampler has ended")?;
        Ok(self.latest.borrow_and_update().clone())
    }

    /// Whether the daemon with this admin port was ready when it was probed last.
    pub(crate) fn is_ready(&self, admin_port: u16) -> bool {
        self.ready.borrow().contains(&admin_port)
    }

    /// Ends the sampler, and waits for its thread. Does not wait for requests to brokers.
    ///
    /// # Errors
    /// If the thread panicked.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        // The thread ends when nobody receives its samples.
        drop((self.latest, self.ready));
        let thread = self.thread;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
        let ended = joined.map_err(|_| anyhow::anyhow!("the sampler panicked"))?;
        Ok(ended?)
    }
}

/// Runs rounds until nobody watches. The last one is not waited for.
async fn run(mut sampler: Sampler, rounds: watch::Sender<Round>) {
    let (mut ticks, mut history) = (ticks(), History::default());
    loop {
        let round = async {
            ticks.tick().await;
            sampler.round().await
        };
        let mut round = tokio::select! {
            round = round => round,
            () = rounds.closed() => return,
        };
        if let Some(at) = round.positions_at {
            history.add(at, &round.sample);
        }
        round.rates = history.rates();
        rounds.send_replace(round);
    }
}

/// Probes all daemons once per second until nobody watches. Apart from the rounds, which a frozen
/// daemon must not delay.
async fn probe(admin_ports: &[u16], ready: watch::Sender<BTreeSet<u16>>) {
    let mut ticks = ticks();
    loop {
        let probed = async {
            ticks.tick().await;
            ready_of(admin_ports).await
        };
        let probed = tokio::select! {
            probed = probed => probed,
            () = ready.closed() => return,
        };
        ready.send_replace(probed);
    }
}

/// Ticks at the interval, and at once after a round that took longer.
fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

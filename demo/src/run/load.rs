//! The load: orders come in, and chaos strikes if it is asked for.

use super::ended_well;
use crate::args::Args;
use crate::broker::Broker;
use crate::chaos::{schedule, standstills, turns};
use crate::fleet::{Daemon, Fleet, Process};
use crate::live::Live;
use crate::provider::Provider;
use crate::sample::{Watch, is_ready};
use crate::shop::{CUSTOMERS, Shop};
use anyhow::bail;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(100);
/// How often the display is refreshed.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);
/// How long the orders command may take beyond its time, for the last acknowledgements.
const OVERTIME_MAX: Duration = Duration::from_secs(120);

/// What takes part in the load.
pub(super) struct Load<'a> {
    pub(super) shop: &'a Shop<'a>,
    pub(super) fleet: &'a mut Fleet,
    pub(super) provider: &'a mut Provider,
    pub(super) broker: Broker<'a>,
    pub(super) watch: &'a Watch,
    pub(super) live: &'a mut Live,
}

impl Load<'_> {
    /// Carries the load until the orders command has ended.
    pub(super) async fn carry(&mut self, args: &Args, seed: u64) -> anyhow::Result<()> {
        let carried = self.until_ended(args, seed).await;
        self.broker.relieve().await?;
        carried
    }

    async fn until_ended(&mut self, args: &Args, seed: u64) -> anyhow::Result<()> {
        let program = self.shop.orders(args, seed)?;
        let mut orders = Process::start(&program, &mut self.fleet.guard)?;
        let started = Instant::now();
        let (blows, turns) = match args.chaos {
            true => (
                schedule(seed, args.load, self.fleet.daemons.len()),
                turns(seed, args.load, CUSTOMERS),
            ),
            false => (Vec::new(), Vec::new()),
        };
        if args.chaos {
            let standstills = standstills(seed, args.load);
            if let Some(line) = self.broker.expect(standstills) {
                self.live.say(line);
            }
        }
        let mut blows = blows.into_iter().peekable();
        let mut turns = turns.into_iter().peekable();
        let mut show_due = started;
        loop {
            if let Some(status) = orders.ended(&mut self.fleet.guard)? {
                ended_well(&program, status)?;
                self.live.say("no more orders");
                return Ok(());
            }
            while let Some(blow) = blows.next_if(|blow| blow.at <= started.elapsed()) {
                if let Some(line) = self.fleet.strike(&blow).await? {
                    self.live.say(&line);
                }
            }
            while let Some(turn) = turns.next_if(|turn| turn.at <= started.elapsed()) {
                let line = self.provider.tell(turn.conduct).await?;
                self.live.say(&line);
            }
            if let Some(line) = self.broker.tick(started.elapsed()).await? {
                self.live.say(&line);
            }
            self.provider.must_live(&mut self.fleet.guard)?;
            for line in self.fleet.tick().await? {
                self.live.say(&line);
            }
            if show_due <= Instant::now() {
                show_due += SHOW_INTERVAL;
                show("orders come in", self.fleet, self.watch, self.live).await;
            }
            if started.elapsed() > args.load + OVERTIME_MAX {
                bail!(
                    "the orders command had not ended {} s after its time",
                    OVERTIME_MAX.as_secs()
                );
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

/// Shows the latest sample with the daemons' states.
pub(super) async fn show(phase: &str, fleet: &Fleet, watch: &Watch, live: &mut Live) {
    let sample = match watch.latest() {
        Ok(sample) => sample,
        Err(error) => {
            live.say(&format!("no sample: {error}"));
            return;
        }
    };
    let mut daemons: Vec<(&Daemon, bool)> = Vec::new();
    for daemon in &fleet.daemons {
        // One that is frozen accepts and never answers: asking it would only cost time.
        let up = daemon.state == crate::fleet::State::Up;
        daemons.push((daemon, up && is_ready(daemon.admin_port).await));
    }
    live.show(phase, &sample, &daemons);
}

//! The load: orders arrive, and chaos strikes if requested.

use super::rate_control::RateControl;
use crate::args::Args;
use crate::chaos::{schedule, standstills, turns};
use crate::cluster::broker::Broker;
use crate::monitoring::progress::ProgressDisplay;
use crate::monitoring::sample::{Watch, is_ready};
use crate::shop::provider::Provider;
use crate::shop::{CUSTOMERS, Shop};
use crate::supervisor::{Daemon, Process, Supervisor};
use anyhow::bail;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(100);
/// Interval at which the display is refreshed.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);
/// How long the orders command may exceed its time, for the last acknowledgements.
const OVERTIME_MAX: Duration = Duration::from_secs(120);

/// The participants of the load.
pub(super) struct Load<'a> {
    pub(super) shop: &'a Shop<'a>,
    pub(super) supervisor: &'a mut Supervisor,
    pub(super) provider: &'a mut Provider,
    pub(super) broker: Broker<'a>,
    pub(super) watch: &'a Watch,
    pub(super) display: &'a mut ProgressDisplay,
}

impl Load<'_> {
    /// Runs the load until the orders command has ended.
    pub(super) async fn carry(&mut self, args: &Args, seed: u64) -> anyhow::Result<()> {
        let carried = self.until_ended(args, seed).await;
        self.broker.relieve().await?;
        carried
    }

    async fn until_ended(&mut self, args: &Args, seed: u64) -> anyhow::Result<()> {
        let program = self.shop.orders(args, seed)?;
        let mut orders = Process::start(&program, &mut self.supervisor.guard)?;
        let started = Instant::now();
        // Under chaos, faults delay work too, so the lag does not measure the machine.
        let mut pace = (!args.chaos).then(|| RateControl::new(started, args.rate));
        let mut looked = None;
        let (blows, turns) = match args.chaos {
            true => (
                schedule(seed, args.load, self.supervisor.daemons.len()),
                turns(seed, args.load, CUSTOMERS),
            ),
            false => (Vec::new(), Vec::new()),
        };
        if args.chaos {
            let standstills = standstills(seed, args.load);
            if let Some(line) = self.broker.expect(standstills) {
                self.display.say(line);
            }
        }
        let mut blows = blows.into_iter().peekable();
        let mut turns = turns.into_iter().peekable();
        let mut show_due = started;
        loop {
            if let Some(status) = orders.ended(&mut self.supervisor.guard)? {
                program.ended_well(status)?;
                self.display.say("all orders are placed");
                return Ok(());
            }
            while let Some(blow) = blows.next_if(|blow| blow.at <= started.elapsed()) {
                if let Some(line) = self.supervisor.strike(&blow).await? {
                    self.display.say(&line);
                }
            }
            while let Some(turn) = turns.next_if(|turn| turn.at <= started.elapsed()) {
                let line = self.provider.tell(turn.conduct).await?;
                self.display.say(&line);
            }
            if let Some(line) = self.broker.tick(started.elapsed()).await? {
                self.display.say(&line);
            }
            self.provider.must_live(&mut self.supervisor.guard)?;
            for line in self.supervisor.tick().await? {
                self.display.say(&line);
            }
            if let Some(pace) = &mut pace {
                let look = self.watch.latest();
                if looked.replace(look.at) != Some(look.at)
                    && let Ok(sample) = &look.sample
                    && let Some((rate, line)) = pace.look(look.at, sample)
                {
                    self.shop.set_rate(rate)?;
                    self.display.say(&line);
                }
            }
            if show_due <= Instant::now() {
                show_due += SHOW_INTERVAL;
                show("placing orders", self.supervisor, self.watch, self.display).await;
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

/// Displays the latest sample with the states of the daemons.
pub(super) async fn show(
    phase: &str,
    supervisor: &Supervisor,
    watch: &Watch,
    display: &mut ProgressDisplay,
) {
    let look = watch.latest();
    let sample = match look.sample {
        Ok(sample) => sample,
        Err(error) => {
            display.complain(look.at, &format!("no sample: {error}"));
            return;
        }
    };
    let mut daemons: Vec<(&Daemon, bool)> = Vec::new();
    for daemon in &supervisor.daemons {
        // A frozen daemon accepts connections and never answers. Querying it would only cost time.
        let up = daemon.state == crate::supervisor::State::Up;
        daemons.push((daemon, up && is_ready(daemon.admin_port).await));
    }
    display.show(phase, &sample, look.at.elapsed(), &daemons);
}

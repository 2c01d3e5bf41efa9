//! The load: orders arrive, by the producer command and over HTTP, and chaos strikes if requested.

use super::rate_control::RateControl;
use crate::args::Args;
use crate::callers::{HttpLoad, Requests};
use crate::chaos::{schedule, standstills, turns};
use crate::cluster::broker::Broker;
use crate::monitoring::load_meter::{LoadMeter, Measured};
use crate::monitoring::progress::ProgressDisplay;
use crate::monitoring::sampler::watch::Watch;
use crate::shop::provider::Provider;
use crate::shop::{CUSTOMERS, Shop};
use crate::supervisor::{Daemon, Process, Program, State, Supervisor};
use anyhow::bail;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(100);
/// Interval at which the display is refreshed.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);
/// How long the orders may exceed their time, for the last acknowledgements and answers.
const OVERTIME_MAX: Duration = Duration::from_secs(120);

/// The participants of the load.
pub(super) struct Load<'a> {
    pub(super) shop: &'a Shop<'a>,
    pub(super) supervisor: &'a mut Supervisor,
    pub(super) provider: &'a mut Provider,
    pub(super) broker: Broker<'a>,
    pub(super) watch: &'a Watch,
    pub(super) display: &'a mut ProgressDisplay,
    /// The orders over HTTP.
    pub(super) http: HttpLoad,
}

/// The parts of a rate that the producer command and the callers over HTTP have.
pub(super) fn parts_of(rate: u32) -> (u32, u32) {
    let http = rate / 2;
    (rate - http, http)
}

impl Load<'_> {
    /// Runs the load until the orders command and the requests over HTTP have ended.
    pub(super) async fn carry(
        mut self,
        args: &Args,
        seed: u64,
    ) -> anyhow::Result<(Requests, Measured)> {
        let (_, http_rate) = parts_of(args.rate);
        self.display.write_line(&format!(
            "{} orders/s for {} s, {http_rate}/s of them over HTTP, seed {seed}",
            args.rate,
            args.load.as_secs()
        ));
        let mut meter = LoadMeter::new(args.chaos, !cfg!(debug_assertions));
        let carried = self.until_ended(args, seed, &mut meter).await;
        self.broker.relieve().await?;
        carried?;
        Ok((self.http.finish().await?, meter.measured))
    }

    async fn until_ended(
        &mut self,
        args: &Args,
        seed: u64,
        meter: &mut LoadMeter,
    ) -> anyhow::Result<()> {
        let (rate, _) = parts_of(args.rate);
        let program = self.shop.orders(args, rate, seed)?;
        let process = Process::start(&program, &mut self.supervisor.guard)?;
        let mut orders = Some(process);
        let started = Instant::now();
        // Under chaos, faults delay work too, so the lag does not measure the machine.
        let mut pace = (!args.chaos).then(|| RateControl::new(started, args.rate));
        let mut adjusted = None;
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
                self.display.write_line(line);
            }
        }
        let mut blows = blows.into_iter().peekable();
        let mut turns = turns.into_iter().peekable();
        let mut show_due = started;
        loop {
            if self.has_ended(&mut orders, &program)? && self.http.has_ended() {
                self.display.write_line("all orders are placed");
                return Ok(());
            }
            while let Some(blow) = blows.next_if(|blow| blow.at <= started.elapsed()) {
                if let Some(line) = self.supervisor.strike(&blow).await? {
                    self.display.write_line(&line);
                }
            }
            while let Some(turn) = turns.next_if(|turn| turn.at <= started.elapsed()) {
                let line = self.provider.set_conduct(turn.conduct).await?;
                self.display.write_line(&line);
            }
            if let Some(line) = self.broker.tick(started.elapsed()).await? {
                self.display.write_line(&line);
            }
            self.provider.must_live(&mut self.supervisor.guard)?;
            for line in self.supervisor.tick().await? {
                self.display.write_line(&line);
            }
            if let Some(line) = meter.observe(Instant::now(), &self.watch.latest()) {
                self.display.write_line(&line);
            }
            if let Some(pace) = &mut pace {
                self.adjust(pace, &mut adjusted)?;
            }
            if show_due <= Instant::now() {
                show_due += SHOW_INTERVAL;
                show("placing orders", self.supervisor, self.watch, self.display);
            }
            if started.elapsed() > args.load + OVERTIME_MAX {
                bail!(
                    "the orders had not ended {} s after their time",
                    OVERTIME_MAX.as_secs()
                );
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Whether the orders command has ended. Fails if it did not end well.
    fn has_ended(
        &mut self,
        orders: &mut Option<Process>,
        program: &Program,
    ) -> anyhow::Result<bool> {
        if let Some(process) = orders
            && let Some(status) = process.ended(&mut self.supervisor.guard)?
        {
            program.ended_well(status)?;
            *orders = None;
        }
        Ok(orders.is_none())
    }

    /// Lowers the rate if the latest positions require it. `adjusted` is the time of the positions
    /// that were processed last.
    fn adjust(
        &mut self,
        pace: &mut RateControl,
        adjusted: &mut Option<Instant>,
    ) -> anyhow::Result<()> {
        let round = self.watch.latest();
        if let Some(at) = round.positions_at
            && adjusted.replace(at) != Some(at)
            && let Some((rate, line)) = pace.observe(at, &round.sample)
        {
            let (rate, http) = parts_of(rate);
            self.shop.set_rate(rate)?;
            self.http.set_rate(http);
            self.display.write_line(&line);
        }
        Ok(())
    }
}

/// Displays the latest round with the states of the daemons.
pub(super) fn show(
    phase: &str,
    supervisor: &Supervisor,
    watch: &Watch,
    display: &mut ProgressDisplay,
) {
    let is_ready = |daemon: &Daemon| daemon.state == State::Up && watch.is_ready(daemon.admin_port);
    let daemons = supervisor.daemons.iter();
    let daemons: Vec<_> = daemons.map(|daemon| (daemon, is_ready(daemon))).collect();
    display.show(phase, &watch.latest(), &daemons);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_rate_add_up_and_the_command_has_one() {
        for rate in [1, 2, 5, 200, u32::MAX] {
            let (command, http) = parts_of(rate);
            assert_eq!(command + http, rate);
            assert!(command >= 1 && command - http <= 1, "{rate}");
        }
    }
}

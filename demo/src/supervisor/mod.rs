//! The processes: every daemon of the shop, some of them twice, and the chaos that affects them.
//!
//! Owns starting, signalling and reaping. Independent of events. It only signals processes that it
//! started, each by its id, and only before it is reaped.

mod daemon;
mod guard;
mod process;
mod signal;

pub(crate) use daemon::{Daemon, State};
pub(crate) use guard::Guard;
pub(crate) use process::{Process, Program, tail};

use crate::chaos::{Blow, Harm};
use daemon::Seen;
use std::time::{Duration, Instant};

/// Interval between checks for ended processes while waiting.
const TICK: Duration = Duration::from_millis(50);

/// The harm to the processes, and their own failures.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Toll {
    pub(crate) kills: u64,
    pub(crate) freezes: u64,
    pub(crate) stops: u64,
    /// Ends that were unexpected, or not clean although they should have been.
    pub(crate) failures: Vec<String>,
}

/// All daemons.
pub(crate) struct Supervisor {
    pub(crate) daemons: Vec<Daemon>,
    pub(crate) toll: Toll,
    pub(crate) guard: Guard,
}

impl Supervisor {
    /// Starts every daemon.
    pub(crate) fn start(daemons: Vec<Daemon>, guard: Guard) -> anyhow::Result<Self> {
        let mut supervisor = Self {
            daemons,
            toll: Toll::default(),
            guard,
        };
        for daemon in &mut supervisor.daemons {
            daemon.start(&mut supervisor.guard)?;
        }
        Ok(supervisor)
    }

    /// Executes a blow. If the victim cannot suffer it now, the next process does. Returns a
    /// message about it.
    pub(crate) async fn strike(&mut self, blow: &Blow) -> anyhow::Result<Option<String>> {
        let count = self.daemons.len();
        let victim = (0..count)
            .map(|step| (blow.victim + step) % count)
            .find(|number| self.daemons[*number].can_suffer(blow.harm));
        let Some(victim) = victim else {
            return Ok(None);
        };
        let daemon = &mut self.daemons[victim];
        daemon.suffer(blow.harm, blow.span).await?;
        let (count, done) = match blow.harm {
            Harm::Kill => (&mut self.toll.kills, "killed, started again"),
            Harm::Freeze => (&mut self.toll.freezes, "frozen, resumed"),
            Harm::Stop => (&mut self.toll.stops, "stopped, started again"),
        };
        *count += 1;
        let seconds = blow.span.as_secs_f64();
        Ok(Some(format!(
            "{} {done} after {seconds:.1} s",
            daemon.program.name
        )))
    }

    /// Checks every daemon once. Returns messages about failures.
    pub(crate) async fn tick(&mut self) -> anyhow::Result<Vec<String>> {
        let now = Instant::now();
        let mut lines = Vec::new();
        for daemon in &mut self.daemons {
            if let Seen::Failed(line) = daemon.tick(&mut self.guard, now).await? {
                self.toll.failures.push(line.clone());
                lines.push(line);
            }
        }
        Ok(lines)
    }

    /// Restarts or thaws every daemon that is down or frozen, immediately.
    pub(crate) fn relieve(&mut self) {
        let now = Instant::now();
        for daemon in &mut self.daemons {
            match &mut daemon.state {
                State::Frozen(until) | State::Down(Some(until)) => *until = now,
                State::Ending(_, Some(span)) => *span = Duration::ZERO,
                _ => {}
            }
        }
    }

    /// Stops every daemon and waits for its end. A daemon that has not ended after `within` is
    /// killed, which is a failure.
    pub(crate) async fn finish(&mut self, within: Duration) -> anyhow::Result<()> {
        for daemon in &mut self.daemons {
            daemon.finish().await?;
        }
        let deadline = Instant::now() + within;
        while self.daemons.iter().any(Daemon::lives) && Instant::now() < deadline {
            tokio::time::sleep(TICK).await;
            self.tick().await?;
        }
        for daemon in self.daemons.iter_mut().filter(|daemon| daemon.lives()) {
            let name = &daemon.program.name;
            let line = format!(
                "{name} had not ended {} s after it was asked to stop",
                within.as_secs()
            );
            self.toll.failures.push(line);
            daemon.kill().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

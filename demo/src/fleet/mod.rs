//! The processes: every daemon of the shop, some of them twice, and what chaos does to them.
//!
//! Owns starting, signalling and reaping. Knows nothing of events. Only processes that were started here are ever
//! signalled, each by its id, and only before it is reaped.

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

/// How often ended processes are looked for while waiting.
const TICK: Duration = Duration::from_millis(50);

/// What was done to the processes, and what they did by themselves.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Toll {
    pub(crate) kills: u64,
    pub(crate) freezes: u64,
    pub(crate) stops: u64,
    /// Ends that nobody asked for, or that were not clean though they should have been.
    pub(crate) failures: Vec<String>,
}

/// All daemons.
pub(crate) struct Fleet {
    pub(crate) daemons: Vec<Daemon>,
    pub(crate) toll: Toll,
    pub(crate) guard: Guard,
}

impl Fleet {
    /// Starts every daemon.
    pub(crate) fn start(daemons: Vec<Daemon>, guard: Guard) -> anyhow::Result<Self> {
        let mut fleet = Self {
            daemons,
            toll: Toll::default(),
            guard,
        };
        for daemon in &mut fleet.daemons {
            daemon.start(&mut fleet.guard)?;
        }
        Ok(fleet)
    }

    /// Strikes; a victim that cannot suffer this now passes it on to the next. Returns a line that says what happened.
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
            Harm::Freeze => (&mut self.toll.freezes, "frozen, goes on"),
            Harm::Stop => (&mut self.toll.stops, "stopped, started again"),
        };
        *count += 1;
        let seconds = blow.span.as_secs_f64();
        Ok(Some(format!(
            "{} {done} after {seconds:.1} s",
            daemon.program.name
        )))
    }

    /// Looks after every daemon once. Returns lines about what went wrong.
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

    /// Brings back every daemon that is frozen or down, at once.
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

    /// Stops every daemon and waits for its end; what has not ended after `within` is killed, which is a failure.
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
                "{name} had not ended {} s after it was told to",
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

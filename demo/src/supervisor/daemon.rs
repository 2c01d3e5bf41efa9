//! One instance of a daemon: its state, the harm to it, and its restart.

use super::guard::Guard;
use super::process::{Process, Program};
use super::signal::Signal;
use crate::chaos::Harm;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// Exit code of a daemon that left records unsettled when it was stopped.
const UNCLEAN: i32 = 5;

/// How long a daemon that ended by itself stays down.
const AFTER_CRASH: Duration = Duration::from_secs(1);

/// The state of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Running.
    Up,
    /// Frozen until this time.
    Frozen(Instant),
    /// Stopped or killed. It is started again this long after its end; `None`: never.
    Ending(Harm, Option<Duration>),
    /// Down until this time; `None`: forever.
    Down(Option<Instant>),
}

/// One instance of a daemon.
pub(crate) struct Daemon {
    pub(crate) program: Program,
    pub(crate) service: &'static str,
    /// Port of its admin endpoints on 127.0.0.1.
    pub(crate) admin_port: u16,
    pub(crate) state: State,
    process: Option<Process>,
}

/// The result of a tick.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// No change.
    Nothing,
    /// It was started (again), or continues after a freeze.
    Back,
    /// It ended as expected.
    Ended,
    /// It ended unexpectedly, or not in the expected way.
    Failed(String),
}

impl Daemon {
    /// A daemon that is not started yet.
    pub(crate) fn new(program: Program, service: &'static str, admin_port: u16) -> Self {
        Self {
            program,
            service,
            admin_port,
            state: State::Down(None),
            process: None,
        }
    }

    /// Starts it.
    pub(crate) fn start(&mut self, guard: &mut Guard) -> anyhow::Result<()> {
        self.process = Some(Process::start(&self.program, guard)?);
        self.state = State::Up;
        Ok(())
    }

    /// Whether `harm` can be done to it now. A kill hits every living process, also a frozen or
    /// draining one.
    pub(crate) fn can_suffer(&self, harm: Harm) -> bool {
        match self.state {
            State::Up => true,
            State::Frozen(_) | State::Ending(Harm::Stop, _) => harm == Harm::Kill,
            _ => false,
        }
    }

    /// Does `harm` to it. It returns after `span`.
    pub(crate) async fn suffer(&mut self, harm: Harm, span: Duration) -> anyhow::Result<()> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        let signal = match harm {
            Harm::Kill => Signal::Kill,
            Harm::Freeze => Signal::Stop,
            Harm::Stop => Signal::Terminate,
        };
        process.signal(signal).await?;
        self.state = match harm {
            Harm::Freeze => State::Frozen(Instant::now() + span),
            harm => State::Ending(harm, Some(span)),
        };
        Ok(())
    }

    /// Checks its state, and restarts it when it is due.
    pub(crate) async fn tick(&mut self, guard: &mut Guard, now: Instant) -> anyhow::Result<Seen> {
        if let Some(process) = &mut self.process
            && let Some(status) = process.ended(guard)?
        {
            self.process = None;
            return Ok(self.ended(status, now));
        }
        match self.state {
            State::Frozen(until) if until <= now => self.thaw().await?,
            State::Down(Some(until)) if until <= now => self.start(guard)?,
            _ => return Ok(Seen::Nothing),
        }
        Ok(Seen::Back)
    }

    /// Thaws it if it is frozen.
    async fn thaw(&mut self) -> anyhow::Result<()> {
        if let (State::Frozen(_), Some(process)) = (self.state, &self.process) {
            process.signal(Signal::Continue).await?;
            self.state = State::Up;
        }
        Ok(())
    }

    /// Stops it for good. Returns true if it has ended already.
    pub(crate) async fn finish(&mut self) -> anyhow::Result<()> {
        self.thaw().await?;
        match (self.state, &self.process) {
            (State::Up, Some(process)) => {
                process.signal(Signal::Terminate).await?;
                self.state = State::Ending(Harm::Stop, None);
            }
            (State::Ending(harm, _), Some(_)) => self.state = State::Ending(harm, None),
            _ => self.state = State::Down(None),
        }
        Ok(())
    }

    /// Kills its remaining process.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(process) = &self.process {
            process.signal(Signal::Kill).await?;
            self.state = State::Ending(Harm::Kill, None);
        }
        Ok(())
    }

    /// Whether it has a living process.
    pub(crate) fn lives(&self) -> bool {
        self.process.is_some()
    }

    fn ended(&mut self, status: ExitStatus, now: Instant) -> Seen {
        let (expected, again) = match self.state {
            State::Ending(Harm::Kill, again) => (status.signal() == Some(9), again),
            // Failed records that wait are left to the next start. There are some while the payment
            // provider is out.
            State::Ending(_, Some(again)) => {
                let is_unclean = status.code() == Some(UNCLEAN);
                (status.success() || is_unclean, Some(again))
            }
            State::Ending(_, None) => (status.success(), None),
            _ => (false, Some(AFTER_CRASH)),
        };
        let was_asked = matches!(self.state, State::Ending(..));
        self.state = State::Down(again.map(|span| now + span));
        if expected {
            return Seen::Ended;
        }
        let when = if was_asked {
            "when asked to stop"
        } else {
            "by itself"
        };
        Seen::Failed(format!("{} ended {when} with {status}", self.program.name))
    }
}

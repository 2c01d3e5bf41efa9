//! The shop's processes: started, watched, measured and ended. Only processes that were started
//! here are signalled, before they are waited for.

use super::cost::Readings;
use super::guard::Guard;
use super::programs::{Program, folder, programs};
use crate::child::{LoggedChild, terminate};
use crate::measure::usage::resident_max_mib_of_child;
use crate::spec::Spec;
use anyhow::{Context, bail};
use evenkeel::testing::free_port;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// Time limit for a process to become ready.
const START_MAX: Duration = Duration::from_secs(60);
/// Time limit for a daemon to stop: its drain timeout plus a margin.
const STOP_MAX: Duration = Duration::from_secs(35);
/// Time limit of an answer about readiness.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Interval between two questions.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The running shop. Dropping it kills every process.
pub(super) struct Shop {
    // Dropped first: while the leader of the group is not waited for, the group's id is its own.
    guard: Guard,
    provider: Process,
    daemons: Vec<Process>,
}

/// A process of the shop. Dropping it kills it.
struct Process {
    child: LoggedChild,
    ready: (u16, &'static str),
}

impl Shop {
    /// Starts all processes, with their stores and logs in `directory`, and waits until they are
    /// ready.
    pub(super) async fn start(spec: &Spec, directory: &Path) -> anyhow::Result<Self> {
        let programs = programs(spec, &folder()?, directory, free_port)?;
        let (provider, daemons) = programs.split_first().context("the provider is first")?;
        // The provider leads the group.
        let provider = Process::start(provider, 0, directory)?;
        let mut shop = Self {
            guard: Guard::start(provider.child.pid(), directory)?,
            provider,
            daemons: Vec::with_capacity(daemons.len()),
        };
        let deadline = Instant::now() + START_MAX;
        shop.provider.until_ready(deadline).await?;
        let group = i32::try_from(shop.provider.child.pid())?;
        for daemon in daemons {
            let daemon = Process::start(daemon, group, directory)?;
            shop.daemons.push(daemon);
        }
        for daemon in &mut shop.daemons {
            daemon.until_ready(deadline).await?;
        }
        Ok(shop)
    }

    /// Fails with the end of its log if a process has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        let daemons = self.daemons.iter_mut();
        daemons
            .chain([&mut self.provider])
            .try_for_each(|process| process.child.check())
    }

    /// What every process has used so far.
    pub(super) fn readings(&self) -> Readings {
        Readings::of(
            self.processes()
                .map(|process| (process.child.name(), process.child.pid())),
        )
    }

    /// The sum of the peaks of all processes' resident memory, in MiB.
    pub(super) fn resident_max_mib(&self) -> anyhow::Result<f64> {
        let peaks = self.processes().map(|process| process.child.pid());
        peaks.map(resident_max_mib_of_child).sum()
    }

    /// Stops all daemons, and ends the provider. Fails if a daemon does not end well.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.check()?;
        terminate(self.daemons.iter().map(|daemon| &daemon.child)).await?;
        for daemon in &mut self.daemons {
            let child = &mut daemon.child;
            let ended = timeout(STOP_MAX, child.wait()).await;
            let ended = ended.with_context(|| format!("{} does not stop", child.name()))??;
            if !ended.success() {
                return Err(child.failure(ended));
            }
        }
        self.provider.child.kill().await?;
        self.guard.release()
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.provider).chain(&self.daemons)
    }
}

impl Process {
    fn start(program: &Program, group: i32, directory: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(&program.executable);
        // The daemons' variables would override the defaults that are measured.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SHOP_") {
                command.env_remove(&name);
            }
        }
        command.args(&program.arguments).process_group(group);
        let log = directory.join(format!("{}.log", program.name));
        Ok(Self {
            child: LoggedChild::start(command, &program.name, log)?,
            ready: program.ready,
        })
    }

    async fn until_ready(&mut self, deadline: Instant) -> anyhow::Result<()> {
        while !self.is_ready().await {
            self.child.check()?;
            if Instant::now() > deadline {
                bail!(
                    "{} was not ready within {} s; {}",
                    self.child.name(),
                    START_MAX.as_secs(),
                    self.child.log_end()
                );
            }
            sleep(CHECK_INTERVAL).await;
        }
        Ok(())
    }

    async fn is_ready(&self) -> bool {
        let (port, path) = self.ready;
        let asked = async {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut status = [0; 12];
            stream.read_exact(&mut status).await?;
            std::io::Result::Ok(&status == b"HTTP/1.1 200")
        };
        matches!(timeout(ANSWER_MAX, asked).await, Ok(Ok(true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn start(script: &str, directory: &Path) -> Process {
        let program = Program {
            name: "script".to_owned(),
            executable: "sh".into(),
            arguments: ["-c", script].map(OsString::from).into(),
            ready: (1, "/readyz"),
        };
        Process::start(&program, 0, directory).expect("sh runs")
    }

    #[tokio::test]
    async fn a_process_that_ended_is_named_with_its_log() {
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        let mut process = start("echo no brokers >&2; exit 4", directory.path());
        process.child.wait().await.expect("a child of ours");
        let error = process.child.check().expect_err("it has ended").to_string();
        assert!(
            error.starts_with("script ended with exit status: 4"),
            "{error}"
        );
        assert!(error.ends_with("no brokers"), "{error}");
    }

    #[tokio::test]
    async fn a_process_that_never_answers_is_not_awaited_for_ever() {
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        let mut process = start("exec sleep 600", directory.path());
        let error = process.until_ready(Instant::now()).await;
        let error = error.expect_err("nothing listens").to_string();
        assert!(error.starts_with("script was not ready"), "{error}");
        process.child.check().expect("it runs");
    }
}

//! The phases of a run: prepare, start, load, drain, stop, audit, say.

mod books;
mod drain;
mod groups;
mod load;

use crate::args::{Args, Output};
use crate::binaries::Binaries;
use crate::broker::Broker;
use crate::chaos::Conduct;
use crate::cluster::Cluster;
use crate::fleet::{Fleet, Guard, Process, Program, tail};
use crate::ledger::{Entries, Ledger};
use crate::live::{Live, tell};
use crate::provider::Provider;
use crate::sample::{Sampler, Watch, is_ready};
use crate::shop::{Shop, free_port, program_names};
use anyhow::{Context, bail};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::Admin;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};

/// How long the daemons may take to become ready, and a producer command to end once its work is done.
const START_MAX: Duration = Duration::from_secs(60);
/// How long the daemons may take to stop: their own drain timeout and a little.
const STOP_MAX: Duration = Duration::from_secs(35);
/// How long the brokers may take to answer.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs until the ledger is printed, or until a signal comes: then everything that was started is killed.
pub(crate) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let code = tokio::select! {
        ledger = Box::pin(phases(args)) => return print(&ledger?, args.output),
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
    };
    tell("interrupted: everything that was started has been ended");
    Ok(ExitCode::from(code))
}

/// The exit code of a run that failed before it could be audited.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    let unreachable = error
        .chain()
        .any(|cause| matches!(cause.downcast_ref(), Some(KafkaError::Unreachable { .. })));
    ExitCode::from(if unreachable { 4 } else { 1 })
}

fn print(ledger: &Ledger, output: Output) -> anyhow::Result<ExitCode> {
    let text = match output {
        Output::Json => serde_json::to_string(ledger)?,
        Output::Table => ledger.human(),
    };
    writeln!(std::io::stdout(), "{text}").context("cannot print the ledger")?;
    Ok(ExitCode::from(u8::from(!ledger.balanced)))
}

async fn phases(args: &Args) -> anyhow::Result<Ledger> {
    let mut live = Live::start();
    let seed = args.seed.unwrap_or_else(rand::random);
    let files = Files::make(args.keep.as_deref())?;
    let binaries = Binaries::get(&program_names()).await?;
    live.say(&format!("programs: {}", binaries.origin));
    let cluster = Cluster::get(args).await?;
    live.say(&format!("Kafka: {}", cluster.description));
    cluster.refuse_strangers().await?;
    cluster.create_topics().await?;
    let since_ms = now_ms()?;
    let (_, from) = cluster.bounds(&cluster.audited_topics().await?).await?;

    let shop = Shop {
        binaries: &binaries,
        brokers: &cluster.config.brokers,
        directory: files.path(),
        provider_ports: (free_port()?, free_port()?),
    };
    std::fs::create_dir_all(shop.logs())?;
    let mut guard = Guard::start()?;
    let provider = shop.provider()?;
    let mut provider = Provider::start(&provider, shop.provider_ports.1, &mut guard).await?;
    let mut fleet = Fleet::start(shop.daemons()?, guard)?;
    let took = until_ready(&mut fleet).await?;
    let daemons = fleet.daemons.len();
    live.say(&format!(
        "{daemons} daemons are ready after {:.1} s, logs in {}",
        took.as_secs_f64(),
        shop.logs().display()
    ));

    let started = Instant::now();
    produce(&shop.stock(args)?, &mut fleet).await?;
    let sampler = Sampler {
        admin: Admin::connect(&cluster.config, ADMIN_TIMEOUT).await?,
        directory: files.path().to_owned(),
    };
    let mut watch = Watch::start(sampler).await?;
    live.say(&format!(
        "{} orders/s for {} s, seed {seed}",
        args.rate,
        args.load.as_secs()
    ));
    let mut load = load::Load {
        shop: &shop,
        fleet: &mut fleet,
        provider: &mut provider,
        broker: Broker::new(cluster.freezable()),
        watch: &watch,
        live: &mut live,
    };
    load.carry(args, seed).await?;
    if args.chaos {
        live.say(&provider.tell(Conduct::Normal).await?);
    }
    fleet.relieve();
    let mut faults = drain::until_drained(&mut fleet, &mut watch, &mut live).await?;
    drop(watch);
    fleet.finish(STOP_MAX).await?;
    live.end();

    let books = books::audit_all(&cluster, &shop, from, since_ms).await?;
    faults.extend(books.faults);
    let mut entries = Entries {
        kafka: cluster.description.clone(),
        findings: books.findings,
        proven: books.proven,
        stock: books.stock,
        toll: std::mem::take(&mut fleet.toll),
        faults,
        remarks: books.remarks,
        seed,
        seconds: started.elapsed().as_secs(),
    };
    entries.remarks.extend(files.kept());
    Ok(files.settle(Ledger::new(entries)))
}

fn now_ms() -> anyhow::Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_millis())?)
}

/// Waits until every daemon says that it is ready.
async fn until_ready(fleet: &mut Fleet) -> anyhow::Result<Duration> {
    let started = Instant::now();
    loop {
        if let Some(line) = fleet.tick().await?.first() {
            let log = fleet
                .daemons
                .iter()
                .find(|daemon| line.starts_with(&daemon.program.name));
            let log = log
                .map(|daemon| tail(&daemon.program.log, 5))
                .unwrap_or_default();
            bail!("{line}; its log ends:\n{log}");
        }
        let mut late = None;
        for daemon in &fleet.daemons {
            if !is_ready(daemon.admin_port).await {
                late = Some(daemon);
                break;
            }
        }
        let Some(late) = late else {
            return Ok(started.elapsed());
        };
        if started.elapsed() > START_MAX {
            let log = tail(&late.program.log, 5);
            bail!(
                "{} was not ready within {} s; its log ends:\n{log}",
                late.program.name,
                START_MAX.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a producer command to its end.
async fn produce(program: &Program, fleet: &mut Fleet) -> anyhow::Result<()> {
    let mut process = Process::start(program, &mut fleet.guard)?;
    let started = Instant::now();
    loop {
        if let Some(status) = process.ended(&mut fleet.guard)? {
            return ended_well(program, status);
        }
        if started.elapsed() > START_MAX {
            bail!(
                "{} had not ended after {} s",
                program.name,
                START_MAX.as_secs()
            );
        }
        fleet.tick().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn ended_well(program: &Program, status: std::process::ExitStatus) -> anyhow::Result<()> {
    if status.success() {
        return Ok(());
    }
    let log = tail(&program.log, 5);
    bail!("{} ended with {status}; its log ends:\n{log}", program.name)
}

/// Where stores, logs and journals are.
enum Files {
    Kept(PathBuf),
    Passing(tempfile::TempDir),
}

impl Files {
    fn make(keep: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = keep else {
            return Ok(Self::Passing(tempfile::tempdir()?));
        };
        std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        if std::fs::read_dir(path)?.next().is_some() {
            bail!(
                "{} is not empty: stores of another run would spoil the audit",
                path.display()
            );
        }
        Ok(Self::Kept(path.canonicalize()?))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Passing(directory) => directory.path(),
        }
    }

    fn kept(&self) -> Option<String> {
        match self {
            Self::Kept(path) => Some(format!(
                "stores, logs and journals are in {}",
                path.display()
            )),
            Self::Passing(_) => None,
        }
    }

    /// Keeps the files of a run that does not balance: they are the evidence.
    fn settle(self, mut ledger: Ledger) -> Ledger {
        if let Self::Passing(directory) = self
            && !ledger.balanced
        {
            let path = directory.keep();
            ledger.notes.push(format!(
                "stores, logs and journals are in {}",
                path.display()
            ));
        }
        ledger
    }
}

//! The phases of a run: prepare, start, load, drain, stop, audit, report.

mod drain;
mod final_audit;
mod groups;
mod load;
mod rate_control;

use crate::args::{Args, Output};
use crate::callers::{Callers, Requests, StreamOutcome};
use crate::chaos::Conduct;
use crate::cluster::Cluster;
use crate::cluster::broker::Broker;
use crate::monitoring::progress::{ProgressDisplay, write_to_stderr};
use crate::monitoring::readiness::is_ready;
use crate::monitoring::sampler::Sampler;
use crate::monitoring::sampler::watch::Watch;
use crate::report::{GatewayReport, Report, ReportInput};
use crate::shop::build_or_find::Binaries;
use crate::shop::provider::Provider;
use crate::shop::services::{GATEWAY, retry_topics};
use crate::shop::{GatewayPorts, Shop, program_names};
use crate::supervisor::{Guard, Process, Program, Supervisor, tail};
use anyhow::{Context, bail};
use evenkeel::testing::free_port;
use evenkeel_program::exit::Ending;
use evenkeel_program::stop::Stop;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time limit for the daemons to become ready, and for a producer command to end after its work.
const START_MAX: Duration = Duration::from_secs(60);
/// How long the load waits for the first sample. Brokers reject requests for a topic that was just
/// created for a moment; on a slow disk, for seconds.
const FIRST_SAMPLE_MAX: Duration = Duration::from_secs(30);
/// Time limit for the daemons to stop: their drain timeout plus a margin.
const STOP_MAX: Duration = Duration::from_secs(35);

/// Runs until the report is printed, or until a signal arrives. A signal kills everything that was
/// started.
pub(crate) async fn run(args: &Args) -> anyhow::Result<Ending> {
    let stop = Stop::listen()?;
    let signal = tokio::select! {
        report = Box::pin(phases(args)) => return print(&report?, args.output),
        signal = stop.signalled() => signal,
    };
    write_to_stderr("interrupted: all started processes were ended");
    Ok(Ending::Stopped(signal))
}

fn print(report: &Report, output: Output) -> anyhow::Result<Ending> {
    let text = match output {
        Output::Json => serde_json::to_string(report)?,
        Output::Table => report.human(),
    };
    writeln!(std::io::stdout(), "{text}").context("cannot print the report")?;
    Ok(match report.balanced {
        true => Ending::Done,
        false => Ending::SomeFailed,
    })
}

async fn phases(args: &Args) -> anyhow::Result<Report> {
    let mut display = ProgressDisplay::start();
    let seed = args.seed.unwrap_or_else(rand::random);
    let files = Files::make(args.keep.as_deref())?;
    let binaries = Binaries::get(&program_names()).await?;
    display.write_line(&format!("programs: {}", binaries.origin));
    let cluster = Cluster::get(args).await?;
    display.write_line(&format!("Kafka: {}", cluster.description));
    cluster.refuse_strangers().await?;
    cluster.create_topics().await?;
    let since_ms = now_ms()?;
    let (_, from) = cluster.bounds(&cluster.audited_topics().await?).await?;

    let shop = Shop {
        binaries: &binaries,
        brokers: &cluster.config.brokers,
        directory: files.path(),
        provider_ports: (free_port()?, free_port()?),
        gateway_ports: GatewayPorts::choose()?,
    };
    let (mut provider, mut supervisor) = start(&shop, &display).await?;
    let sampler = Sampler::new(&cluster.config, files.path())?;
    let sampler = until_sampled(sampler, &mut supervisor, &display).await?;

    let started = Instant::now();
    let callers = Callers::start(shop.gateway_urls(), &from, seed)?;
    produce(&shop.stock(args)?, &mut supervisor).await?;
    let admin_ports = supervisor.daemons.iter().map(|daemon| daemon.admin_port);
    let mut watch = Watch::start(sampler, admin_ports.collect()).await?;
    let (_, http_rate) = load::parts_of(args.rate);
    let load = load::Load {
        shop: &shop,
        supervisor: &mut supervisor,
        provider: &mut provider,
        broker: Broker::new(cluster.freezable()),
        watch: &watch,
        display: &mut display,
        http: callers.place_orders(http_rate, args.load, &shop.journal(GATEWAY))?,
    };
    let (requests, measured) = load.carry(args, seed).await?;
    if args.chaos {
        display.write_line(&provider.set_conduct(Conduct::Normal).await?);
    }
    supervisor.relieve();
    let mut faults = drain::until_drained(&mut supervisor, &mut watch, &mut display).await?;
    watch.end().await?;
    let streams = end_streams(callers, &cluster, &mut supervisor, &display).await?;
    supervisor.finish(STOP_MAX).await?;
    display.end();

    let audited = final_audit::audit_all(&cluster, &shop, from, since_ms, &streams).await?;
    faults.extend(audited.faults.into_iter().chain(requests.faults()));
    let mut remarks = audited.remarks;
    remarks.extend(requests.remarks());
    remarks.extend(files.kept());
    let input = ReportInput {
        kafka: cluster.description.clone(),
        findings: audited.findings,
        proven: audited.proven,
        gateway: gateway_report(&requests, &streams),
        stock: audited.stock,
        measured,
        toll: std::mem::take(&mut supervisor.toll),
        faults,
        remarks,
        seed,
        seconds: started.elapsed().as_secs(),
    };
    Ok(files.settle(Report::new(input)))
}

/// Starts the payment provider and all daemons, and waits until they are ready.
async fn start(
    shop: &Shop<'_>,
    display: &ProgressDisplay,
) -> anyhow::Result<(Provider, Supervisor)> {
    std::fs::create_dir_all(shop.logs())?;
    let mut guard = Guard::start()?;
    let provider = shop.provider()?;
    let provider = Provider::start(&provider, shop.provider_ports.1, &mut guard).await?;
    let mut supervisor = Supervisor::start(shop.daemons()?, guard)?;
    let took = until_ready(&mut supervisor).await?;
    let daemons = supervisor.daemons.len();
    display.write_line(&format!(
        "{daemons} daemons are ready after {:.1} s, logs in {}",
        took.as_secs_f64(),
        shop.logs().display()
    ));
    Ok((provider, supervisor))
}

/// Lets the streams read to the end of the log, while the daemons are supervised.
async fn end_streams(
    callers: Callers,
    cluster: &Cluster,
    supervisor: &mut Supervisor,
    display: &ProgressDisplay,
) -> anyhow::Result<Vec<StreamOutcome>> {
    let (_, to) = cluster.bounds(&cluster.audited_topics().await?).await?;
    let mut ending = Box::pin(callers.finish(&to));
    loop {
        tokio::select! {
            streams = &mut ending => return streams,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        for line in supervisor.tick().await? {
            display.write_line(&line);
        }
    }
}

fn gateway_report(requests: &Requests, streams: &[StreamOutcome]) -> GatewayReport {
    let streamed = streams
        .iter()
        .map(|stream| stream.record.events.len() as u64);
    GatewayReport {
        answered: requests.answered,
        retried: requests.retried,
        refused: requests.refused,
        unknown: requests.unknown,
        streamed: streamed.sum(),
        cuts: streams.iter().map(|stream| stream.cuts).sum(),
    }
}

fn now_ms() -> anyhow::Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_millis())?)
}

/// Waits until every daemon is ready. Returns the time that it took.
async fn until_ready(supervisor: &mut Supervisor) -> anyhow::Result<Duration> {
    let started = Instant::now();
    loop {
        if let Some(line) = supervisor.tick().await?.first() {
            let log = supervisor
                .daemons
                .iter()
                .find(|daemon| line.starts_with(&daemon.program.name));
            let log = log
                .map(|daemon| tail(&daemon.program.log, 5))
                .unwrap_or_default();
            bail!("{line}; its log ends:\n{log}");
        }
        let mut late = None;
        for daemon in &supervisor.daemons {
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

/// Waits until the lag of every group is known, with its retry topics: the clients of the sampler
/// are connected then, and the brokers answer for all topics that the services create. Otherwise the load would begin
/// while they are busy with new topics, and its first numbers would be old. After a time limit it
/// begins nevertheless.
async fn until_sampled(
    mut sampler: Sampler,
    supervisor: &mut Supervisor,
    display: &ProgressDisplay,
) -> anyhow::Result<Sampler> {
    let started = Instant::now();
    loop {
        for line in supervisor.tick().await? {
            display.write_line(&line);
        }
        let round = sampler.round().await;
        if round.is_known() && sampler.lists(retry_topics()) {
            return Ok(sampler);
        }
        if started.elapsed() > FIRST_SAMPLE_MAX {
            let unknown = match round.sample.unknown() {
                0 => "the lag, or that of retry topics,".to_owned(),
                partitions => format!("the lag of {partitions} partitions"),
            };
            display.write_line(&format!(
                "{unknown} is unknown after {} s; the load begins nevertheless",
                FIRST_SAMPLE_MAX.as_secs()
            ));
            return Ok(sampler);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a producer command to its end.
async fn produce(program: &Program, supervisor: &mut Supervisor) -> anyhow::Result<()> {
    let mut process = Process::start(program, &mut supervisor.guard)?;
    let started = Instant::now();
    loop {
        if let Some(status) = process.ended(&mut supervisor.guard)? {
            return program.ended_well(status);
        }
        if started.elapsed() > START_MAX {
            bail!(
                "{} had not ended after {} s",
                program.name,
                START_MAX.as_secs()
            );
        }
        supervisor.tick().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The directory of stores, logs and journals.
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
                "{} is not empty: stores of another run would falsify the audit",
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

    /// Keeps the files of a run that is not balanced, as evidence.
    fn settle(self, mut report: Report) -> Report {
        if let Self::Passing(directory) = self
            && !report.balanced
        {
            let path = directory.keep();
            report.notes.push(format!(
                "stores, logs and journals are in {}",
                path.display()
            ));
        }
        report
    }
}

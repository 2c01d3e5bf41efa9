//! The commands, one a file, and the runtime they run on.

pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod consume;
pub(crate) mod dev;
pub(crate) mod dlq;
pub(crate) mod drill;
pub(crate) mod groups;
pub(crate) mod outbox;
pub(crate) mod parked;
pub(crate) mod publish;
pub(crate) mod schemas;
pub(crate) mod store;
pub(crate) mod topics;

use crate::args::{Args, Command};
use crate::exit::Ending;
use crate::stop::Stop;
use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Runs the command to its end.
pub(crate) fn run(args: Args) -> anyhow::Result<Ending> {
    log_to_stderr(match &args.command {
        Command::Outbox(args) => args.log_default(),
        _ => "off",
    });
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(dispatch(args.command))
}

/// What the library and the client log, as far as `RUST_LOG` asks for it, or else `default`: mostly nothing, since a command
/// reports its errors itself.
fn log_to_stderr(default: &str) {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(EnvFilter::builder().parse_lossy(
            std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| default.to_owned()),
        ))
        .init();
}

async fn dispatch(command: Command) -> anyhow::Result<Ending> {
    let mut stop = Stop::listen().context("listening for signals")?;
    match command {
        // These have something to finish when they are asked to stop.
        Command::Publish(args) => publish::run(args, stop).await,
        Command::Consume(args) => consume::run(args, stop).await,
        Command::Dlq(args) => dlq::run(args, stop).await,
        Command::Drill(args) => drill::run(args, stop).await,
        Command::Outbox(args) => outbox::run(args, stop).await,
        command => tokio::select! {
            ending = dispatch_short(command) => ending,
            signal = stop.signalled() => Ok(Ending::Stopped(signal)),
        },
    }
}

async fn dispatch_short(command: Command) -> anyhow::Result<Ending> {
    match command {
        Command::Topics(args) => topics::run(args).await,
        Command::Groups(args) => groups::run(args).await,
        Command::Parked(args) => parked::run(args).await,
        Command::Audit(args) => audit::run(args).await,
        Command::Schemas(args) => schemas::run(args),
        Command::Store(args) => store::run(args).await,
        Command::Dev(args) => dev::run(args).await,
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => completions::run_man(args),
        Command::Publish(_)
        | Command::Consume(_)
        | Command::Dlq(_)
        | Command::Drill(_)
        | Command::Outbox(_) => {
            unreachable!("dispatched by the caller")
        }
    }
}

//! The fake payment provider; see [`shop_consumers::provider`].

use clap::Parser;
use evenkeel::telemetry::daemon::{Daemon, DaemonSettings};
use shop_consumers::provider::server::{ProviderArgs, serve};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = ProviderArgs::parse();
    let settings = DaemonSettings::new("payment-provider").without_recorder();
    let daemon = Daemon::start(settings).await?;
    let served = tokio::select! {
        served = serve(&args) => served,
        () = daemon.stop.cancelled() => Ok(()),
    };
    daemon.finish_spans().await;
    served
}

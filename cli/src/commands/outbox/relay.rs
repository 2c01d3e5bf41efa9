//! `evenkeel outbox relay`: a daemon that publishes committed events.

use crate::arguments::connection::ConnectionArgs;
use crate::arguments::store_address::StoreArgs;
use crate::output::stderr::say;
use anyhow::Context;
use clap::Args;
use evenkeel::outbox::{OutboxStore, Relay, RelaySettings};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::telemetry::daemon::{Daemon, DaemonSettings, admin_address};
use evenkeel_program::duration::parse_duration_or_seconds;
use evenkeel_program::exit::Ending;
use std::net::SocketAddr;
use std::time::Duration;

/// Publish what is committed in an outbox, until SIGTERM or SIGINT, then finish what is under way.
///
/// Several on one store share its work, and take over from each other. Creates the outbox's tables
/// where there are none. Ends with 0 when all that was under way is acknowledged; with 1 when some
/// of it is not (it stays in the outbox), and with --until-empty also when keys are held.
#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// End when nothing is left but keys that are held behind a refused event, and topics that
    /// refuse all.
    #[arg(long)]
    until_empty: bool,

    /// For how long a relay that was killed keeps its share of the work.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration_or_seconds)]
    lease: Duration,

    /// How often to look for events without being told of any.
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = parse_duration_or_seconds)]
    poll_interval: Duration,

    /// How long a stop waits for acknowledgements.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration_or_seconds)]
    drain_timeout: Duration,

    /// Serve /livez, /readyz and /metrics there: a port for this machine alone, or 0.0.0.0:PORT.
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = admin_address)]
    admin: Option<SocketAddr>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the relay.
pub(super) async fn run(args: RelayArgs) -> anyhow::Result<Ending> {
    let kafka = args.connection.kafka()?;
    say!("publishing to {}", kafka.brokers);
    let publisher = Publisher::new(&kafka, PublisherSettings::new("/evenkeel/outbox"))?;
    let mut daemon = DaemonSettings::new("evenkeel-outbox-relay");
    daemon.admin = args.admin;
    let daemon = Daemon::start(daemon).await.context("starting the daemon")?;
    let store = OutboxStore::open(args.store.address.as_str()).await?;
    let mut settings = RelaySettings::default();
    settings.lease = args.lease;
    settings.poll_interval = args.poll_interval;
    settings.drain_timeout = args.drain_timeout;
    let relay = Relay::new(store, publisher)
        .with_settings(settings)
        .with_health(daemon.health);
    let report = match args.until_empty {
        true => relay.drain(daemon.stop).await?,
        false => relay.run(daemon.stop).await?,
    };
    say!(
        "{} events published, {} attempts failed, {} keys held, {} events without an acknowledgement",
        report.published,
        report.failed,
        report.held_keys,
        report.unacknowledged
    );
    let is_held = args.until_empty && report.held_keys > 0;
    match report.unacknowledged > 0 || is_held {
        true => Ok(Ending::SomeFailed),
        false => Ok(Ending::Done),
    }
}

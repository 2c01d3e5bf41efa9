//! `evenkeel outbox status`: waiting events, held keys with their causes, and relays.
//!
//! A missing outbox, or one of an older version, is an error that names the command to create or
//! upgrade it. The command itself writes nothing to the store.

use crate::arguments::store_address::StoreArgs;
use crate::output::{OutputArgs, print_json, seconds};
use clap::Args;
use evenkeel::outbox::{HeldKey, OutboxStatus, OutboxStore};
use evenkeel::telemetry::visible;
use evenkeel_program::duration::parse_duration_or_seconds;
use evenkeel_program::exit::Ending;
use evenkeel_program::stdout::Stdout;
use jiff::Timestamp;
use std::io::Write;
use std::time::Duration;

/// Show the pending events, their age, the held keys and the relays of an outbox.
///
/// A key is held when the brokers refused one of its events; its later events wait behind that one.
///
/// Exit codes: 0 all is well; 1 the store has no outbox, or one of another version; 3 keys are
/// held, events wait in slots that no relay has, or the oldest event is older than --max-age.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// Maximum age of the oldest event, such as 1m; a bare number is seconds [default: no limit].
    #[arg(long, value_name = "TIME", value_parser = parse_duration_or_seconds)]
    max_age: Option<Duration>,

    #[command(flatten)]
    output: OutputArgs,
}

impl StatusArgs {
    /// Whether somebody must act. Pending events alone are no problem while a relay has their slots
    /// and they are young enough.
    fn is_bad(&self, status: &OutboxStatus) -> bool {
        let age = Duration::from_millis(status.oldest_age_ms.unwrap_or(0));
        !status.held.is_empty()
            || status.pending > 0 && status.slots_free > 0
            || self.max_age.is_some_and(|max| age > max)
    }
}

/// Prints the status.
pub(super) async fn run(args: StatusArgs) -> anyhow::Result<Ending> {
    let address = args.store.address.as_str();
    let versions = OutboxStore::versions(address).await?;
    anyhow::ensure!(
        versions.stored > 0,
        "the store has no outbox; create it with: evenkeel store migrate --store URL --execute"
    );
    let status = OutboxStore::status_at(address).await?;
    match args.output.is_table() {
        true => {
            let mut out = Stdout::new();
            write_text(&mut out, &status)?;
            out.flush()?;
        }
        false => print_json(args.output.format(), &status)?,
    }
    match args.is_bad(&status) {
        true => Ok(Ending::FoundBad),
        false => Ok(Ending::Done),
    }
}

/// Writes the status for people, one fact a line. Texts of others are escaped.
fn write_text(out: &mut impl Write, status: &OutboxStatus) -> std::io::Result<()> {
    let in_seconds = |milliseconds: u64| format!("{} s", milliseconds / 1_000);
    let oldest = status.oldest_age_ms.map_or("-".to_owned(), in_seconds);
    writeln!(out, "pending  {}", status.pending)?;
    writeln!(out, "oldest   {oldest}")?;
    for relay in &status.relays {
        let name = visible(&relay.relay);
        writeln!(out, "relay    {name} has {} slots", relay.slots)?;
    }
    if status.slots_free > 0 {
        writeln!(
            out,
            "free     {} slots: no relay publishes their events",
            status.slots_free
        )?;
    }
    if let Some(open) = &status.open_transaction {
        writeln!(
            out,
            "open     transaction of process {} ({}), {}, for {}: its events and their keys wait",
            open.pid,
            visible(&open.application),
            visible(&open.state),
            in_seconds(open.age_ms)
        )?;
    }
    status
        .held
        .iter()
        .try_for_each(|held| write_held(out, held))
}

/// A held key: since when, how many events wait, and the refused event with its reason.
fn write_held(out: &mut impl Write, held: &HeldKey) -> std::io::Result<()> {
    let since = Timestamp::from_millisecond(held.since_ms).map_or_else(|_| "?".to_owned(), seconds);
    writeln!(
        out,
        "held     key {} of {} since {since}: {} events wait behind row {}, event {} ({}): {}",
        visible(held.key.as_deref().unwrap_or("-")),
        visible(&held.topic),
        held.pending,
        held.sequence,
        visible(&held.id),
        visible(&held.r#type),
        visible(&held.reason)
    )
}

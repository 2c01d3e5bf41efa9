//! `stock fill`.

use super::SOURCE;
use super::receipt::DeliveryReceipt;
use crate::articles::articles;
use crate::connection::Connection;
use crate::import::row::event;
use crate::output::Print;
use crate::stock::row::DeliveryRow;
use anyhow::Context;
use clap::Args;
use evenkeel::event::{Event, EventType, new_id};
use evenkeel_program::exit::Ending;
use evenkeel_program::output_format::OutputFormat;
use jiff::Timestamp;
use shop_schemas::StockReceived;

pub(super) const EXAMPLES: &str = "\
Examples:
  stock fill --quantity 1000
  stock fill --quantity 1000 --delivery-id opening --output jsonl";

/// A delivery of everything, as given on the command line.
#[derive(Debug, Clone, Args)]
pub(super) struct FillArgs {
    /// Quantity of every article
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    quantity: u32,
    /// Id of the supplier's delivery [default: a new id]. Repeating a delivery has no second effect
    #[arg(long)]
    delivery_id: Option<String>,
}

/// A delivery of every article.
#[derive(Debug, Clone)]
pub(super) struct Fill {
    quantity: u32,
    delivery_id: String,
}

impl FillArgs {
    /// Validates the arguments. Chooses a delivery id if none is given.
    pub(super) fn build(self) -> Fill {
        Fill {
            quantity: self.quantity,
            delivery_id: self
                .delivery_id
                .unwrap_or_else(|| format!("d-{}", new_id())),
        }
    }
}

impl Fill {
    /// The event of an article. The same delivery gives the same ids.
    fn event(&self, article: String) -> anyhow::Result<Event<StockReceived>> {
        let row = DeliveryRow {
            article,
            quantity: self.quantity,
            delivery_id: self.delivery_id.clone(),
        };
        event(&row, SOURCE, Timestamp::now()).map_err(anyhow::Error::msg)
    }
}

/// Publishes one event per article and writes the receipts.
pub(super) async fn fill(
    fill: Fill,
    connection: &Connection,
    output: OutputFormat,
) -> anyhow::Result<Ending> {
    let publisher = connection.publisher(SOURCE, StockReceived::TOPIC).await?;
    let mut pending = Vec::new();
    for article in articles() {
        let event = fill.event(article.name)?;
        let receipt = publisher.enqueue(&event).await?;
        pending.push((event, receipt));
    }
    let mut receipts = Vec::new();
    let mut failure = None;
    for (event, receipt) in pending {
        match receipt.await {
            Ok(receipt) => receipts.push(DeliveryReceipt::new(event, receipt)),
            Err(error) => failure = Some(error),
        }
    }
    let done = || format!("{} events were published", receipts.len());
    let shown = output.list(&receipts, done);
    match failure {
        Some(error) => Err(error).with_context(|| {
            let Fill {
                quantity,
                delivery_id,
            } = &fill;
            format!(
                "some articles failed; repeat the command with --quantity {quantity} \
                 --delivery-id {delivery_id}"
            )
        }),
        None => shown.map(|()| Ending::Done),
    }
}

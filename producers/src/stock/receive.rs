//! `stock receive`.

use super::SOURCE;
use super::receipt::DeliveryReceipt;
use crate::connection::Connection;
use crate::output::Print;
use crate::publish::publish;
use clap::Args;
use evenkeel::event::{Event, EventType, new_id};
use evenkeel_program::exit::Ending;
use evenkeel_program::output_format::OutputFormat;
use shop_schemas::StockReceived;

pub(super) const EXAMPLES: &str = "\
Examples:
  stock receive article-001 100
  stock receive article-001 100 --delivery-id d-2026-0001 --output json";

/// A delivery, as given on the command line.
#[derive(Debug, Clone, Args)]
pub(super) struct ReceiveArgs {
    /// Name of the article
    article: String,
    /// Quantity
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    quantity: u32,
    /// Id of the supplier's delivery [default: a new id]
    #[arg(long)]
    delivery_id: Option<String>,
    /// Id of the event, to repeat one whose outcome is unknown [default: a new id]
    #[arg(long)]
    event_id: Option<String>,
}

impl ReceiveArgs {
    /// The event that receives the delivery.
    pub(super) fn build(self) -> Event<StockReceived> {
        let delivery = StockReceived {
            article: self.article,
            quantity: self.quantity,
            delivery_id: self
                .delivery_id
                .unwrap_or_else(|| format!("d-{}", new_id())),
        };
        let mut event = Event::new(SOURCE, delivery);
        if let Some(id) = self.event_id {
            event.attributes.id = id;
        }
        event
    }
}

/// Publishes the event and writes its receipt.
pub(super) async fn receive(
    event: Event<StockReceived>,
    connection: &Connection,
    output: OutputFormat,
) -> anyhow::Result<Ending> {
    let publisher = connection.publisher(SOURCE, StockReceived::TOPIC).await?;
    let same_event = format!("--delivery-id {}", event.data.delivery_id);
    let receipt = publish(&publisher, &event, &same_event).await?;
    let receipt = DeliveryReceipt::new(event, receipt);
    output.one(&receipt, || receipt.done())?;
    Ok(Ending::Done)
}

//! `orders cancel`.

use super::SOURCE;
use super::receipt::OrderReceipt;
use crate::connection::Connection;
use crate::output::Print;
use crate::publish::publish;
use clap::Args;
use evenkeel::event::{Event, EventType};
use evenkeel_program::exit::Ending;
use evenkeel_program::output_format::OutputFormat;
use shop_schemas::OrderCancelled;

pub(super) const EXAMPLES: &str = "\
Examples:
  orders cancel o-1001 --reason 'ordered twice'";

/// A cancellation, as given on the command line.
#[derive(Debug, Clone, Args)]
pub(super) struct CancelArgs {
    /// Id of the order
    #[arg(value_name = "ORDER")]
    order_id: String,
    /// Reason of the cancellation
    #[arg(long)]
    reason: String,
    /// Id of the event, to repeat one whose outcome is unknown [default: a new id]
    #[arg(long)]
    event_id: Option<String>,
}

impl CancelArgs {
    /// The event that cancels the order.
    pub(super) fn build(self) -> Event<OrderCancelled> {
        let mut event = Event::new(
            SOURCE,
            OrderCancelled {
                order_id: self.order_id,
                reason: self.reason,
            },
        );
        if let Some(id) = self.event_id {
            event.attributes.id = id;
        }
        event
    }
}

/// Publishes the event and writes its receipt.
pub(super) async fn cancel(
    event: Event<OrderCancelled>,
    connection: &Connection,
    output: OutputFormat,
) -> anyhow::Result<Ending> {
    let publisher = connection.publisher(SOURCE, OrderCancelled::TOPIC).await?;
    let receipt = publish(&publisher, &event, &event.data.order_id).await?;
    let receipt = OrderReceipt {
        order_id: event.data.order_id,
        event_id: event.attributes.id,
        receipt,
    };
    output.one(&receipt, || receipt.done())?;
    Ok(Ending::Done)
}

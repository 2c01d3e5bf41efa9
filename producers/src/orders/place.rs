//! `orders place`.

use super::SOURCE;
use super::line::{Line, total_cents};
use super::receipt::OrderReceipt;
use crate::connection::Connection;
use crate::output::Print;
use crate::publish::publish;
use clap::Args;
use evenkeel::event::{Event, EventType, new_id};
use evenkeel_program::exit::{Ending, Usage};
use evenkeel_program::output_format::OutputFormat;
use jiff::Timestamp;
use shop_schemas::{OrderLine, OrderPlaced};

pub(super) const EXAMPLES: &str = "\
Examples:
  orders place --customer customer-0001 --line article-001:2:870 --line article-007:1:3090
  orders place --customer customer-0001 --line article-001:2:870 --order-id o-1001 --output json";

/// An order, as given on the command line.
#[derive(Debug, Clone, Args)]
pub(super) struct PlaceArgs {
    /// Id of the customer
    #[arg(long)]
    customer: String,
    /// A line of the order; may be repeated
    #[arg(
        long = "line",
        value_name = "ARTICLE:QUANTITY:PRICE_CENTS",
        required = true
    )]
    lines: Vec<Line>,
    /// Id of the order [default: a new id]
    #[arg(long)]
    order_id: Option<String>,
    /// Id of the event, to repeat one whose outcome is unknown [default: a new id]
    #[arg(long)]
    event_id: Option<String>,
}

impl PlaceArgs {
    /// The event that places the order. Fails if its total overflows.
    pub(super) fn build(self) -> Result<Event<OrderPlaced>, Usage> {
        let lines: Vec<OrderLine> = self.lines.into_iter().map(OrderLine::from).collect();
        let total_cents =
            total_cents(&lines).ok_or_else(|| Usage("the total is too large".to_owned()))?;
        let order = OrderPlaced {
            order_id: self.order_id.unwrap_or_else(|| format!("o-{}", new_id())),
            customer_id: self.customer,
            lines,
            total_cents,
            placed_at: Timestamp::now().to_string(),
        };
        let mut event = Event::new(SOURCE, order);
        if let Some(id) = self.event_id {
            event.attributes.id = id;
        }
        Ok(event)
    }
}

/// Publishes the event and writes its receipt.
pub(super) async fn place(
    event: Event<OrderPlaced>,
    connection: &Connection,
    output: OutputFormat,
) -> anyhow::Result<Ending> {
    let publisher = connection.publisher(SOURCE, OrderPlaced::TOPIC).await?;
    let same_event = format!("--order-id {}", event.data.order_id);
    let receipt = publish(&publisher, &event, &same_event).await?;
    let receipt = OrderReceipt {
        order_id: event.data.order_id,
        event_id: event.attributes.id,
        receipt,
    };
    output.one(&receipt, || receipt.done())?;
    Ok(Ending::Done)
}

//! The `notifications` service: one message to the customer per event of an order.
//!
//! A message depends only on its own event, so every order of arrival gives correct messages.
//! Writing the row stands for passing the message to a mail service. The events of a type that wait
//! at the same time are one batch, and are written in one call to the store.

use crate::daemon::Service;
use crate::effect_journal::values::{padded, placeholders};
use crate::effect_journal::{Effect, journaled};
use evenkeel::event::EventType;
use evenkeel::handler::{Delivered, HandlerError, Router};
use evenkeel::inbox::SqliteTx;
use shop_schemas::{
    OrderCancelled, OrderPlaced, PaymentAuthorized, PaymentDeclined, ShipmentDispatched,
    StockRejected, StockReleased, StockReserved,
};
use sqlx::SqliteConnection;

/// The service.
pub const SERVICE: Service = Service {
    name: "notifications",
    about: "Writes one message per event of an order",
    schema: SCHEMA,
    handlers,
};

/// One row per message.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS messages (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    order_id TEXT NOT NULL,
    text     TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_of_order ON messages (order_id);
";

/// Writes the rows of messages.
const INSERT: &str = "
    INSERT INTO messages (order_id, text)
        SELECT * FROM (VALUES /*messages*/) WHERE column1 IS NOT NULL";

fn handlers(router: Router) -> Router {
    router
        .on_batch(notify::<OrderPlaced>)
        .on_batch(notify::<OrderCancelled>)
        .on_batch(notify::<PaymentAuthorized>)
        .on_batch(notify::<PaymentDeclined>)
        .on_batch(notify::<StockReserved>)
        .on_batch(notify::<StockRejected>)
        .on_batch(notify::<StockReleased>)
        .on_batch(notify::<ShipmentDispatched>)
}

async fn notify<T: Notice>(
    events: Vec<Delivered<T>>,
    mut tx: SqliteTx,
) -> Result<(), HandlerError> {
    let messages: Vec<_> = events
        .iter()
        .map(|Delivered { event, context, .. }| {
            Message::about(&event.data, Effect::of(context, &event.attributes))
        })
        .collect();
    write(&mut tx, &messages).await?;
    Ok(())
}

/// An event about which the customer of an order is notified.
pub trait Notice: EventType + Sync {
    /// Id of the order.
    fn order_id(&self) -> &str;
    /// Text of the message.
    fn text(&self) -> String;
}

/// A message to be written.
#[derive(Debug)]
pub struct Message<'a> {
    effect: Effect<'a>,
    order_id: &'a str,
    text: String,
}

impl<'a> Message<'a> {
    /// The message about an event, whose handling has this effect.
    pub fn about<T: Notice>(notice: &'a T, effect: Effect<'a>) -> Self {
        Self {
            effect,
            order_id: notice.order_id(),
            text: notice.text(),
        }
    }
}

/// Writes messages and their effects, in one call to the store.
///
/// # Errors
/// If the store fails.
pub async fn write(
    store: &mut SqliteConnection,
    messages: &[Message<'_>],
) -> Result<(), sqlx::Error> {
    let effects: Vec<_> = messages.iter().map(|message| message.effect).collect();
    let insert = INSERT.replace("/*messages*/", &placeholders(2, messages.len()));
    let mut query = journaled(&effects, &insert);
    for message in padded(messages) {
        query = query
            .bind(message.map(|message| message.order_id))
            .bind(message.map(|message| message.text.as_str()));
    }
    query.execute(store).await?;
    Ok(())
}

macro_rules! notices {
    ($($event:ident($data:ident) => $($text:expr),+;)*) => {
        $(impl Notice for $event {
            fn order_id(&self) -> &str {
                &self.order_id
            }

            fn text(&self) -> String {
                let $data = self;
                format!($($text),+)
            }
        })*
    };
}

notices! {
    OrderPlaced(order) => "your order {} over {} is placed", order.order_id, price(order.total_cents);
    OrderCancelled(order) => "your order {} is cancelled: {}", order.order_id, order.reason;
    PaymentAuthorized(payment) => "your payment of {} for order {} is authorized", price(payment.amount_cents), payment.order_id;
    PaymentDeclined(payment) => "your payment for order {} is declined: {}", payment.order_id, payment.reason;
    StockReserved(stock) => "everything for your order {} is set aside", stock.order_id;
    StockRejected(stock) => "we cannot deliver your order {}: {}: {}", stock.order_id, stock.article, stock.reason;
    StockReleased(stock) => "nothing is set aside for your order {} any more: {}", stock.order_id, stock.reason;
    ShipmentDispatched(shipment) => "your order {} is on its way, tracking {}", shipment.order_id, shipment.tracking;
}

/// Formats cents as a decimal number.
fn price(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{effect, effects, store};

    #[test]
    fn a_price_has_two_decimals() {
        for (cents, expected) in [(0, "0.00"), (5, "0.05"), (12_345, "123.45")] {
            assert_eq!(price(cents), expected);
        }
    }

    #[tokio::test]
    async fn each_event_of_a_batch_writes_its_own_message() {
        let mut store = store(SCHEMA).await;
        let cancelled = OrderCancelled {
            order_id: "o-1".to_owned(),
            reason: "changed my mind".to_owned(),
        };
        let authorized = PaymentAuthorized {
            order_id: "o-1".to_owned(),
            amount_cents: 1_999,
            authorization: "a-1".to_owned(),
        };
        let messages = [
            Message::about(&cancelled, effect("e-1")),
            Message::about(&authorized, effect("e-2")),
            Message::about(&cancelled, effect("e-3")),
        ];
        write(&mut store, &messages).await.unwrap();
        let texts: Vec<String> =
            sqlx::query_scalar("SELECT text FROM messages WHERE order_id = 'o-1' ORDER BY seq")
                .fetch_all(&mut store)
                .await
                .unwrap();
        let cancellation = "your order o-1 is cancelled: changed my mind";
        let authorization = "your payment of 19.99 for order o-1 is authorized";
        assert_eq!(texts, [cancellation, authorization, cancellation]);
        assert_eq!(effects(&mut store).await, ["e-1", "e-2", "e-3"]);
    }
}

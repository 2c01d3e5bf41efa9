//! The `notifications` service: one message to the customer per event of an order.
//!
//! A message depends only on its own event, so every order of arrival gives correct messages.
//! Writing the row stands for passing the message to a mail service.

use crate::daemon::Service;
use crate::effect_journal;
use evenkeel::event::{Event, EventType};
use evenkeel::handler::{Context, HandlerError, Router};
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

fn handlers(router: Router) -> Router {
    router
        .on(notify::<OrderPlaced>)
        .on(notify::<OrderCancelled>)
        .on(notify::<PaymentAuthorized>)
        .on(notify::<PaymentDeclined>)
        .on(notify::<StockReserved>)
        .on(notify::<StockRejected>)
        .on(notify::<StockReleased>)
        .on(notify::<ShipmentDispatched>)
}

async fn notify<T: Notice>(
    event: Event<T>,
    context: Context,
    mut tx: SqliteTx,
) -> Result<(), HandlerError> {
    effect_journal::record(&mut tx, &context, &event.attributes).await?;
    write(&mut tx, &event.data).await?;
    Ok(())
}

/// An event about which the customer of an order is notified.
pub trait Notice: EventType + Sync {
    /// Id of the order.
    fn order_id(&self) -> &str;
    /// Text of the message.
    fn text(&self) -> String;
}

/// Writes the message of an event.
///
/// # Errors
/// If the store fails.
pub async fn write<T: Notice>(store: &mut SqliteConnection, notice: &T) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO messages (order_id, text) VALUES (?, ?)")
        .bind(notice.order_id())
        .bind(notice.text())
        .execute(store)
        .await?;
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
    use crate::testing::store;

    #[test]
    fn a_price_has_two_decimals() {
        for (cents, expected) in [(0, "0.00"), (5, "0.05"), (12_345, "123.45")] {
            assert_eq!(price(cents), expected);
        }
    }

    #[tokio::test]
    async fn each_event_writes_its_own_message() {
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
        write(&mut store, &cancelled).await.unwrap();
        write(&mut store, &authorized).await.unwrap();
        let texts: Vec<String> =
            sqlx::query_scalar("SELECT text FROM messages WHERE order_id = 'o-1' ORDER BY seq")
                .fetch_all(&mut store)
                .await
                .unwrap();
        assert_eq!(
            texts,
            [
                "your order o-1 is cancelled: changed my mind",
                "your payment of 19.99 for order o-1 is authorized",
            ]
        );
    }
}

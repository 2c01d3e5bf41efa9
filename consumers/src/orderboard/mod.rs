//! The `orderboard` service: the state of each order.
//!
//! An order's state is a function of its set of facts ([`State::of`]), not of their order: every
//! interleaving of the topics gives the same state. A fact never changes.

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

mod api;
pub mod cache;
mod cache_updater;
pub mod command;
pub mod queries;
mod state;

pub use state::{Fact, State};

/// The service.
pub const SERVICE: Service = Service {
    name: "orderboard",
    about: "Keeps the state of each order",
    schema: SCHEMA,
    handlers,
};

/// The facts, and the resulting state. `at` is the event's time in microseconds, so that it sorts
/// as text.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS orders (
    order_id TEXT PRIMARY KEY,
    state    TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS facts (
    order_id TEXT NOT NULL,
    fact     TEXT NOT NULL,
    detail   TEXT NOT NULL,
    at       TEXT NOT NULL,
    PRIMARY KEY (order_id, fact)
) WITHOUT ROWID;
";

fn handlers(router: Router) -> Router {
    router
        .on(note::<OrderPlaced>)
        .on(note::<OrderCancelled>)
        .on(note::<PaymentAuthorized>)
        .on(note::<PaymentDeclined>)
        .on(note::<StockReserved>)
        .on(note::<StockRejected>)
        .on(note::<StockReleased>)
        .on(note::<ShipmentDispatched>)
}

async fn note<T: Telling>(
    event: Event<T>,
    context: Context,
    mut tx: SqliteTx,
) -> Result<(), HandlerError> {
    effect_journal::record(&mut tx, &context, &event.attributes).await?;
    let at = event.attributes.time.unwrap_or_else(jiff::Timestamp::now);
    learn(&mut tx, &event.data, at).await?;
    Ok(())
}

/// An event that contains a fact about an order.
pub trait Telling: EventType + Sync {
    /// The fact.
    const FACT: Fact;
    /// Id of the order.
    fn order_id(&self) -> &str;
    /// Details of the fact.
    fn detail(&self) -> String;
}

/// Records the fact of an event, and the resulting state. A known fact changes nothing.
///
/// # Errors
/// If the store fails, or contains a fact that this version does not know.
pub async fn learn<T: Telling>(
    store: &mut SqliteConnection,
    event: &T,
    at: jiff::Timestamp,
) -> Result<State, HandlerError> {
    sqlx::query(
        "INSERT INTO facts (order_id, fact, detail, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(event.order_id())
    .bind(T::FACT.as_str())
    .bind(event.detail())
    .bind(format!("{at:.6}"))
    .execute(&mut *store)
    .await?;
    let known: Vec<String> = sqlx::query_scalar("SELECT fact FROM facts WHERE order_id = ?")
        .bind(event.order_id())
        .fetch_all(&mut *store)
        .await?;
    let known: Vec<Fact> = known
        .iter()
        .map(|fact| fact.parse())
        .collect::<Result<_, _>>()
        .map_err(HandlerError::permanent)?;
    let state = State::of(&known);
    sqlx::query(
        "INSERT INTO orders (order_id, state) VALUES (?, ?)
         ON CONFLICT (order_id) DO UPDATE SET state = excluded.state",
    )
    .bind(event.order_id())
    .bind(state.as_str())
    .execute(store)
    .await?;
    Ok(state)
}

macro_rules! tellings {
    ($($event:ident($data:ident) => $fact:ident, $($detail:expr),+;)*) => {
        $(impl Telling for $event {
            const FACT: Fact = Fact::$fact;

            fn order_id(&self) -> &str {
                &self.order_id
            }

            fn detail(&self) -> String {
                let $data = self;
                format!($($detail),+)
            }
        })*
    };
}

tellings! {
    OrderPlaced(order) => Placed, "customer {}, {} cents", order.customer_id, order.total_cents;
    OrderCancelled(order) => Cancelled, "{}", order.reason;
    PaymentAuthorized(payment) => Paid, "authorization {}", payment.authorization;
    PaymentDeclined(payment) => Declined, "{}", payment.reason;
    StockReserved(stock) => Reserved, "lines: {}", stock.lines.len();
    StockRejected(stock) => Rejected, "{}: {}", stock.article, stock.reason;
    StockReleased(stock) => Released, "{}", stock.reason;
    ShipmentDispatched(shipment) => Shipped, "tracking {}", shipment.tracking;
}

#[cfg(test)]
mod tests;

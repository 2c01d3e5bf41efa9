//! The `orderboard` service: the state of each order.
//!
//! An order's state is a function of its set of facts ([`State::of`]), not of their order: every
//! interleaving of the topics gives the same state. A fact never changes. The events of a type that
//! wait at the same time are one batch.

use crate::daemon::Service;
use crate::effect_journal::Effect;
use evenkeel::event::EventType;
use evenkeel::handler::{Delivered, HandlerError, Outcome, Router};
use evenkeel::inbox::SqliteTx;
use shop_schemas::{
    OrderCancelled, OrderPlaced, PaymentAuthorized, PaymentDeclined, ShipmentDispatched,
    StockRejected, StockReleased, StockReserved,
};

mod api;
pub mod cache;
mod cache_updater;
pub mod command;
mod facts;
pub mod queries;
mod state;

pub use facts::{NewFact, learn};
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
        .on_batch(note::<OrderPlaced>)
        .on_batch(note::<OrderCancelled>)
        .on_batch(note::<PaymentAuthorized>)
        .on_batch(note::<PaymentDeclined>)
        .on_batch(note::<StockReserved>)
        .on_batch(note::<StockRejected>)
        .on_batch(note::<StockReleased>)
        .on_batch(note::<ShipmentDispatched>)
}

async fn note<T: Telling>(
    events: Vec<Delivered<T>>,
    mut tx: SqliteTx,
) -> Result<Vec<Outcome>, HandlerError> {
    let facts: Vec<_> = events
        .iter()
        .map(|Delivered { event, context, .. }| {
            let at = event.attributes.time.unwrap_or_else(jiff::Timestamp::now);
            event
                .data
                .new_fact(Effect::of(context, &event.attributes), at)
        })
        .collect();
    let states = learn(&mut tx, &facts).await?;
    let outcome = |state: Result<State, String>| match state {
        Ok(_) => Outcome::Done,
        Err(reason) => Outcome::Retry(HandlerError::permanent(reason)),
    };
    Ok(states.into_iter().map(outcome).collect())
}

/// An event that contains a fact about an order.
pub trait Telling: EventType + Sync {
    /// The fact.
    const FACT: Fact;
    /// Id of the order.
    fn order_id(&self) -> &str;
    /// Details of the fact.
    fn detail(&self) -> String;

    /// The fact of this event, which happened at this time and whose handling has this effect.
    fn new_fact<'a>(&'a self, effect: Effect<'a>, at: jiff::Timestamp) -> NewFact<'a> {
        NewFact {
            effect,
            order_id: self.order_id(),
            fact: Self::FACT,
            detail: self.detail(),
            at,
        }
    }
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

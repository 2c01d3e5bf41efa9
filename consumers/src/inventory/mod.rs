//! The `inventory` service: keeps stock, reserves it for placed orders and releases it again.
//!
//! An order has one answer: all of its lines are reserved, or it is rejected with the name of the
//! first short article. Its row in `reservations` is the answer. A declined payment or a
//! cancellation releases the reservation once; the second of the two finds it released. Topics are
//! independent, so a release may come before its order. It then leaves the row `barred`: the order
//! is later rejected and reserves nothing.
//!
//! Every change of a level is a row in `stock_moves`. [`audit`] sums them: received units are
//! available or reserved.

use crate::daemon::Service;
use crate::effect_journal::Effect;
use evenkeel::event::Event;
use evenkeel::handler::{Context, HandlerError, Router};
use evenkeel::inbox::SqliteTx;
use shop_schemas::{OrderCancelled, OrderPlaced, PaymentDeclined, StockReceived};
use sqlx::SqliteConnection;

mod audit;
mod reservation;
mod stock;

pub use audit::{Imbalance, audit};
pub use reservation::{Answer, release, reserve};
pub use stock::receive;

/// The service.
pub const SERVICE: Service = Service {
    name: "inventory",
    about: "Keeps stock, reserves it for orders and releases it again",
    schema: SCHEMA,
    handlers,
};

/// Levels per article, their moves, and the reservation of each order.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS stock (
    article   TEXT PRIMARY KEY,
    available INTEGER NOT NULL CHECK (available >= 0),
    reserved  INTEGER NOT NULL CHECK (reserved >= 0)
);
CREATE TABLE IF NOT EXISTS stock_moves (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    article   TEXT NOT NULL,
    kind      TEXT NOT NULL CHECK (kind IN ('received', 'reserved', 'released')),
    quantity  INTEGER NOT NULL,
    reference TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS reservations (
    order_id TEXT PRIMARY KEY,
    state    TEXT NOT NULL CHECK (state IN ('reserved', 'rejected', 'released', 'barred')),
    reason   TEXT,
    lines    TEXT
);
";

fn handlers(router: Router) -> Router {
    router
        .on(stock_received)
        .on(order_placed)
        .on(order_cancelled)
        .on(payment_declined)
}

async fn stock_received(
    event: Event<StockReceived>,
    context: Context,
    mut tx: SqliteTx,
) -> Result<(), HandlerError> {
    let effect = Effect::of(&context, &event.attributes);
    receive(&mut tx, effect, &event.data).await?;
    Ok(())
}

async fn order_placed(
    event: Event<OrderPlaced>,
    context: Context,
    mut tx: SqliteTx,
) -> Result<(), HandlerError> {
    let effect = Effect::of(&context, &event.attributes);
    match reserve(&mut tx, effect, &event.data).await? {
        Some(Answer::Reserved(reserved)) => context.publish(reserved),
        Some(Answer::Rejected(rejected)) => context.publish(rejected),
        None => Ok(()),
    }
}

async fn order_cancelled(
    event: Event<OrderCancelled>,
    context: Context,
    mut tx: SqliteTx,
) -> Result<(), HandlerError> {
    let effect = Effect::of(&context, &event.attributes);
    release_and_publish(
        &mut tx,
        (&context, effect),
        &event.data.order_id,
        "the order was cancelled",
    )
    .await
}

async fn payment_declined(
    event: Event<PaymentDeclined>,
    context: Context,
    mut tx: SqliteTx,
) -> Result<(), HandlerError> {
    let effect = Effect::of(&context, &event.attributes);
    release_and_publish(
        &mut tx,
        (&context, effect),
        &event.data.order_id,
        "the payment was declined",
    )
    .await
}

/// Releases the reservation of an order, if it has one, and publishes that.
async fn release_and_publish(
    store: &mut SqliteConnection,
    (context, effect): (&Context, Effect<'_>),
    order_id: &str,
    reason: &str,
) -> Result<(), HandlerError> {
    match release(store, effect, order_id, reason).await? {
        Some(released) => context.publish(released),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;

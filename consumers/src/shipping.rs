//! The `shipping` service: dispatches an order once it is paid and its stock is reserved.
//!
//! Authorization, reservation and cancellation travel on three topics and come in any order. The service keeps what it
//! has seen of each order and dispatches with the event that completes the pair, once. A cancellation or a released
//! reservation bars the dispatch for ever, also when it comes first. One that comes after the dispatch changes nothing:
//! the parcel is on its way, and the stock that inventory takes back stands for the goods that will be returned.

use crate::daemon::Service;
use crate::journal;
use evenkeel::event::{Attributes, Event, derived_id};
use evenkeel::handler::{Context, HandlerError, Router};
use evenkeel::inbox::SqliteTx;
use shop_schemas::{
    OrderCancelled, PaymentAuthorized, ReservedLine, ShipmentDispatched, StockReleased,
    StockReserved,
};
use sqlx::SqliteConnection;

/// The service.
pub const SERVICE: Service = Service {
    name: "shipping",
    about: "Dispatches each order that is paid and reserved",
    schema: SCHEMA,
    handlers,
};

/// One row per order: what was seen of it. `lines` is the reservation as JSON; `barred` says why it must not leave.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS shipments (
    order_id      TEXT PRIMARY KEY,
    authorization TEXT,
    lines         TEXT,
    barred        TEXT,
    tracking      TEXT
);
";

fn handlers(router: Router) -> Router {
    router
        .on(payment_authorized)
        .on(stock_reserved)
        .on(stock_released)
        .on(order_cancelled)
}

async fn payment_authorized(
    event: Event<PaymentAuthorized>,
    context: Context,
    tx: SqliteTx,
) -> Result<(), HandlerError> {
    let Event { attributes, data } = event;
    let fact = Fact::Authorized(data.authorization);
    handle(attributes, &data.order_id, fact, context, tx).await
}

async fn stock_reserved(
    event: Event<StockReserved>,
    context: Context,
    tx: SqliteTx,
) -> Result<(), HandlerError> {
    let Event { attributes, data } = event;
    let fact = Fact::Reserved(data.lines);
    handle(attributes, &data.order_id, fact, context, tx).await
}

async fn stock_released(
    event: Event<StockReleased>,
    context: Context,
    tx: SqliteTx,
) -> Result<(), HandlerError> {
    let Event { attributes, data } = event;
    let fact = Fact::Barred(data.reason);
    handle(attributes, &data.order_id, fact, context, tx).await
}

async fn order_cancelled(
    event: Event<OrderCancelled>,
    context: Context,
    tx: SqliteTx,
) -> Result<(), HandlerError> {
    let Event { attributes, data } = event;
    let fact = Fact::Barred(data.reason);
    handle(attributes, &data.order_id, fact, context, tx).await
}

async fn handle(
    attributes: Attributes,
    order_id: &str,
    fact: Fact,
    context: Context,
    mut tx: SqliteTx,
) -> Result<(), HandlerError> {
    journal::record(&mut tx, &context, &attributes).await?;
    match learn(&mut tx, order_id, fact).await? {
        Some(dispatched) => context.publish(dispatched),
        None => Ok(()),
    }
}

/// What an event says of an order's dispatch.
#[derive(Debug, Clone)]
pub enum Fact {
    /// Its payment is authorized, under this name.
    Authorized(String),
    /// Its stock is reserved.
    Reserved(Vec<ReservedLine>),
    /// It must not leave, for this reason.
    Barred(String),
}

/// Notes a fact about an order and dispatches it if that completes it; none when there is nothing to dispatch (now).
///
/// The first fact of a kind stays: a second one changes nothing.
///
/// # Errors
/// When the store fails, or holds lines that are no JSON.
pub async fn learn(
    store: &mut SqliteConnection,
    order_id: &str,
    fact: Fact,
) -> Result<Option<ShipmentDispatched>, HandlerError> {
    let (authorization, lines, barred) = match fact {
        Fact::Authorized(authorization) => (Some(authorization), None, None),
        Fact::Reserved(lines) => (None, Some(serde_json::to_string(&lines)?), None),
        Fact::Barred(reason) => (None, None, Some(reason)),
    };
    let ready: Option<String> = sqlx::query_scalar(
        "INSERT INTO shipments (order_id, authorization, lines, barred) VALUES (?, ?, ?, ?)
         ON CONFLICT (order_id) DO UPDATE SET
             authorization = coalesce(authorization, excluded.authorization),
             lines = coalesce(lines, excluded.lines),
             barred = coalesce(barred, excluded.barred)
         RETURNING CASE WHEN authorization IS NOT NULL AND barred IS NULL AND tracking IS NULL
                        THEN lines END",
    )
    .bind(order_id)
    .bind(authorization)
    .bind(lines)
    .bind(barred)
    .fetch_one(&mut *store)
    .await?;
    let Some(lines) = ready else {
        return Ok(None);
    };
    let dispatched = ShipmentDispatched {
        order_id: order_id.to_owned(),
        tracking: derived_id("/shop/shipping", order_id, "tracking", 0),
        lines: serde_json::from_str(&lines)?,
    };
    sqlx::query("UPDATE shipments SET tracking = ? WHERE order_id = ?")
        .bind(&dispatched.tracking)
        .bind(order_id)
        .execute(store)
        .await?;
    Ok(Some(dispatched))
}

#[cfg(test)]
mod tests;

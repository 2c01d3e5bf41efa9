//! The `shipping` service: dispatches an order once it is paid and its stock is reserved.
//!
//! Authorization, reservation and cancellation are on three topics and arrive in any order. The
//! service stores the facts of each order. The event that completes the pair dispatches the order,
//! once. A cancellation or a released reservation bars the dispatch forever, also if it comes
//! first. One that comes after the dispatch changes nothing: the parcel is on its way, and the
//! stock that inventory takes back stands for the returned goods.

use crate::daemon::Service;
use crate::effect_journal::{Effect, journaled_one};
use evenkeel::event::{Event, EventType, derived_id};
use evenkeel::handler::{Context, HandlerError, Router};
use evenkeel::inbox::SqliteTx;
use shop_schemas::{
    OrderCancelled, PaymentAuthorized, ReservedLine, ShipmentDispatched, StockReleased,
    StockReserved,
};
use sqlx::{Row, SqliteConnection};

/// The service.
pub const SERVICE: Service = Service {
    name: "shipping",
    about: "Dispatches each order that is paid and reserved",
    schema: SCHEMA,
    handlers,
};

/// One row per order: its facts. `lines` is the reservation as JSON. `barred` is the reason why it
/// must not be dispatched.
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
        .on(record_fact::<PaymentAuthorized>)
        .on(record_fact::<StockReserved>)
        .on(record_fact::<StockReleased>)
        .on(record_fact::<OrderCancelled>)
}

async fn record_fact<T: DispatchFact>(
    event: Event<T>,
    context: Context,
    mut tx: SqliteTx,
) -> Result<(), HandlerError> {
    let effect = Effect::of(&context, &event.attributes);
    let (order_id, fact) = event.data.into_fact();
    match learn(&mut tx, effect, &order_id, fact).await? {
        Some(dispatched) => context.publish(dispatched),
        None => Ok(()),
    }
}

/// An event that contains a fact about an order's dispatch.
trait DispatchFact: EventType {
    /// Id of the order, and the fact.
    fn into_fact(self) -> (String, Fact);
}

macro_rules! dispatch_facts {
    ($($event:ident($data:ident) => $fact:ident($content:expr);)*) => {
        $(impl DispatchFact for $event {
            fn into_fact(self) -> (String, Fact) {
                let $data = self;
                ($data.order_id, Fact::$fact($content))
            }
        })*
    };
}

dispatch_facts! {
    PaymentAuthorized(payment) => Authorized(payment.authorization);
    StockReserved(stock) => Reserved(stock.lines);
    StockReleased(stock) => Barred(stock.reason);
    OrderCancelled(order) => Barred(order.reason);
}

/// A fact about an order's dispatch.
#[derive(Debug, Clone)]
pub enum Fact {
    /// Its payment is authorized, with this number.
    Authorized(String),
    /// Its stock is reserved.
    Reserved(Vec<ReservedLine>),
    /// It must not be dispatched, for this reason.
    Barred(String),
}

/// Adds a fact to an order. Then gives the order its tracking number, if the fact completes it, and
/// returns its lines in this case only.
const LEARN: &str = "
    INSERT INTO shipments (order_id, authorization, lines, barred) VALUES (?, ?, ?, ?)
        ON CONFLICT (order_id) DO UPDATE SET
            authorization = coalesce(authorization, excluded.authorization),
            lines = coalesce(lines, excluded.lines),
            barred = coalesce(barred, excluded.barred);
    UPDATE shipments SET tracking = ?
        WHERE order_id = ? AND tracking IS NULL
            AND authorization IS NOT NULL AND lines IS NOT NULL AND barred IS NULL
        RETURNING lines";

/// Records a fact about an order with its effect, and dispatches the order if the fact completes
/// it, in one call to the store. Returns `None` if there is nothing to dispatch now.
///
/// The first fact of a kind is final: a second one changes nothing.
///
/// # Errors
/// If the store fails, or contains lines that are not JSON.
pub async fn learn(
    store: &mut SqliteConnection,
    effect: Effect<'_>,
    order_id: &str,
    fact: Fact,
) -> Result<Option<ShipmentDispatched>, HandlerError> {
    let (authorization, lines, barred) = match fact {
        Fact::Authorized(authorization) => (Some(authorization), None, None),
        Fact::Reserved(lines) => (None, Some(serde_json::to_string(&lines)?), None),
        Fact::Barred(reason) => (None, None, Some(reason)),
    };
    let tracking = derived_id("/shop/shipping", order_id, "tracking", 0);
    let completed = journaled_one(effect, LEARN)
        .bind(order_id)
        .bind(authorization)
        .bind(lines)
        .bind(barred)
        .bind(&tracking)
        .bind(order_id)
        .fetch_optional(store)
        .await?;
    let Some(completed) = completed else {
        return Ok(None);
    };
    let lines: &str = completed.try_get("lines")?;
    Ok(Some(ShipmentDispatched {
        order_id: order_id.to_owned(),
        tracking,
        lines: serde_json::from_str(lines)?,
    }))
}

#[cfg(test)]
mod tests;

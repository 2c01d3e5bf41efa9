//! The `payments` service: authorizes or declines the payment of each placed order.
//!
//! Each order is decided once; the decision is its row. A cancellation voids what was authorized. One that comes before
//! its order leaves a void row without an amount, and the order is then declined instead of authorized.

use crate::daemon::Service;
use crate::journal;
use evenkeel::event::{Event, derived_id};
use evenkeel::handler::{Context, HandlerError, Router};
use evenkeel::inbox::SqliteTx;
use shop_schemas::{OrderCancelled, OrderPlaced, PaymentAuthorized, PaymentDeclined};
use sqlx::SqliteConnection;

/// The largest total that is authorized, in cents.
pub const AMOUNT_CENTS_MAX: u64 = 500_000;

/// The service.
pub const SERVICE: Service = Service {
    name: "payments",
    about: "Authorizes or declines the payment of each order",
    schema: SCHEMA,
    handlers,
};

/// One row per order: what became of its payment. `amount_cents` is null until the order was seen.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS payments (
    order_id      TEXT PRIMARY KEY,
    state         TEXT NOT NULL CHECK (state IN ('authorized', 'declined', 'void')),
    amount_cents  INTEGER,
    authorization TEXT,
    reason        TEXT
);
";

fn handlers(router: Router) -> Router {
    router.on(order_placed).on(order_cancelled)
}

async fn order_placed(
    event: Event<OrderPlaced>,
    context: Context,
    mut tx: SqliteTx,
) -> Result<(), HandlerError> {
    journal::record(&mut tx, &context, &event.attributes).await?;
    match decide(&mut tx, &event.data).await? {
        Some(Decision::Authorized(authorized)) => context.publish(authorized),
        Some(Decision::Declined(declined)) => context.publish(declined),
        None => Ok(()),
    }
}

async fn order_cancelled(
    event: Event<OrderCancelled>,
    context: Context,
    mut tx: SqliteTx,
) -> Result<(), HandlerError> {
    journal::record(&mut tx, &context, &event.attributes).await?;
    void(&mut tx, &event.data).await?;
    Ok(())
}

/// What became of an order's payment.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The amount is authorized.
    Authorized(PaymentAuthorized),
    /// It is not.
    Declined(PaymentDeclined),
}

/// Decides about a placed order and stores the decision; none when it was decided before.
///
/// # Errors
/// When the store fails, or the amount is beyond what it can hold.
pub async fn decide(
    store: &mut SqliteConnection,
    order: &OrderPlaced,
) -> Result<Option<Decision>, HandlerError> {
    let amount = i64::try_from(order.total_cents).map_err(HandlerError::permanent)?;
    let known: Option<(Option<i64>,)> =
        sqlx::query_as("SELECT amount_cents FROM payments WHERE order_id = ?")
            .bind(&order.order_id)
            .fetch_optional(&mut *store)
            .await?;
    if let Some((Some(_),)) = known {
        return Ok(None);
    }
    let refusal = if known.is_some() {
        Some("the order was cancelled".to_owned())
    } else if order.total_cents > AMOUNT_CENTS_MAX {
        Some(format!(
            "the total is above the limit of {AMOUNT_CENTS_MAX} cents"
        ))
    } else {
        None
    };
    let decision = match refusal {
        None => Decision::Authorized(PaymentAuthorized {
            order_id: order.order_id.clone(),
            amount_cents: order.total_cents,
            authorization: derived_id("/shop/payments", &order.order_id, "authorization", 0),
        }),
        Some(reason) => Decision::Declined(PaymentDeclined {
            order_id: order.order_id.clone(),
            amount_cents: order.total_cents,
            reason,
        }),
    };
    let (state, authorization, reason) = match &decision {
        Decision::Authorized(event) => ("authorized", Some(&event.authorization), None),
        Decision::Declined(event) => ("declined", None, Some(&event.reason)),
    };
    sqlx::query(
        "INSERT OR REPLACE INTO payments (order_id, state, amount_cents, authorization, reason)
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&order.order_id)
    .bind(state)
    .bind(amount)
    .bind(authorization)
    .bind(reason)
    .execute(store)
    .await?;
    Ok(Some(decision))
}

/// Voids the payment of a cancelled order; a declined one stays declined.
///
/// # Errors
/// When the store fails.
pub async fn void(
    store: &mut SqliteConnection,
    cancelled: &OrderCancelled,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO payments (order_id, state, reason) VALUES (?, 'void', ?)
         ON CONFLICT (order_id) DO UPDATE SET state = 'void', reason = excluded.reason
         WHERE state = 'authorized'",
    )
    .bind(&cancelled.order_id)
    .bind(&cancelled.reason)
    .execute(store)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests;

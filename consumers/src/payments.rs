//! The `payments` service: authorizes or declines the payment of each placed order.
//!
//! With `--provider-url` a payment provider is asked for each order ([`asking`]), and its answer counts; without, the service
//! decides by itself.
//!
//! Each order is decided once; the decision is its row. A cancellation voids what was authorized. One that comes before
//! its order leaves a void row without an amount, and the order is then declined instead of authorized.

pub mod asking;

use crate::daemon::{self, Service};
use crate::journal;
use crate::options::Options;
use crate::provider::Answer;
use asking::{Answers, Asking};
use clap::{Args, FromArgMatches};
use evenkeel::event::{Event, derived_id};
use evenkeel::handler::{Context, HandlerError, Router, State};
use evenkeel::inbox::SqliteTx;
use shop_schemas::{OrderCancelled, OrderPlaced, PaymentAuthorized, PaymentDeclined};
use sqlx::SqliteConnection;
use std::process::ExitCode;

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

/// The flags that only this service has.
#[derive(Debug, Clone, Default, Args)]
pub struct PaymentsArgs {
    /// Ask the payment provider at this URL; without it, every payment up to a limit is authorized
    #[arg(long, env = "SHOP_PROVIDER_URL", value_name = "URL")]
    pub provider_url: Option<String>,
}

/// The daemon's `main`.
pub async fn main() -> ExitCode {
    let command = PaymentsArgs::augment_args(daemon::command(&SERVICE));
    let matches = command.get_matches();
    let (options, args) = match (
        Options::from_arg_matches(&matches),
        PaymentsArgs::from_arg_matches(&matches),
    ) {
        (Ok(options), Ok(args)) => (options, args),
        (Err(error), _) | (_, Err(error)) => error.exit(),
    };
    daemon::exit(match args.provider_url {
        None => daemon::start(&SERVICE, options).await,
        Some(url) => {
            daemon::start_with(&SERVICE, options, |router| Asking::new(router, &url)).await
        }
    })
}

fn handlers(router: Router) -> Router {
    // Whoever asks a provider replaces the answers by those that it fills.
    router
        .on(order_placed)
        .on(order_cancelled)
        .with_state(Answers::default())
}

async fn order_placed(
    event: Event<OrderPlaced>,
    context: Context,
    State(answers): State<Answers>,
    mut tx: SqliteTx,
) -> Result<(), HandlerError> {
    journal::record(&mut tx, &context, &event.attributes).await?;
    let answer = answers.of(&event.attributes.id);
    match decide(&mut tx, &event.data, answer).await? {
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

/// Decides about a placed order and stores the decision; none when it was decided before. The provider's answer counts where
/// there is one.
///
/// # Errors
/// When the store fails, or the amount is beyond what it can hold.
pub async fn decide(
    store: &mut SqliteConnection,
    order: &OrderPlaced,
    answer: Option<Answer>,
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
    let answer = if known.is_some() {
        declined("the order was cancelled".to_owned())
    } else if order.total_cents > AMOUNT_CENTS_MAX {
        declined(format!(
            "the total is above the limit of {AMOUNT_CENTS_MAX} cents"
        ))
    } else {
        answer.unwrap_or_else(|| Answer::Authorized {
            authorization: derived_id("/shop/payments", &order.order_id, "authorization", 0),
        })
    };
    let decision = match answer {
        Answer::Authorized { authorization } => Decision::Authorized(PaymentAuthorized {
            order_id: order.order_id.clone(),
            amount_cents: order.total_cents,
            authorization,
        }),
        Answer::Declined { reason } => Decision::Declined(PaymentDeclined {
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

fn declined(reason: String) -> Answer {
    Answer::Declined { reason }
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

//! The `payments` service: authorizes or declines the payment of each placed order.
//!
//! With `--provider-url`, it queries a payment provider for each order ([`provider_service`]),
//! whose answer decides. Otherwise the service decides itself.
//!
//! Each order has one decision; its row is the decision. A cancellation voids an authorized
//! payment. A cancellation that comes before its order leaves a void row without an amount, and the
//! order is then declined.

pub mod provider_service;
mod provider_span;

use crate::daemon::layer::Layered;
use crate::daemon::options::Options;
use crate::daemon::{self, Service};
use crate::effect_journal::{Effect, journaled_one};
use crate::provider::Answer;
use clap::{Args, Command, FromArgMatches};
use evenkeel::event::{Event, derived_id};
use evenkeel::handler::{Context, HandlerError, Router, State};
use evenkeel::inbox::SqliteTx;
use provider_service::{Answers, ProviderService};
use shop_schemas::{OrderCancelled, OrderPlaced, PaymentAuthorized, PaymentDeclined};
use sqlx::{Row, SqliteConnection};
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

/// One row per order: its payment. `amount_cents` is null until the order was handled.
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
    /// URL of the payment provider. Without it, every payment up to a limit is authorized
    #[arg(long, env = "SHOP_PROVIDER_URL", value_name = "URL")]
    pub provider_url: Option<String>,
}

/// The daemon's command line.
fn command() -> Command {
    // `augment_args` replaces a command's description.
    PaymentsArgs::augment_args(daemon::command(&SERVICE)).about(SERVICE.about)
}

/// The daemon's `main`.
pub async fn main() -> ExitCode {
    let matches = command().get_matches();
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
            daemon::start_with(&SERVICE, options, |router| {
                Layered(ProviderService::new(router, &url))
            })
            .await
        }
    })
}

fn handlers(router: Router) -> Router {
    // With a provider, these answers are replaced by those that its layer fills.
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
    let effect = Effect::of(&context, &event.attributes);
    let answer = answers.of(&event.attributes.id);
    match decide(&mut tx, effect, &event.data, answer).await? {
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
    let effect = Effect::of(&context, &event.attributes);
    void(&mut tx, effect, &event.data).await?;
    Ok(())
}

/// The decision on an order's payment.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The amount is authorized.
    Authorized(PaymentAuthorized),
    /// The amount is not authorized.
    Declined(PaymentDeclined),
}

/// Stores the decision on an order, and declines an order that was cancelled before. Returns the
/// stored decision. An order that was decided before is not changed, and no row is returned.
const DECIDE: &str = "
    INSERT INTO payments (order_id, state, amount_cents, authorization, reason)
        VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (order_id) DO UPDATE SET
            state = 'declined', amount_cents = excluded.amount_cents,
            authorization = NULL, reason = 'the order was cancelled'
        WHERE payments.amount_cents IS NULL
        RETURNING authorization, reason";

/// Decides on a placed order and stores the decision with its effect, in one call to the store.
/// Returns `None` if it was decided before. The provider's answer decides if there is one.
///
/// # Errors
/// If the store fails, or the amount exceeds its range.
pub async fn decide(
    store: &mut SqliteConnection,
    effect: Effect<'_>,
    order: &OrderPlaced,
    answer: Option<Answer>,
) -> Result<Option<Decision>, HandlerError> {
    let amount = i64::try_from(order.total_cents).map_err(HandlerError::permanent)?;
    let answer = if order.total_cents > AMOUNT_CENTS_MAX {
        Answer::Declined {
            reason: format!("the total is above the limit of {AMOUNT_CENTS_MAX} cents"),
        }
    } else {
        answer.unwrap_or_else(|| Answer::Authorized {
            authorization: derived_id("/shop/payments", &order.order_id, "authorization", 0),
        })
    };
    let (state, authorization, reason) = match answer {
        Answer::Authorized { authorization } => ("authorized", Some(authorization), None),
        Answer::Declined { reason } => ("declined", None, Some(reason)),
    };
    let decided = journaled_one(effect, DECIDE)
        .bind(&order.order_id)
        .bind(state)
        .bind(amount)
        .bind(authorization)
        .bind(reason)
        .fetch_optional(store)
        .await?;
    let Some(decided) = decided else {
        return Ok(None);
    };
    let order_id = order.order_id.clone();
    let amount_cents = order.total_cents;
    Ok(Some(match decided.try_get("authorization")? {
        Some(authorization) => Decision::Authorized(PaymentAuthorized {
            order_id,
            amount_cents,
            authorization,
        }),
        None => Decision::Declined(PaymentDeclined {
            order_id,
            amount_cents,
            reason: decided.try_get("reason")?,
        }),
    }))
}

/// Voids the payment of an order.
const VOID: &str = "
    INSERT INTO payments (order_id, state, reason) VALUES (?, 'void', ?)
        ON CONFLICT (order_id) DO UPDATE SET state = 'void', reason = excluded.reason
        WHERE state = 'authorized'";

/// Voids the payment of a cancelled order, and stores the effect. A declined payment remains
/// declined.
///
/// # Errors
/// If the store fails.
pub async fn void(
    store: &mut SqliteConnection,
    effect: Effect<'_>,
    cancelled: &OrderCancelled,
) -> Result<(), sqlx::Error> {
    journaled_one(effect, VOID)
        .bind(&cancelled.order_id)
        .bind(&cancelled.reason)
        .execute(store)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests;

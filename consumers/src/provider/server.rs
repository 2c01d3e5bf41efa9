//! The two addresses of the fake provider: one for payments, and one for commands, which must work
//! while the first refuses connections.

use super::behaviour::Behaviour;
use super::{Answer, IDEMPOTENCY_KEY, PaymentRequest, payment_span};
use anyhow::Context;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use evenkeel::telemetry::daemon::admin_address;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Simulates a payment provider, with faults on request.
///
/// POST /payments answers {"decision":"authorized",...} or {"decision":"declined",...}.
/// Requests with the same Idempotency-Key get the same answer.
/// On the admin address, PUT /behaviour takes one of
///   {"behaviour":"normal"}
///   {"behaviour":"slow","latency_ms":800}
///   {"behaviour":"declining"}
///   {"behaviour":"failing","customer_id":"customer-0001","status":500}
///   {"behaviour":"hanging"}       never answers
///   {"behaviour":"down"}          answers 503
///   {"behaviour":"unreachable"}   refuses connections
/// and GET /behaviour returns the present one. Answers are kept in memory only.
#[derive(Debug, Clone, Parser)]
#[command(name = "payment-provider", version, verbatim_doc_comment)]
pub struct ProviderArgs {
    /// Address of POST /payments
    #[arg(
        long,
        value_name = "[ADDR:]PORT",
        default_value = "127.0.0.1:8085",
        value_parser = admin_address
    )]
    pub listen: SocketAddr,
    /// Address of /behaviour
    #[arg(
        long,
        value_name = "[ADDR:]PORT",
        default_value = "127.0.0.1:8086",
        value_parser = admin_address
    )]
    pub admin: SocketAddr,
}

/// The state of a provider.
struct Provider {
    behaviour: watch::Sender<Behaviour>,
    /// Answers by key.
    answers: Mutex<HashMap<String, Answer>>,
}

/// Serves both addresses until the future is dropped.
///
/// # Errors
/// If it cannot listen on an address.
pub async fn serve(args: &ProviderArgs) -> anyhow::Result<()> {
    let provider = Arc::new(Provider {
        behaviour: watch::Sender::new(Behaviour::Normal),
        answers: Mutex::default(),
    });
    let admin = Router::new()
        .route("/behaviour", get(tell).put(be_told))
        .with_state(Arc::clone(&provider));
    let payments = Router::new()
        .route("/payments", payment_span::traced(post(pay)))
        .with_state(Arc::clone(&provider));
    let admin_listener = listen(args.admin).await?;
    tokio::try_join!(
        async { Ok(axum::serve(admin_listener, admin).await?) },
        serve_payments(args.listen, payments, &provider),
    )?;
    Ok(())
}

/// Serves payments. Closes the address while the provider is unreachable.
async fn serve_payments(
    address: SocketAddr,
    payments: Router,
    provider: &Provider,
) -> anyhow::Result<()> {
    loop {
        let mut told = provider.behaviour.subscribe();
        let unreachable = |behaviour: &Behaviour| *behaviour == Behaviour::Unreachable;
        let listener = listen(address).await?;
        let mut until = told.clone();
        axum::serve(listener, payments.clone())
            .with_graceful_shutdown(async move {
                // The sender lives as long as this function.
                let _ = until.wait_for(unreachable).await;
            })
            .await?;
        told.wait_for(|behaviour| !unreachable(behaviour)).await?;
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address}"))
}

async fn tell(State(provider): State<Arc<Provider>>) -> Json<Behaviour> {
    Json(provider.behaviour.borrow().clone())
}

async fn be_told(State(provider): State<Arc<Provider>>, Json(behaviour): Json<Behaviour>) {
    provider.behaviour.send_replace(behaviour);
}

async fn pay(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    Json(payment): Json<PaymentRequest>,
) -> Result<Json<Answer>, StatusCode> {
    let key = headers
        .get(IDEMPOTENCY_KEY)
        .and_then(|key| key.to_str().ok());
    let key = key.ok_or(StatusCode::BAD_REQUEST)?;
    let behaviour = provider.behaviour.borrow().clone();
    if behaviour == Behaviour::Hanging {
        // Until the client times out: no answer is sent later either.
        std::future::pending::<()>().await;
    }
    // A sleep of no time would end with the timer's next millisecond.
    let latency = behaviour.latency();
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let answer = behaviour.answer(key, &payment).map_err(|status| {
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    })?;
    let mut answers = provider
        .answers
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    Ok(Json(
        answers.entry(key.to_owned()).or_insert(answer).clone(),
    ))
}

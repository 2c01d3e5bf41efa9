//! Reads the board: one order with its facts, or all orders by state.

use super::State;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use std::path::Path;

/// An order with its facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Order {
    /// Id of the order.
    pub order_id: String,
    /// State of the order.
    pub state: String,
    /// Facts of the order, sorted by the events' time.
    pub facts: Vec<Told>,
}

/// A stored fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Name of the fact.
    pub fact: String,
    /// Time of its event (RFC 3339).
    pub at: String,
    /// Details of the fact.
    pub detail: String,
}

/// A row of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Id of the order.
    pub order_id: String,
    /// State of the order.
    pub state: String,
}

/// Opens the board's store for reading, without disturbing a running daemon.
///
/// # Errors
/// If there is no such store: the daemon creates it.
pub async fn open(store: &Path) -> Result<SqliteConnection> {
    ensure!(
        store.exists(),
        "there is no store {}; start the daemon with --store {} first",
        store.display(),
        store.display()
    );
    SqliteConnectOptions::new()
        .filename(store)
        .create_if_missing(false)
        .connect()
        .await
        .with_context(|| format!("cannot open the store {}", store.display()))
}

/// One order. `None` if no event about it was handled.
///
/// # Errors
/// If the store cannot be read.
pub async fn order(store: &mut SqliteConnection, order_id: &str) -> Result<Option<Order>> {
    let state: Option<String> = sqlx::query_scalar("SELECT state FROM orders WHERE order_id = ?")
        .bind(order_id)
        .fetch_optional(&mut *store)
        .await
        .context("cannot read the orders; is this the orderboard's store?")?;
    let Some(state) = state else {
        return Ok(None);
    };
    let facts: Vec<(String, String, String)> =
        sqlx::query_as("SELECT fact, at, detail FROM facts WHERE order_id = ? ORDER BY at, fact")
            .bind(order_id)
            .fetch_all(store)
            .await?;
    Ok(Some(Order {
        order_id: order_id.to_owned(),
        state,
        facts: facts
            .into_iter()
            .map(|(fact, at, detail)| Told { fact, at, detail })
            .collect(),
    }))
}

/// All orders, or those in one state, by order id.
///
/// # Errors
/// If the store cannot be read.
pub async fn orders(store: &mut SqliteConnection, state: Option<State>) -> Result<Vec<Line>> {
    let state = state.map(State::as_str);
    let lines: Vec<(String, String)> = sqlx::query_as(
        "SELECT order_id, state FROM orders WHERE ?1 IS NULL OR state = ?1 ORDER BY order_id",
    )
    .bind(state)
    .fetch_all(store)
    .await
    .context("cannot read the orders; is this the orderboard's store?")?;
    Ok(lines
        .into_iter()
        .map(|(order_id, state)| Line { order_id, state })
        .collect())
}

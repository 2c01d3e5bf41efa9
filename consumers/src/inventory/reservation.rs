//! The stock of an order: reserved or rejected once, released at most once.

use super::stock::{Move, available, book};
use evenkeel::handler::HandlerError;
use shop_schemas::{
    OrderLine, OrderPlaced, ReservedLine, StockRejected, StockReleased, StockReserved,
};
use sqlx::SqliteConnection;
use std::collections::HashMap;

/// The answer to a placed order.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// All of its lines are reserved.
    Reserved(StockReserved),
    /// No line is reserved.
    Rejected(StockRejected),
}

/// Reserves all lines of an order or none. Returns `None` if the order has an answer already.
///
/// # Errors
/// If the store fails, or the order has no lines.
pub async fn reserve(
    store: &mut SqliteConnection,
    order: &OrderPlaced,
) -> Result<Option<Answer>, HandlerError> {
    let Some(first) = order.lines.first() else {
        return Err(HandlerError::permanent("the order has no lines"));
    };
    let known: Option<(String, Option<String>)> =
        sqlx::query_as("SELECT state, reason FROM reservations WHERE order_id = ?")
            .bind(&order.order_id)
            .fetch_optional(&mut *store)
            .await?;
    let rejection = match known {
        Some((state, reason)) if state == "barred" => {
            Some((first.article.clone(), reason.unwrap_or_default()))
        }
        Some(_) => return Ok(None),
        None => first_short(store, &order.lines)
            .await?
            .map(|article| (article, "not enough in stock".to_owned())),
    };
    if let Some((article, reason)) = rejection {
        note(store, &order.order_id, "rejected", Some(&reason), None).await?;
        return Ok(Some(Answer::Rejected(StockRejected {
            order_id: order.order_id.clone(),
            article,
            reason,
        })));
    }
    let mut lines = Vec::with_capacity(order.lines.len());
    for line in &order.lines {
        let quantity = i64::from(line.quantity);
        book(
            store,
            Move::Reserved,
            &line.article,
            quantity,
            &order.order_id,
        )
        .await?;
        lines.push(ReservedLine {
            article: line.article.clone(),
            quantity: line.quantity,
        });
    }
    let stored = serde_json::to_string(&lines)?;
    note(store, &order.order_id, "reserved", None, Some(&stored)).await?;
    Ok(Some(Answer::Reserved(StockReserved {
        order_id: order.order_id.clone(),
        lines,
    })))
}

/// Releases the reservation of an order. Returns `None` if it has none. An unknown order is barred.
///
/// # Errors
/// If the store fails, or contains lines that are not JSON.
pub async fn release(
    store: &mut SqliteConnection,
    order_id: &str,
    reason: &str,
) -> Result<Option<StockReleased>, HandlerError> {
    let known: Option<(String, Option<String>)> =
        sqlx::query_as("SELECT state, lines FROM reservations WHERE order_id = ?")
            .bind(order_id)
            .fetch_optional(&mut *store)
            .await?;
    let lines = match known {
        None => {
            note(store, order_id, "barred", Some(reason), None).await?;
            return Ok(None);
        }
        Some((state, Some(lines))) if state == "reserved" => lines,
        Some(_) => return Ok(None),
    };
    let released: Vec<ReservedLine> = serde_json::from_str(&lines)?;
    for line in &released {
        let quantity = i64::from(line.quantity);
        book(store, Move::Released, &line.article, quantity, order_id).await?;
    }
    note(store, order_id, "released", Some(reason), Some(&lines)).await?;
    Ok(Some(StockReleased {
        order_id: order_id.to_owned(),
        lines: released,
        reason: reason.to_owned(),
    }))
}

/// The first article whose available stock is below the sum of the lines so far: an order may
/// contain an article twice.
async fn first_short(
    store: &mut SqliteConnection,
    lines: &[OrderLine],
) -> Result<Option<String>, sqlx::Error> {
    let mut asked: HashMap<&str, i64> = HashMap::new();
    for line in lines {
        let asked = asked.entry(&line.article).or_default();
        *asked += i64::from(line.quantity);
        if *asked > available(store, &line.article).await? {
            return Ok(Some(line.article.clone()));
        }
    }
    Ok(None)
}

async fn note(
    store: &mut SqliteConnection,
    order_id: &str,
    state: &str,
    reason: Option<&str>,
    lines: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO reservations (order_id, state, reason, lines) VALUES (?, ?, ?, ?)",
    )
    .bind(order_id)
    .bind(state)
    .bind(reason)
    .bind(lines)
    .execute(store)
    .await?;
    Ok(())
}

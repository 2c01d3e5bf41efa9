//! The stock of an order: reserved or rejected once, released at most once.

use super::stock::{Move, Moves, bind_lines};
use crate::effect_journal::values::placeholders;
use crate::effect_journal::{Effect, Query, journaled, journaled_one};
use evenkeel::handler::HandlerError;
use shop_schemas::{
    LINES_MAX, OrderPlaced, ReservedLine, StockRejected, StockReleased, StockReserved,
};
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use std::collections::HashMap;

/// The answer to a placed order.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// All of its lines are reserved.
    Reserved(StockReserved),
    /// No line is reserved.
    Rejected(StockRejected),
}

/// Reserves all lines of an order or none, and stores the effect. Returns `None` if the order has
/// an answer already. Two calls to the store, one if there is an answer.
///
/// # Errors
/// If the store fails. A permanent one, before anything is written, if the order has no lines or
/// more than [`LINES_MAX`]: SQLite would reject the statement with all of them, which looks
/// transient.
pub async fn reserve(
    store: &mut SqliteConnection,
    effect: Effect<'_>,
    order: &OrderPlaced,
) -> Result<Option<Answer>, HandlerError> {
    let Some(first) = order.lines.first() else {
        return Err(HandlerError::permanent("the order has no lines"));
    };
    let lines = order.lines.len();
    if lines > LINES_MAX {
        return Err(HandlerError::permanent(format!(
            "the order has {lines} lines; at most {LINES_MAX} are allowed"
        )));
    }
    let lines = order.lines.iter().map(|line| ReservedLine {
        article: line.article.clone(),
        quantity: line.quantity,
    });
    let lines: Vec<ReservedLine> = lines.collect();
    let known = look_up(store, effect, &order.order_id, &lines).await?;
    let rejection = match known.state.as_deref() {
        Some("barred") => Some((first.article.clone(), known.reason.unwrap_or_default())),
        Some(_) => return Ok(None),
        None => first_short(&lines, &known.available)
            .map(|article| (article.to_owned(), "not enough in stock".to_owned())),
    };
    if let Some((article, reason)) = rejection {
        let rejected = Reservation {
            order_id: &order.order_id,
            state: "rejected",
            reason: Some(&reason),
            lines: None,
        };
        rejected.bind(sqlx::query(STORE)).execute(store).await?;
        return Ok(Some(Answer::Rejected(StockRejected {
            order_id: order.order_id.clone(),
            article,
            reason,
        })));
    }
    let stored = serde_json::to_string(&lines)?;
    let reserved = Reservation {
        order_id: &order.order_id,
        state: "reserved",
        reason: None,
        lines: Some(&stored),
    };
    reserved.store_with(Move::Reserved, &lines, store).await?;
    Ok(Some(Answer::Reserved(StockReserved {
        order_id: order.order_id.clone(),
        lines,
    })))
}

/// Bars an order that is not known, and returns the reservation that was known.
const BAR: &str = "
    INSERT INTO reservations (order_id, state, reason) VALUES (?, 'barred', ?)
        ON CONFLICT DO NOTHING;
    SELECT state, lines FROM reservations WHERE order_id = ?";

/// Releases the reservation of an order, and stores the effect. Returns `None` if it has none. An
/// unknown order is barred. Two calls to the store, one if there is nothing to release.
///
/// # Errors
/// If the store fails, or contains lines that are not JSON.
pub async fn release(
    store: &mut SqliteConnection,
    effect: Effect<'_>,
    order_id: &str,
    reason: &str,
) -> Result<Option<StockReleased>, HandlerError> {
    let known = journaled_one(effect, BAR)
        .bind(order_id)
        .bind(reason)
        .bind(order_id)
        .fetch_one(&mut *store)
        .await?;
    let (state, lines): (&str, Option<&str>) = (known.try_get("state")?, known.try_get("lines")?);
    let Some(stored) = lines.filter(|_| state == "reserved") else {
        return Ok(None);
    };
    let lines: Vec<ReservedLine> = serde_json::from_str(stored)?;
    let released = Reservation {
        order_id,
        state: "released",
        reason: Some(reason),
        lines: Some(stored),
    };
    released.store_with(Move::Released, &lines, store).await?;
    Ok(Some(StockReleased {
        order_id: order_id.to_owned(),
        lines,
        reason: reason.to_owned(),
    }))
}

/// What the store contains about an order that is placed.
struct Known {
    /// State and reason of its reservation, if there is one.
    state: Option<String>,
    reason: Option<String>,
    /// The available quantity of each of its articles; 0 for one that was never received.
    available: HashMap<String, i64>,
}

/// A row for each line of an order. The reservation is the same in all of them.
const LOOK_UP: &str = "
    SELECT column1, coalesce(available, 0), state, reason FROM (VALUES /*lines*/)
        LEFT JOIN stock ON stock.article = column1
        LEFT JOIN reservations ON reservations.order_id = ?
        WHERE column1 IS NOT NULL";

/// Reads what is known about an order and its lines, and stores the effect.
async fn look_up(
    store: &mut SqliteConnection,
    effect: Effect<'_>,
    order_id: &str,
    lines: &[ReservedLine],
) -> Result<Known, sqlx::Error> {
    let sql = LOOK_UP.replace("/*lines*/", &placeholders(2, lines.len()));
    let query = bind_lines(journaled(&[effect], &sql), lines);
    let mut known = Known {
        state: None,
        reason: None,
        available: HashMap::new(),
    };
    for row in query.bind(order_id).fetch_all(store).await? {
        known.available.insert(row.try_get(0)?, row.try_get(1)?);
        known.state = row.try_get(2)?;
        known.reason = row.try_get(3)?;
    }
    Ok(known)
}

/// The first article whose available stock is below the sum of the lines so far: an order may
/// contain an article twice.
fn first_short<'a>(lines: &'a [ReservedLine], available: &HashMap<String, i64>) -> Option<&'a str> {
    let mut asked: HashMap<&str, i64> = HashMap::new();
    lines
        .iter()
        .map(|line| {
            let article = line.article.as_str();
            let asked = asked.entry(article).or_default();
            *asked += i64::from(line.quantity);
            (article, *asked)
        })
        .find(|(article, asked)| {
            available
                .get(*article)
                .is_none_or(|available| asked > available)
        })
        .map(|(article, _)| article)
}

/// A row of the reservations.
struct Reservation<'a> {
    order_id: &'a str,
    state: &'a str,
    reason: Option<&'a str>,
    lines: Option<&'a str>,
}

/// Stores a row of the reservations.
const STORE: &str = "
    INSERT OR REPLACE INTO reservations (order_id, state, reason, lines) VALUES (?, ?, ?, ?)";

impl Reservation<'_> {
    fn bind(&self, query: Query) -> Query {
        query
            .bind(self.order_id)
            .bind(self.state)
            .bind(self.reason)
            .bind(self.lines)
    }

    /// Stores the row with the moves of the order's lines.
    async fn store_with(
        &self,
        kind: Move,
        lines: &[ReservedLine],
        store: &mut SqliteConnection,
    ) -> Result<(), sqlx::Error> {
        let moves = Moves {
            kind,
            lines,
            reference: self.order_id,
        };
        let query = moves.bind(sqlx::query(AssertSqlSafe(moves.sql() + STORE)));
        self.bind(query).execute(store).await?;
        Ok(())
    }
}

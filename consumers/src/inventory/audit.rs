//! Checks the stock: levels against moves, and reserved levels against open reservations.

use evenkeel::handler::HandlerError;
use shop_schemas::ReservedLine;
use sqlx::SqliteConnection;
use std::collections::BTreeMap;

/// An article whose level differs from its moves and reservations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imbalance {
    /// Name of the article.
    pub article: String,
    /// Available and reserved units of its level.
    pub level: (i64, i64),
    /// Available and reserved units according to its moves.
    pub moves: (i64, i64),
    /// Units in open reservations of orders.
    pub held: i64,
}

/// Sums the moves and open reservations, and returns every article whose level differs.
///
/// # Errors
/// If the store cannot be read, or contains lines that are not JSON.
pub async fn audit(store: &mut SqliteConnection) -> Result<Vec<Imbalance>, HandlerError> {
    let mut articles: BTreeMap<String, Imbalance> = BTreeMap::new();
    let levels: Vec<(String, i64, i64)> =
        sqlx::query_as("SELECT article, available, reserved FROM stock")
            .fetch_all(&mut *store)
            .await?;
    for (article, available, reserved) in levels {
        entry(&mut articles, article).level = (available, reserved);
    }
    let moves: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT article,
                sum(CASE kind WHEN 'reserved' THEN -quantity ELSE quantity END),
                sum(CASE kind WHEN 'reserved' THEN quantity WHEN 'released' THEN -quantity ELSE 0 END)
         FROM stock_moves GROUP BY article",
    )
    .fetch_all(&mut *store)
    .await?;
    for (article, available, reserved) in moves {
        entry(&mut articles, article).moves = (available, reserved);
    }
    let open: Vec<String> =
        sqlx::query_scalar("SELECT lines FROM reservations WHERE state = 'reserved'")
            .fetch_all(store)
            .await?;
    for lines in open {
        for line in serde_json::from_str::<Vec<ReservedLine>>(&lines)? {
            entry(&mut articles, line.article).held += i64::from(line.quantity);
        }
    }
    articles.retain(|_, sums| sums.level != sums.moves || sums.level.1 != sums.held);
    Ok(articles.into_values().collect())
}

fn entry(articles: &mut BTreeMap<String, Imbalance>, article: String) -> &mut Imbalance {
    articles
        .entry(article.clone())
        .or_insert_with(|| Imbalance {
            article,
            level: (0, 0),
            moves: (0, 0),
            held: 0,
        })
}

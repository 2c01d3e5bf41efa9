//! Stock levels and the moves that change them. Independent of orders.

use shop_schemas::StockReceived;
use sqlx::SqliteConnection;

/// A change of an article's level.
#[derive(Debug, Clone, Copy)]
pub(super) enum Move {
    Received,
    Reserved,
    Released,
}

impl Move {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Reserved => "reserved",
            Self::Released => "released",
        }
    }

    /// The change by one unit: available, reserved.
    fn signs(self) -> (i64, i64) {
        match self {
            Self::Received => (1, 0),
            Self::Reserved => (-1, 1),
            Self::Released => (1, -1),
        }
    }
}

/// Adds a delivery to the available stock.
///
/// # Errors
/// If the store fails.
pub async fn receive(
    store: &mut SqliteConnection,
    delivery: &StockReceived,
) -> Result<(), sqlx::Error> {
    let quantity = i64::from(delivery.quantity);
    book(
        store,
        Move::Received,
        &delivery.article,
        quantity,
        &delivery.delivery_id,
    )
    .await
}

/// Changes the level of `article` and records the move with `reference`, an order or a delivery.
///
/// A level never becomes negative: the table's checks fail the move, and with it the transaction.
pub(super) async fn book(
    store: &mut SqliteConnection,
    kind: Move,
    article: &str,
    quantity: i64,
    reference: &str,
) -> Result<(), sqlx::Error> {
    let (available, reserved) = kind.signs();
    sqlx::query(
        "INSERT INTO stock (article, available, reserved) VALUES (?, 0, 0) ON CONFLICT DO NOTHING",
    )
    .bind(article)
    .execute(&mut *store)
    .await?;
    sqlx::query(
        "UPDATE stock SET available = available + ?, reserved = reserved + ? WHERE article = ?",
    )
    .bind(available * quantity)
    .bind(reserved * quantity)
    .bind(article)
    .execute(&mut *store)
    .await?;
    sqlx::query("INSERT INTO stock_moves (article, kind, quantity, reference) VALUES (?, ?, ?, ?)")
        .bind(article)
        .bind(kind.as_str())
        .bind(quantity)
        .bind(reference)
        .execute(store)
        .await?;
    Ok(())
}

/// The available quantity of `article`. 0 for an article that was never received.
pub(super) async fn available(
    store: &mut SqliteConnection,
    article: &str,
) -> Result<i64, sqlx::Error> {
    let available: Option<i64> =
        sqlx::query_scalar("SELECT available FROM stock WHERE article = ?")
            .bind(article)
            .fetch_optional(store)
            .await?;
    Ok(available.unwrap_or(0))
}

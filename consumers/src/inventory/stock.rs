//! Stock levels and the moves that change them. Independent of orders.

use crate::effect_journal::values::{padded, placeholders};
use crate::effect_journal::{Effect, Query, journaled};
use shop_schemas::{ReservedLine, StockReceived};
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

/// Changes the levels of articles and records the moves. An article may have several lines.
///
/// A missing level is added as zero first: the table's checks reject an upsert with a negative
/// change, although the level would not be negative.
const MOVE: &str = "
    INSERT INTO stock (article, available, reserved)
        SELECT column1, 0, 0 FROM (VALUES /*lines*/) WHERE column1 IS NOT NULL
        ON CONFLICT DO NOTHING;
    UPDATE stock SET
        available = available + ? * moved.quantity,
        reserved = reserved + ? * moved.quantity
        FROM (
            SELECT column1 AS article, sum(column2) AS quantity FROM (VALUES /*lines*/)
                GROUP BY column1
        ) AS moved
        WHERE stock.article = moved.article;
    INSERT INTO stock_moves (article, kind, quantity, reference)
        SELECT column1, ?, column2, ? FROM (VALUES /*lines*/) WHERE column1 IS NOT NULL;";

/// Moves of one kind with one reference, an order or a delivery.
///
/// A level never becomes negative: the table's checks fail the moves, and with them the
/// transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moves<'a> {
    pub(super) kind: Move,
    pub(super) lines: &'a [ReservedLine],
    pub(super) reference: &'a str,
}

impl Moves<'_> {
    /// The statements.
    pub(super) fn sql(&self) -> String {
        MOVE.replace("/*lines*/", &placeholders(2, self.lines.len()))
    }

    /// Binds the values of the statements.
    pub(super) fn bind(&self, query: Query) -> Query {
        let (available, reserved) = self.kind.signs();
        let query = bind_lines(query, self.lines);
        let query = bind_lines(query.bind(available).bind(reserved), self.lines);
        let query = query.bind(self.kind.as_str()).bind(self.reference);
        bind_lines(query, self.lines)
    }
}

/// Binds a list of lines: article and quantity.
pub(super) fn bind_lines(query: Query, lines: &[ReservedLine]) -> Query {
    padded(lines).fold(query, |query, line| {
        query
            .bind(line.map(|line| line.article.as_str()))
            .bind(line.map(|line| i64::from(line.quantity)))
    })
}

/// Adds a delivery to the available stock, with its effect, in one call to the store.
///
/// # Errors
/// If the store fails.
pub async fn receive(
    store: &mut SqliteConnection,
    effect: Effect<'_>,
    delivery: &StockReceived,
) -> Result<(), sqlx::Error> {
    let line = ReservedLine {
        article: delivery.article.clone(),
        quantity: delivery.quantity,
    };
    let moves = Moves {
        kind: Move::Received,
        lines: &[line],
        reference: &delivery.delivery_id,
    };
    let query = journaled(&[effect], &moves.sql());
    moves.bind(query).execute(store).await?;
    Ok(())
}

//! A delivery as a row of a file.

use crate::import::row::Row;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shop_schemas::StockReceived;

/// A delivery of one article.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryRow {
    /// Name of the article.
    pub article: String,
    /// Delivered quantity.
    pub quantity: u32,
    /// Id of the delivery, such as the delivery note's number and line. It distinguishes two equal
    /// deliveries.
    pub delivery_id: String,
}

impl Row for DeliveryRow {
    type Data = StockReceived;
    const NOUN: &'static str = "deliveries";
    const COLUMNS_REQUIRED: &'static [&'static str] = &["article", "quantity", "delivery_id"];
    const COLUMNS_OPTIONAL: &'static [&'static str] = &[];

    fn data(&self, _now: Timestamp) -> Result<StockReceived, String> {
        if self.delivery_id.is_empty() {
            return Err("delivery_id is empty; it distinguishes two equal deliveries".to_owned());
        }
        Ok(StockReceived {
            article: self.article.clone(),
            quantity: self.quantity,
            delivery_id: self.delivery_id.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::row::event;

    fn row(delivery_id: &str) -> DeliveryRow {
        DeliveryRow {
            article: "article-001".to_owned(),
            quantity: 2,
            delivery_id: delivery_id.to_owned(),
        }
    }

    /// Another row is another event.
    #[test]
    fn the_same_row_is_the_same_event_at_any_time() {
        let id = |row: &DeliveryRow, source: &str, second: i64| {
            let now = Timestamp::from_second(second).expect("in range");
            event(row, source, now).expect("a good row").attributes.id
        };
        let first = id(&row("d-1"), "/shop/stock", 1);
        assert_eq!(id(&row("d-1"), "/shop/stock", 2), first);
        assert_ne!(id(&row("d-2"), "/shop/stock", 1), first);
        assert_ne!(id(&row("d-1"), "/shop/other", 1), first);
    }

    #[test]
    fn a_delivery_without_an_id_is_refused() {
        let error = event(&row(""), "/shop/stock", Timestamp::UNIX_EPOCH).expect_err("no id");
        assert!(error.contains("delivery_id"), "{error}");
    }
}

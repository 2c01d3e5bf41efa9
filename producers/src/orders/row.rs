//! An order as a row of a file.

use super::line::{self, Line, total_cents};
use crate::import::row::Row;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shop_schemas::{OrderLine, OrderPlaced};

/// An order as a row of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRow {
    /// Id of the order. It distinguishes two equal orders.
    pub order_id: String,
    /// Id of the customer.
    pub customer_id: String,
    /// The ordered lines.
    #[serde(deserialize_with = "line::deserialize")]
    pub lines: Vec<Line>,
    /// The total, checked if it is given. It follows from the lines and is therefore not part of
    /// the content.
    #[serde(default, skip_serializing)]
    pub total_cents: Option<u64>,
    /// The time of the order. Default: the time of the import.
    #[serde(default)]
    pub placed_at: Option<String>,
}

impl Row for OrderRow {
    type Data = OrderPlaced;
    const NOUN: &'static str = "orders";
    const COLUMNS_REQUIRED: &'static [&'static str] = &["order_id", "customer_id", "lines"];
    const COLUMNS_OPTIONAL: &'static [&'static str] = &["total_cents", "placed_at"];

    fn data(&self, now: Timestamp) -> Result<OrderPlaced, String> {
        if self.order_id.is_empty() {
            return Err("order_id is empty; it distinguishes two equal orders".to_owned());
        }
        let lines: Vec<OrderLine> = self.lines.iter().cloned().map(OrderLine::from).collect();
        let total_cents = total_cents(&lines).ok_or("the total is too large")?;
        if self.total_cents.is_some_and(|given| given != total_cents) {
            return Err(format!(
                "total_cents is not the sum of the lines, which is {total_cents}"
            ));
        }
        let placed_at = match &self.placed_at {
            Some(text) => text
                .parse::<Timestamp>()
                .map_err(|_| "placed_at is not an RFC 3339 time such as 2026-11-21T08:00:00Z")?,
            None => now,
        };
        Ok(OrderPlaced {
            order_id: self.order_id.clone(),
            customer_id: self.customer_id.clone(),
            lines,
            total_cents,
            placed_at: placed_at.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::format::Parser;
    use crate::import::row::event;

    fn csv(line: &str) -> Result<OrderPlaced, String> {
        let mut parser =
            Parser::with_header::<OrderRow>(b"order_id,customer_id,lines,placed_at", b',')
                .expect("a header");
        let row: OrderRow = parser
            .row(line.as_bytes())
            .map_err(|error| error.to_string())?;
        row.data(Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_csv_row_holds_a_whole_order() {
        let order =
            csv("o-1,c-1,article-001:2:1999 article-002:1:500,2026-11-21T08:00:00Z").expect("good");
        assert_eq!(order.total_cents, 4498);
        assert_eq!(order.lines.len(), 2);
        assert_eq!(order.placed_at, "2026-11-21T08:00:00Z");
        let order = csv("o-1,c-1,article-001:2:1999,").expect("good");
        assert_eq!(order.placed_at, "1970-01-01T00:00:00Z");
    }

    #[test]
    fn an_invalid_row_gives_the_reason() {
        let check = |line: &str, expected: &str| {
            let error = csv(line).expect_err(line);
            assert!(error.contains(expected), "{line}: {error}");
        };
        check(",c-1,article-001:2:1999,", "order_id is empty");
        check("o-1,c-1,article-001:0:1999,", "the quantity is 0");
        check("o-1,c-1,article-001,", "ARTICLE:QUANTITY:PRICE_CENTS");
        check("o-1,c-1,article-001:2:1999,yesterday", "RFC 3339");
        check("o-1,c-1,7,", "invalid type, expected a list of lines");
    }

    /// With its total or without.
    #[test]
    fn csv_and_json_of_one_order_give_the_same_event() {
        let id = |parser: &mut Parser, line: &str| {
            let row: OrderRow = parser.row(line.as_bytes()).expect("a row");
            event(&row, "/shop/orders", Timestamp::now())
                .expect("an order")
                .attributes
                .id
        };
        let mut csv =
            Parser::with_header::<OrderRow>(b"order_id,customer_id,lines", b',').expect("a header");
        let first = id(&mut csv, "o-1,c-1,article-001:2:1999");
        let json = r#"{"order_id":"o-1","customer_id":"c-1","lines":[{"article":"article-001","quantity":2,"price_cents":1999}]}"#;
        assert_eq!(id(&mut Parser::Jsonl, json), first);
        let with_total = json.replace("]}", r#"],"total_cents":3998}"#);
        assert_eq!(id(&mut Parser::Jsonl, &with_total), first);
        assert_ne!(id(&mut csv, "o-2,c-1,article-001:2:1999"), first);
    }

    #[test]
    fn a_total_that_is_not_the_sum_is_refused() {
        let json = r#"{"order_id":"o-1","customer_id":"c-1","lines":"article-001:2:1999","total_cents":1}"#;
        let row: OrderRow = Parser::Jsonl.row(json.as_bytes()).expect("a row");
        let error = row.data(Timestamp::UNIX_EPOCH).expect_err("a wrong total");
        assert!(error.contains("3998"), "{error}");
    }
}

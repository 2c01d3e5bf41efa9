//! An order's line as text: `ARTICLE:QUANTITY:PRICE_CENTS`.

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use shop_schemas::OrderLine;
use std::str::FromStr;

/// A validated line: an article, a quantity of at least 1, and a price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    article: String,
    quantity: u32,
    price_cents: u64,
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write it as ARTICLE:QUANTITY:PRICE_CENTS, for example article-001:2:1999";
        let mut parts = text.rsplitn(3, ':');
        let (Some(price), Some(quantity), Some(article)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(form.to_owned());
        };
        let quantity = quantity
            .parse()
            .map_err(|_| format!("the quantity is not a whole number; {form}"))?;
        let price_cents = price
            .parse()
            .map_err(|_| format!("the price is not a whole number of cents; {form}"))?;
        Self::new(article.to_owned(), quantity, price_cents)
    }
}

impl Line {
    fn new(article: String, quantity: u32, price_cents: u64) -> Result<Self, String> {
        if article.is_empty() {
            return Err("the article is empty".to_owned());
        }
        if quantity == 0 {
            return Err("the quantity is 0; order at least one".to_owned());
        }
        Ok(Self {
            article,
            quantity,
            price_cents,
        })
    }
}

impl From<Line> for OrderLine {
    fn from(line: Line) -> Self {
        Self {
            article: line.article,
            quantity: line.quantity,
            price_cents: line.price_cents,
        }
    }
}

/// The total of an order. `None` if it overflows.
pub fn total_cents(lines: &[OrderLine]) -> Option<u64> {
    lines.iter().try_fold(0_u64, |total, line| {
        total.checked_add(line.price_cents.checked_mul(u64::from(line.quantity))?)
    })
}

/// Deserializes lines from one text, separated by blanks, line breaks or semicolons, or from a list
/// of objects.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Line>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        article: String,
        quantity: u32,
        price_cents: u64,
    }

    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Vec<Line>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a list of lines, or text such as article-001:2:1999")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<Line>, E> {
            text.split(|c: char| c.is_whitespace() || c == ';')
                .filter(|part| !part.is_empty())
                .map(|part| part.parse().map_err(E::custom))
                .collect()
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut sequence: A,
        ) -> Result<Vec<Line>, A::Error> {
            let mut lines = Vec::new();
            while let Some(line) = sequence.next_element::<Fields>()? {
                lines.push(
                    Line::new(line.article, line.quantity, line.price_cents)
                        .map_err(A::Error::custom)?,
                );
            }
            Ok(lines)
        }
    }
    deserializer.deserialize_any(Visitor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_an_article_a_quantity_and_a_price() {
        let check = |text: &str, expected: Option<(&str, u32, u64)>| {
            let found = text.parse::<Line>().ok();
            let found = found
                .as_ref()
                .map(|line| (line.article.as_str(), line.quantity, line.price_cents));
            assert_eq!(found, expected, "{text}");
        };
        check("article-001:2:1999", Some(("article-001", 2, 1999)));
        check("group:article-001:2:0", Some(("group:article-001", 2, 0)));
        check("article-001:0:1999", None);
        check("article-001:2", None);
        check(":2:1999", None);
        check("article-001:two:1999", None);
        check("article-001:2:19.99", None);
    }

    #[test]
    fn a_total_that_cannot_be_counted_is_none() {
        let line = |quantity, price_cents| OrderLine {
            article: "a".to_owned(),
            quantity,
            price_cents,
        };
        assert_eq!(total_cents(&[line(2, 10), line(3, 100)]), Some(320));
        assert_eq!(total_cents(&[line(2, u64::MAX)]), None);
        assert_eq!(total_cents(&[line(1, u64::MAX), line(1, 1)]), None);
    }
}

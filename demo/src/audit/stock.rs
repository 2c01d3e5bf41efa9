//! Checks the shop's stock. The units that the topics report as received, reserved and released
//! must equal the moves of inventory, and the sum of the moves must equal its levels.

use std::collections::BTreeMap;

/// Moved units of one article.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) received: i64,
    pub(crate) reserved: i64,
    pub(crate) released: i64,
}

impl Moved {
    fn available(self) -> i64 {
        self.received - self.reserved + self.released
    }
}

/// Inventory's store, by article.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Available units, by the service's level.
    pub(crate) available: BTreeMap<String, i64>,
    /// Sum of its moves.
    pub(crate) booked: BTreeMap<String, Moved>,
}

/// The articles whose level differs from the sum of the moves, or whose moves differ from the
/// topics (`announced`; `None` if the log is incomplete).
pub(crate) fn unbalanced(
    books: &Books,
    announced: Option<&BTreeMap<String, Moved>>,
) -> Vec<String> {
    let announced_here = announced.into_iter().flat_map(BTreeMap::keys);
    let mut articles: Vec<&String> = books
        .available
        .keys()
        .chain(books.booked.keys())
        .chain(announced_here)
        .collect();
    articles.sort();
    articles.dedup();
    let mut found = Vec::new();
    for article in articles {
        let available = books.available.get(article).copied().unwrap_or_default();
        let booked = books.booked.get(article).copied().unwrap_or_default();
        if available != booked.available() || available < 0 {
            found.push(format!(
                "{article}: {available} available, but the moves are {booked:?}"
            ));
        }
        let on_topics =
            announced.map(|announced| announced.get(article).copied().unwrap_or_default());
        if let Some(moved) = on_topics.filter(|moved| *moved != booked) {
            found.push(format!(
                "{article}: the moves are {booked:?}, but by the topics {moved:?}"
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(received: i64, reserved: i64, released: i64) -> BTreeMap<String, Moved> {
        let moved = Moved {
            received,
            reserved,
            released,
        };
        [("lamp".to_owned(), moved)].into()
    }

    fn books(available: i64, booked: BTreeMap<String, Moved>) -> Books {
        Books {
            available: [("lamp".to_owned(), available)].into(),
            booked,
        }
    }

    #[test]
    fn balanced_books_that_agree_with_the_topics_are_no_finding() {
        let books = books(7, moved(10, 5, 2));
        assert!(unbalanced(&books, Some(&moved(10, 5, 2))).is_empty());
        assert!(unbalanced(&books, None).is_empty());
    }

    #[test]
    fn a_level_that_fell_twice_is_named() {
        let found = unbalanced(&books(0, moved(10, 5, 0)), None);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("lamp: 0 available, but the moves are"),
            "{found:?}"
        );
    }

    #[test]
    fn a_delivery_booked_twice_is_found_despite_matching_levels() {
        let found = unbalanced(&books(20, moved(20, 0, 0)), Some(&moved(10, 0, 0)));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("but by the topics"), "{found:?}");
    }

    #[test]
    fn an_article_that_only_the_topics_know_is_named() {
        assert_eq!(
            unbalanced(&Books::default(), Some(&moved(10, 0, 0))).len(),
            1
        );
    }

    #[test]
    fn stock_below_zero_is_named_even_when_it_adds_up() {
        assert_eq!(unbalanced(&books(-1, moved(4, 5, 0)), None).len(), 1);
    }
}

//! The shop's articles. Independent of orders and stock.

/// Number of articles: `article-000` to `article-049`.
pub const ARTICLE_COUNT: u32 = 50;

/// Number of the only article whose price exceeds the amount that the shop's payments authorize for
/// an order.
pub const LUXURY_NUMBER: u32 = ARTICLE_COUNT - 1;

/// An article of the shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Article {
    /// Name, such as `article-000`.
    pub name: String,
    /// Price in cents.
    pub price_cents: u64,
}

/// The article with this number. Numbers from [`ARTICLE_COUNT`] on start again from the first.
pub fn article(number: u32) -> Article {
    let number = number % ARTICLE_COUNT;
    let price_cents = if number == LUXURY_NUMBER {
        600_000
    } else {
        500 + 370 * u64::from(number)
    };
    Article {
        name: format!("article-{number:03}"),
        price_cents,
    }
}

/// Every article, in the order of its number.
pub fn articles() -> impl Iterator<Item = Article> {
    (0..ARTICLE_COUNT).map(article)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_articles_are_numbered_and_the_last_is_a_luxury() {
        let all: Vec<_> = articles().collect();
        assert_eq!(all.len(), 50);
        assert_eq!(all[0].name, "article-000");
        assert_eq!(all[49].name, "article-049");
        let luxuries = all.iter().filter(|article| article.price_cents > 100_000);
        assert_eq!(luxuries.count(), 1);
    }
}

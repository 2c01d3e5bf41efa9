//! Suggests existing names for a name that does not exist. Pure.

/// Maximum number of suggestions.
pub const OFFERED_MAX: usize = 3;

/// Minimum similarity of a suggestion. 1 means equal.
const SIMILARITY_MIN: f64 = 0.75;

/// The names most similar to `name`, the most similar first, at most [`OFFERED_MAX`]. Compares
/// without regard to case, by the normalised Damerau-Levenshtein distance. Empty if none is similar
/// enough to be a mistyped form of it.
///
/// ```
/// use evenkeel_ops::names::similar_names::nearest;
///
/// let existing = ["payments".to_owned(), "shipping".to_owned()];
/// assert_eq!(nearest("paymets", &existing), ["payments"]);
/// ```
pub fn nearest<'a>(name: &str, existing: &'a [String]) -> Vec<&'a str> {
    let lower = name.to_lowercase();
    let mut similar: Vec<(f64, &str)> = existing
        .iter()
        .map(|other| {
            let similarity = strsim::normalized_damerau_levenshtein(&lower, &other.to_lowercase());
            (similarity, other.as_str())
        })
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .collect();
    similar.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(other.1)));
    similar
        .into_iter()
        .take(OFFERED_MAX)
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_name_is_not() {
        let existing = [
            "shop.orders",
            "shop.payments",
            "dlq.payments.shop.orders",
            "stock",
        ];
        let existing = existing.map(str::to_owned);
        let check = |name: &str, expected: &[&str]| {
            assert_eq!(nearest(name, &existing), expected, "{name}");
        };
        check("shop.order", &["shop.orders"]);
        check("Shop.Orders", &["shop.orders"]);
        check("shop.oredrs", &["shop.orders"]);
        check("shop_payments", &["shop.payments"]);
        check("dlq.payments.shop.order", &["dlq.payments.shop.orders"]);
        check("parcels", &[]);
    }
}

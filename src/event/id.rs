//! Event ids.
//!
//! Owns how ids are made, fresh or derived. Must not know what they identify.

use uuid::Uuid;

/// A fresh, time-ordered id (UUIDv7).
pub fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// The id of the `ordinal`-th event that `handler` publishes while it handles the event `(source, id)`.
///
/// The same inputs always give the same id (UUIDv5), in every process and every version of this library, so a redelivery
/// publishes the same ids and the next inbox suppresses them.
pub fn derived_id(source: &str, id: &str, handler: &str, ordinal: u32) -> String {
    // Lengths keep ("ab", "c") and ("a", "bc") apart.
    let name = [source, id, handler, &ordinal.to_string()]
        .map(|part| format!("{}:{part}", part.len()))
        .concat();
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn fresh_ids_are_version_7_and_sort_by_age() {
        let ids: Vec<_> = (0..100).map(|_| new_id()).collect();
        assert!(ids.is_sorted());
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 100);
        for id in ids {
            let version = Uuid::parse_str(&id).expect("a UUID").get_version_num();
            assert_eq!(version, 7);
        }
    }

    #[test]
    fn a_derived_id_never_changes() {
        let id = derived_id("/shop/orders", "o-1", "payments", 0);
        assert_eq!(id, "74c28019-c565-57b6-8bba-98104b5a5dda");
    }

    #[test]
    fn derived_ids_differ_in_every_part() {
        let ids = BTreeSet::from([
            derived_id("s", "i", "h", 0),
            derived_id("x", "i", "h", 0),
            derived_id("s", "x", "h", 0),
            derived_id("s", "i", "x", 0),
            derived_id("s", "i", "h", 1),
            derived_id("si", "", "h", 0),
            derived_id("", "si", "h", 0),
            derived_id("s", "ih", "", 0),
        ]);
        assert_eq!(ids.len(), 8);
    }
}

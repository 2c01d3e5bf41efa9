//! Event ids.
//!
//! Owns the creation of ids, random or derived. Does not know what they identify.

use std::fmt::Write as _;
use uuid::Uuid;

/// Creates a new, time-ordered id (UUIDv7). Ids of one process sort by the time of their creation,
/// which keeps indexes of inboxes and outboxes compact.
pub fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// The id of the `ordinal`-th event that `handler` publishes while it handles the event `(source,
/// id)`.
///
/// The same arguments always result in the same id (UUIDv5), in every process and every version of
/// this library. So a redelivery publishes the same ids, and the next inbox suppresses the
/// duplicates. Events that a handler publishes through its context have such ids already. Use this
/// function for events that it publishes in another way.
///
/// ```
/// use evenkeel::event::derived_id;
///
/// let first = derived_id("/shop/orders", "o-1", "payments", 0);
/// assert_eq!(first, derived_id("/shop/orders", "o-1", "payments", 0));
/// assert_ne!(first, derived_id("/shop/orders", "o-1", "payments", 1));
/// ```
pub fn derived_id(source: &str, id: &str, handler: &str, ordinal: u32) -> String {
    of_parts([source, id, handler, &ordinal.to_string()])
}

/// The id of the event of type `ty` that a handler of a group publishes as the `ordinal`-th for the
/// event (`source`, `id`): the same in every redelivery, and another one in another group, by
/// another handler, and for another type.
pub(crate) fn published_id(
    (group, handler): (&str, &str),
    (source, id): (&str, &str),
    ty: &str,
    ordinal: usize,
) -> String {
    of_parts([group, handler, source, id, ty, &ordinal.to_string()])
}

fn of_parts<const N: usize>(parts: [&str; N]) -> String {
    /// Room for the length of a part, which few names exceed.
    const LENGTH_ROOM: usize = 4;
    let room = parts.iter().map(|part| LENGTH_ROOM + part.len()).sum();
    let mut name = String::with_capacity(room);
    for part in parts {
        // The lengths keep ("ab", "c") and ("a", "bc") apart. Writing to a string cannot fail.
        let _ = write!(name, "{}:{part}", part.len());
    }
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
    fn published_ids_differ_in_every_part_and_never_change() {
        let id = |group, handler, source, id, ty, ordinal| {
            published_id((group, handler), (source, id), ty, ordinal)
        };
        let first = id("g", "h", "s", "i", "t", 0);
        assert_eq!(first, "f54eeb76-ec69-55c5-94cc-8a4513d52134");
        let ids = BTreeSet::from([
            first,
            id("x", "h", "s", "i", "t", 0),
            id("g", "x", "s", "i", "t", 0),
            id("g", "h", "x", "i", "t", 0),
            id("g", "h", "s", "x", "t", 0),
            id("g", "h", "s", "i", "x", 0),
            id("g", "h", "s", "i", "t", 1),
            id("gh", "", "s", "i", "t", 0),
        ]);
        assert_eq!(ids.len(), 8);
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

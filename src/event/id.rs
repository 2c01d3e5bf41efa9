//! Event ids.

use uuid::Uuid;

/// A fresh, time-ordered id (UUIDv7).
pub fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// The id of the `ordinal`-th event that `handler` publishes while it handles the event `(source, id)`.
///
/// The same inputs always give the same id (UUIDv5), so a redelivery publishes the same ids and the next inbox
/// suppresses them.
pub fn derived_id(source: &str, id: &str, handler: &str, ordinal: u32) -> String {
    let name = [source, id, handler, &ordinal.to_string()]
        .map(|part| format!("{}:{part}", part.len()))
        .concat();
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
}

//! Shared code of the services' unit tests: a store in memory, and permutations of events.

use sqlx::{Connection, SqliteConnection};

/// An empty store in memory with a service's tables.
pub(crate) async fn store(schema: &'static str) -> SqliteConnection {
    let mut store = SqliteConnection::connect("sqlite::memory:")
        .await
        .expect("SQLite in memory needs nothing");
    sqlx::raw_sql(schema)
        .execute(&mut store)
        .await
        .expect("the service's tables are valid SQL");
    store
}

/// Every permutation of `items`.
pub(crate) fn permutations<T: Copy>(items: &[T]) -> Vec<Vec<T>> {
    let [first, rest @ ..] = items else {
        return vec![Vec::new()];
    };
    let mut orders = Vec::new();
    for shorter in permutations(rest) {
        for place in 0..=shorter.len() {
            let mut order = shorter.clone();
            order.insert(place, *first);
            orders.push(order);
        }
    }
    orders
}

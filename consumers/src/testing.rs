//! Shared code of the services' unit tests: a store in memory, effects, and permutations of events.

use crate::effect_journal::{self, Effect};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

/// An empty store in memory with the journal and a service's tables.
pub(crate) async fn store(schema: &str) -> SqliteConnection {
    let mut store = SqliteConnection::connect("sqlite::memory:")
        .await
        .expect("SQLite in memory needs nothing");
    let schema = [effect_journal::SCHEMA, schema].concat();
    sqlx::raw_sql(AssertSqlSafe(schema))
        .execute(&mut store)
        .await
        .expect("the service's tables are valid SQL");
    store
}

/// The effect of an event with this id.
pub(crate) fn effect(id: &str) -> Effect<'_> {
    Effect {
        source: "/test",
        id,
        ty: "test.v1",
        topic: "tests",
        partition: 3,
        offset: 17,
        key: Some(b"key"),
    }
}

/// The ids of the journal's rows, in their order.
pub(crate) async fn effects(store: &mut SqliteConnection) -> Vec<String> {
    sqlx::query_scalar("SELECT id FROM effects ORDER BY seq")
        .fetch_all(store)
        .await
        .expect("the store has a journal")
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

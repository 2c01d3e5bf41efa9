//! Adds facts to orders, and keeps the states that follow. Independent of Kafka.
//!
//! The facts of a batch take two calls to the store, whatever their number: one reads the known
//! facts of their orders, one writes journal, facts and states.

use super::state::{Fact, State};
use crate::effect_journal::values::{padded, placeholders};
use crate::effect_journal::{Effect, journaled};
use sqlx::{AssertSqlSafe, SqliteConnection};
use std::collections::BTreeMap;

/// Reads the facts of orders.
const KNOWN: &str = "SELECT order_id, fact FROM facts WHERE order_id IN (VALUES /*orders*/)";

/// Adds facts and sets states.
const WRITE: &str = "
    INSERT INTO facts (order_id, fact, detail, at)
        SELECT * FROM (VALUES /*facts*/) WHERE column1 IS NOT NULL
        ON CONFLICT DO NOTHING;
    INSERT INTO orders (order_id, state)
        SELECT * FROM (VALUES /*states*/) WHERE column1 IS NOT NULL
        ON CONFLICT (order_id) DO UPDATE SET state = excluded.state";

/// A fact that an event contained about an order.
#[derive(Debug)]
pub struct NewFact<'a> {
    /// The effect of handling the event.
    pub effect: Effect<'a>,
    /// Id of the order.
    pub order_id: &'a str,
    /// The fact.
    pub fact: Fact,
    /// Details of the fact.
    pub detail: String,
    /// Time of the event.
    pub at: jiff::Timestamp,
}

/// The facts of an order, or the reason why one of them cannot be read.
type Facts = Result<Vec<Fact>, String>;

/// Adds facts to their orders, several of one order too. A known fact changes nothing. Returns, for
/// each new fact, the state of its order with all of them.
///
/// Instead of a state, the result is a reason if the store contains a fact of the order that this
/// version does not know. Nothing is written for such a fact then.
///
/// # Errors
/// If the store fails.
pub async fn learn(
    store: &mut SqliteConnection,
    facts: &[NewFact<'_>],
) -> Result<Vec<Result<State, String>>, sqlx::Error> {
    let mut orders: BTreeMap<&str, Facts> = facts
        .iter()
        .map(|new| (new.order_id, Ok(Vec::new())))
        .collect();
    add_known(store, &mut orders).await?;
    for new in facts {
        if let Some(Ok(known)) = orders.get_mut(new.order_id) {
            known.push(new.fact);
        }
    }
    let states: BTreeMap<&str, Result<State, String>> = orders
        .into_iter()
        .map(|(order_id, facts)| (order_id, facts.map(|facts| State::of(&facts))))
        .collect();
    write(store, facts, &states).await?;
    // Every order of a new fact is a key.
    let of_order = |new: &NewFact<'_>| states[new.order_id].clone();
    Ok(facts.iter().map(of_order).collect())
}

/// Adds the facts that the store contains.
async fn add_known(
    store: &mut SqliteConnection,
    orders: &mut BTreeMap<&str, Facts>,
) -> Result<(), sqlx::Error> {
    let order_ids: Vec<&str> = orders.keys().copied().collect();
    let sql = KNOWN.replace("/*orders*/", &placeholders(1, order_ids.len()));
    let mut query = sqlx::query_as(AssertSqlSafe(sql));
    for order_id in padded(&order_ids) {
        query = query.bind(order_id.copied());
    }
    let known: Vec<(String, String)> = query.fetch_all(store).await?;
    for (order_id, fact) in known {
        if let Some(facts) = orders.get_mut(order_id.as_str()) {
            match (fact.parse::<Fact>(), facts) {
                (Ok(fact), Ok(facts)) => facts.push(fact),
                (Err(reason), facts) => *facts = Err(reason),
                (Ok(_), Err(_)) => {}
            }
        }
    }
    Ok(())
}

/// Writes effects, facts and states of the orders that have a state. Every order of a new fact is a
/// key of `states`.
async fn write(
    store: &mut SqliteConnection,
    facts: &[NewFact<'_>],
    states: &BTreeMap<&str, Result<State, String>>,
) -> Result<(), sqlx::Error> {
    let facts: Vec<&NewFact<'_>> = facts
        .iter()
        .filter(|new| states[new.order_id].is_ok())
        .collect();
    if facts.is_empty() {
        return Ok(());
    }
    let states: Vec<(&str, State)> = states
        .iter()
        .filter_map(|(order_id, state)| Some((*order_id, *state.as_ref().ok()?)))
        .collect();
    let effects: Vec<Effect<'_>> = facts.iter().map(|new| new.effect).collect();
    let sql = WRITE
        .replace("/*facts*/", &placeholders(4, facts.len()))
        .replace("/*states*/", &placeholders(2, states.len()));
    let mut query = journaled(&effects, &sql);
    for new in padded(&facts) {
        query = query
            .bind(new.map(|new| new.order_id))
            .bind(new.map(|new| new.fact.as_str()))
            .bind(new.map(|new| new.detail.as_str()))
            .bind(new.map(|new| format!("{:.6}", new.at)));
    }
    for state in padded(&states) {
        query = query
            .bind(state.map(|(order_id, _)| *order_id))
            .bind(state.map(|(_, state)| state.as_str()));
    }
    query.execute(store).await?;
    Ok(())
}

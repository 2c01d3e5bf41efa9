//! The contract of the inbox in PostgreSQL, and what the tests share.

mod opening;
mod outbox;
mod purge;
mod shared_rows;
mod silent_server;
mod transactions;
mod turns;

use super::answers::ANSWER_LIMIT;
use super::*;
use crate::inbox::conformance::{self, Effects, Forgetting};
use crate::inbox::{BoxFuture, Claim, Claimed, Inbox, InboxError, InboxKey, completions};
use crate::outbox::PostgresOutbox;
use crate::postgres::Migration;
use crate::testing::{TestPostgres, postgres};
use sqlx::Connection;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const EFFECTS: &str = "CREATE TABLE IF NOT EXISTS effects (name text NOT NULL)";

/// An empty database, if there is a PostgreSQL.
async fn database() -> Option<String> {
    let postgres: &TestPostgres = postgres().await?;
    Some(
        postgres
            .database()
            .await
            .expect("the server creates a database"),
    )
}

async fn open(url: &str) -> PostgresInbox {
    PostgresInbox::open(url, EFFECTS)
        .await
        .expect("the store opens")
}

pub(crate) fn key(id: &str) -> InboxKey {
    InboxKey::new("group", "handler", "/source", id)
}

pub(crate) async fn fresh(inbox: &PostgresInbox, id: &str) -> Box<dyn Claim> {
    match inbox
        .claim(&key(id))
        .await
        .expect("the store answers the claim")
    {
        Claimed::Fresh(claim) => claim,
        Claimed::Duplicate { .. } => panic!("{id} is a duplicate"),
    }
}

async fn is_duplicate(inbox: &PostgresInbox, id: &str) -> bool {
    let claimed = inbox
        .claim(&key(id))
        .await
        .expect("the store answers the claim");
    matches!(claimed, Claimed::Duplicate { .. })
}

pub(crate) fn transaction(claim: &mut Box<dyn Claim>) -> PostgresTx {
    let transaction = claim.transaction().expect("the transaction");
    *transaction.downcast().expect("of PostgreSQL")
}

pub(crate) async fn write(transaction: &mut PostgresTx, name: &str) -> Result<(), sqlx::Error> {
    let insert = sqlx::query("INSERT INTO effects VALUES ($1)").bind(name);
    insert.execute(&mut **transaction).await.map(drop)
}

async fn count(inbox: &PostgresInbox, name: &str) -> u64 {
    // In a transaction and not kept prepared, as a pooler requires.
    let mut transaction = inbox.pool().begin().await.expect("a transaction begins");
    let count = sqlx::query_scalar("SELECT count(*) FROM effects WHERE name = $1");
    let count = count.persistent(false).bind(name);
    let count: i64 = count
        .fetch_one(&mut *transaction)
        .await
        .expect("the query returns a row");
    count as u64
}

async fn complete(claim: Box<dyn Claim>) -> Result<(), InboxError> {
    claim.complete(Vec::new()).await.map(drop)
}

pub(crate) struct Table(pub(crate) PostgresInbox);

impl Effects for Table {
    fn write<'a>(&'a self, transaction: Box<dyn Any + Send>, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut transaction: PostgresTx = *transaction.downcast().expect("of PostgreSQL");
            write(&mut transaction, name).await.expect("written");
        })
    }

    fn count<'a>(&'a self, name: &'a str) -> BoxFuture<'a, u64> {
        Box::pin(count(&self.0, name))
    }

    fn has_outbox(&self) -> bool {
        self.0.store().outbox.get().is_some()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_inbox_keeps_the_contract() {
    let Some(url) = database().await else { return };
    for connections in [1, 4] {
        let settings = PostgresSettings::new(EFFECTS).with_connections(connections);
        let inbox = PostgresInbox::open_with(&url, &settings).await.unwrap();
        let effects = Arc::new(Table(inbox.clone()));
        conformance::check(Arc::new(inbox), Some(effects)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_with_the_same_events_have_each_effect_once() {
    let Some(url) = database().await else { return };
    let mut racers = Vec::new();
    for _ in 0..3 {
        let inbox = open(&url).await;
        racers.extend((0..16).map(|offset| {
            let inbox = inbox.clone();
            tokio::spawn(async move {
                for id in 0..50 {
                    // Each task starts elsewhere, so that they meet in any order.
                    let id = ((id + offset * 3) % 50).to_string();
                    let claimed = loop {
                        match inbox.claim(&key(&id)).await {
                            Ok(claimed) => break claimed,
                            Err(InboxError::Unavailable(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    };
                    if let Claimed::Fresh(mut claim) = claimed {
                        let mut transaction = transaction(&mut claim);
                        write(&mut transaction, &id).await.unwrap();
                        drop(transaction);
                        complete(claim).await.unwrap();
                    }
                }
            })
        }));
    }
    for racer in racers {
        racer.await.unwrap();
    }
    let inbox = open(&url).await;
    for id in 0..50 {
        assert_eq!(count(&inbox, &id.to_string()).await, 1, "event {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_inbox_reports_completions() {
    let Some(url) = database().await else {
        return;
    };
    let inbox = open(&url).await;
    completions::conformance::check("group", &inbox, &inbox).await;
}

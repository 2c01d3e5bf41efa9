//! The orderboard's instances share their answers in Redis, and none depends on it.

use crate::process::{Daemon, WITHIN};
use evenkeel::event::Event;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::{ChildProcess, KafkaKind, TestKafka, TestRedis, eventually, required};
use shop_schemas::{OrderLine, OrderPlaced, PaymentAuthorized, topics};
use std::path::Path;

const ORDERBOARD: &str = env!("CARGO_BIN_EXE_orderboard");

/// The output of `orderboard`, and whether it succeeded.
async fn board(arguments: &[&str], store: &Path, redis: &TestRedis) -> (bool, String) {
    let mut command = ChildProcess::command(ORDERBOARD);
    command
        .args(arguments)
        .args(["--cache", redis.url(), "--store"])
        .arg(store);
    let finished = ChildProcess::run(command, "", WITHIN).await;
    let said = [finished.stdout, finished.stderr].concat();
    (finished.code == Some(0), said)
}

/// Waits until an instance prints `expected`.
async fn says(arguments: &[&str], store: &Path, redis: &TestRedis, expected: &str) {
    eventually(expected, WITHIN, || async {
        let (answered, said) = board(arguments, store, redis).await;
        (answered && said.contains(expected)).then_some(())
    })
    .await;
}

fn placed(order_id: &str) -> OrderPlaced {
    OrderPlaced {
        order_id: order_id.to_owned(),
        customer_id: "c-1".to_owned(),
        lines: vec![OrderLine {
            article: "tea".to_owned(),
            quantity: 1,
            price_cents: 100,
        }],
        total_cents: 100,
        placed_at: "2026-01-01T00:00:00Z".to_owned(),
    }
}

fn paid(order_id: &str) -> PaymentAuthorized {
    PaymentAuthorized {
        order_id: order_id.to_owned(),
        amount_cents: 100,
        authorization: "a-1".to_owned(),
    }
}

/// The cache goes down while instances run.
#[tokio::test(flavor = "multi_thread")]
async fn any_instance_answers_from_the_cache_or_its_own_store() {
    // The shop's names are fixed, so the test uses a cluster of its own.
    let kafka = required(TestKafka::start(KafkaKind::Java).await);
    let (Some(kafka), Some(redis)) = (kafka, required(TestRedis::start().await)) else {
        return;
    };
    for topic in topics() {
        kafka.create_topic(&topic.name, 2).await.unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, elsewhere) = (
        dir.path().join("orderboard.db"),
        dir.path().join("elsewhere.db"),
    );
    let start = || {
        Daemon::start(
            ORDERBOARD,
            kafka.brokers(),
            &store,
            &["--cache", redis.url()],
        )
    };
    let daemons = [start(), start()];
    let publisher = Publisher::new(&kafka.config(), PublisherSettings::new("/shop/test")).unwrap();
    let ids: Vec<String> = (0..20).map(|n| format!("o-{n}")).collect();
    for id in &ids {
        publisher
            .publish(&Event::new("/shop/test", placed(id)))
            .await
            .unwrap();
    }
    // Without a store, so that only the cache can answer.
    for id in &ids {
        says(
            &["show", id],
            &elsewhere,
            &redis,
            &format!("{id} is placed"),
        )
        .await;
    }
    publisher
        .publish(&Event::new("/shop/test", paid("o-7")))
        .await
        .unwrap();
    says(&["show", "o-7"], &elsewhere, &redis, "o-7 is paid").await;
    says(&["show", "o-7"], &elsewhere, &redis, "authorization a-1").await;
    says(&["list", "--state", "paid"], &elsewhere, &redis, "o-7").await;
    let (_, listed) = board(&["list", "--output", "jsonl"], &elsewhere, &redis).await;
    assert_eq!(listed.lines().count(), ids.len(), "{listed}");
    let (answered, said) = board(&["show", "o-99"], &store, &redis).await;
    assert!(
        !answered && said.contains("the order o-99 is unknown"),
        "{said}"
    );

    redis.kill().await.unwrap();
    publisher
        .publish(&Event::new("/shop/test", paid("o-8")))
        .await
        .unwrap();
    // Events are handled as before, and instances with a store answer.
    says(&["show", "o-8"], &store, &redis, "o-8 is paid").await;
    says(
        &["show", "o-8"],
        &store,
        &redis,
        "the cache does not answer",
    )
    .await;
    let (answered, said) = board(&["show", "o-8"], &elsewhere, &redis).await;
    assert!(!answered && said.contains("there is no store"), "{said}");

    redis.start_again().await.unwrap();
    says(&["show", "o-8"], &elsewhere, &redis, "o-8 is paid").await;

    // The next daemon that starts fills an empty cache.
    let emptied = redis::Client::open(redis.url()).unwrap();
    let mut emptied = emptied.get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("FLUSHALL")
        .query_async(&mut emptied)
        .await
        .unwrap();
    let third = start();
    says(&["show", "o-8"], &elsewhere, &redis, "o-8 is paid").await;
    says(&["show", "o-19"], &elsewhere, &redis, "o-19 is placed").await;
    let daemons: Vec<Daemon> = daemons.into_iter().chain([third]).collect();
    daemons.iter().for_each(Daemon::stop);
    for daemon in daemons {
        daemon.ends_cleanly().await;
    }
}

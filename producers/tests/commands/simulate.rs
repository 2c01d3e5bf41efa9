//! Rate, journal and summary of a simulation.

use crate::shop::{PATIENCE, Shop, argument, orders};
use evenkeel::testing::{ChildProcess, eventually};
use serde_json::Value;
use std::collections::HashMap;
use std::future::ready;
use std::path::Path;

fn journal(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_locates_every_event_and_the_rate_is_kept() {
    let shop = Shop::open().await;
    let path = shop.path("journal.jsonl");
    let run = [
        "simulate", "--rate", "200", "--for", "2s", "--seed", "7", "--run-id", "run",
    ];
    let more = [
        "--cancel-share",
        "0.2",
        "--journal",
        argument(&path),
        "--output",
        "json",
    ];
    let simulated = shop.run(orders(), &[&run[..], &more].concat()).await;
    assert_eq!(simulated.code, Some(0), "{simulated}");
    let summary = simulated.json();
    assert_eq!(summary["published"], 400);
    assert_eq!(summary["acknowledged"], 400);
    assert_eq!(
        (&summary["failed"], &summary["unknown"]),
        (&Value::from(0), &Value::from(0))
    );
    assert!(
        summary["elapsed_seconds"].as_f64() >= Some(1.9),
        "{simulated}"
    );

    let written: HashMap<_, _> = journal(&path)
        .into_iter()
        .map(|line| (line["event_id"].as_str().expect("an id").to_owned(), line))
        .collect();
    let events = shop.published("shop.orders").await;
    assert_eq!((written.len(), events.len()), (400, 400));
    let mut sequences: HashMap<&str, u64> = HashMap::new();
    for event in &events {
        let line = &written[&event.id];
        let sequence = sequences.entry(&event.key).or_default();
        assert_eq!(line["seq"], *sequence, "{event:?}");
        *sequence += 1;
        assert_eq!(
            (&line["outcome"], &line["topic"]),
            (&"acknowledged".into(), &"shop.orders".into())
        );
        assert_eq!(
            (&line["type"], &line["source"]),
            (&event.ty.as_str().into(), &event.source.as_str().into())
        );
        assert_eq!(
            (&line["partition"], &line["offset"]),
            (&event.partition.into(), &event.offset.into())
        );
        assert_eq!(line["key"], event.key);
    }
    assert!(
        sequences.values().any(|events| *events == 2),
        "nothing was cancelled"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_repeats_with_its_seed_and_name() {
    let shop = Shop::open().await;
    let run = [
        "simulate", "--rate", "500", "--for", "1s", "--seed", "7", "--run-id", "run", "--quiet",
    ];
    for _ in 0..2 {
        let simulated = shop.run(orders(), &run).await;
        assert_eq!(simulated.code, Some(0), "{simulated}");
    }
    let mut seen: HashMap<String, (usize, Value)> = HashMap::new();
    for mut event in shop.published("shop.orders").await {
        event.data["placed_at"].take();
        let (count, data) = seen
            .entry(event.id)
            .or_insert_with(|| (0, event.data.clone()));
        *count += 1;
        assert_eq!(*data, event.data);
    }
    assert_eq!(seen.len(), 500);
    assert!(seen.values().all(|(count, _)| *count == 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_brokers_a_stop_meets_its_deadline_leaving_outcomes_unknown() {
    let mut shop = Shop::open().await;
    let path = shop.path("journal.jsonl");
    let child = without_brokers(&mut shop, &path, "1s").await;
    child.signal("INT");
    let simulated = child.finished(PATIENCE).await;
    assert_eq!(simulated.code, Some(130), "{simulated}");
    let unknown = journal(&path)
        .iter()
        .filter(|line| line["outcome"] == "unknown" && line["offset"].is_null())
        .count();
    assert!(unknown > 0, "{simulated}");
    assert_eq!(simulated.json()["unknown"], unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let mut shop = Shop::open().await;
    let path = shop.path("journal.jsonl");
    let mut child = without_brokers(&mut shop, &path, "1h").await;
    eventually("it ends", PATIENCE, || {
        child.signal("INT");
        ready((!child.is_running()).then_some(()))
    })
    .await;
    let ended = child.finished(PATIENCE).await.code(130);
    assert!(ended.stdout.is_empty(), "it took the time for a summary");
}

/// A simulation that has acknowledged events and then loses its brokers.
async fn without_brokers(shop: &mut Shop, path: &Path, drain_timeout: &str) -> ChildProcess {
    let run = [
        "simulate",
        "--rate",
        "500",
        "--for",
        "1h",
        "--journal",
        argument(path),
    ];
    let more = ["--drain-timeout", drain_timeout, "--output", "json"];
    let child = shop.start(orders(), &[&run[..], &more].concat());
    eventually("some events are acknowledged", PATIENCE, || {
        ready((journal(path).len() > 100).then_some(()))
    })
    .await;
    shop.lose_brokers();
    let mut acknowledged = 0;
    eventually("no more events are acknowledged", PATIENCE, || {
        let before = std::mem::replace(&mut acknowledged, journal(path).len());
        ready((before == acknowledged).then_some(()))
    })
    .await;
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn after_ctrl_c_every_sent_event_is_journaled_and_logged() {
    let shop = Shop::open().await;
    let path = shop.path("journal.jsonl");
    let run = [
        "simulate",
        "--rate",
        "500",
        "--for",
        "1h",
        "--journal",
        argument(&path),
        "--output",
        "json",
    ];
    let child = shop.start(orders(), &run);
    eventually("some events are acknowledged", PATIENCE, || {
        ready((journal(&path).len() > 100).then_some(()))
    })
    .await;
    child.signal("TERM");
    let simulated = child.finished(PATIENCE).await;
    assert_eq!(simulated.code, Some(143), "{simulated}");
    let written = journal(&path);
    assert!(written.iter().all(|line| line["outcome"] == "acknowledged"));
    assert_eq!(simulated.json()["acknowledged"], written.len());
    assert_eq!(shop.published("shop.orders").await.len(), written.len());
}

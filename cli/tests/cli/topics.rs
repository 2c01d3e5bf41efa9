//! Topics on Apache Kafka: the mock cluster knows no admin requests.

use crate::support::tool;
use evenkeel::testing::{Finished, TestKafka, real_kafka, unique};
use serde_json::{Value, json};

async fn run_on(kafka: &TestKafka, args: &[&str]) -> Finished {
    tool::run_on(kafka, args, "").await
}

#[tokio::test]
async fn a_topic_is_created_listed_and_described() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    let topic = unique("cli-topics");
    let create = [
        "topics",
        "create",
        &topic,
        "-p",
        "3",
        "-c",
        "retention.ms=60000",
    ];
    run_on(kafka, &create).await.code(0);
    let again = run_on(kafka, &create).await.code(1);
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
    let mut tolerant = create.to_vec();
    tolerant.push("--if-not-exists");
    run_on(kafka, &tolerant).await.code(0);

    let listed = run_on(kafka, &["topics", "list", "-o", "jsonl"]).await;
    let expected = json!({"topic": topic, "partitions": 3});
    assert!(listed.code(0).rows().contains(&expected));

    let described = run_on(kafka, &["topics", "describe", &topic, "-o", "jsonl"]).await;
    let described = &described.code(0).rows()[0];
    assert_eq!(described["config"]["retention.ms"], "60000");
    assert_eq!(described["partitions"].as_array().map(Vec::len), Some(3));
    let unknown = run_on(kafka, &["topics", "describe", "no-such-topic"]).await;
    assert!(unknown.code(1).stderr.contains("no-such-topic"));
}

#[tokio::test]
async fn apply_shows_its_plan_first_and_acts_on_request() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    let topic = unique("cli-apply");
    let dir = tempfile::tempdir().expect("a temporary folder is created");
    let file = dir.path().join("topic.json");
    let declare = |partitions: i32, retention_ms: i64| {
        let declaration = json!({
            "name": topic, "partitions": partitions, "retention_ms": retention_ms, "key": "id",
            "producers": [], "consumers": [], "events": [],
        });
        std::fs::write(&file, declaration.to_string()).expect("the file is written");
    };
    let path = file.to_string_lossy();
    let dry = ["topics", "apply", "--file", &path, "-o", "jsonl"];
    let mut real = dry.to_vec();
    real.push("--execute");
    let step = |run: Finished| -> (Value, Value) {
        let row = run.rows().remove(0);
        (row["action"].clone(), row["done"].clone())
    };

    declare(2, 1_000_000);
    for _ in 0..2 {
        let planned = run_on(kafka, &dry).await.code(0);
        assert_eq!(step(planned), (json!("create"), json!(false)));
    }
    let done = run_on(kafka, &real).await.code(0);
    assert_eq!(step(done), (json!("create"), json!(true)));
    assert_eq!(
        step(run_on(kafka, &real).await.code(0)),
        (json!("keep"), json!(false))
    );

    declare(2, 2_000_000);
    assert_eq!(
        step(run_on(kafka, &real).await.code(0)),
        (json!("change"), json!(true))
    );
    assert_eq!(
        step(run_on(kafka, &dry).await.code(0)),
        (json!("keep"), json!(false))
    );

    declare(4, 2_000_000);
    assert_eq!(
        step(run_on(kafka, &real).await.code(3)),
        (json!("differs"), json!(false))
    );
    let described = run_on(kafka, &["topics", "describe", &topic, "-o", "jsonl"]).await;
    let partitions = &described.code(0).rows()[0]["partitions"];
    assert_eq!(partitions.as_array().map(Vec::len), Some(2));
}

//! Input is checked, failures are named by line, receipts are given.

use crate::support::tool::Cluster;
use serde_json::{Value, json};

const TYPE: &str = "shop.order-cancelled.v1";

#[tokio::test]
async fn a_line_becomes_an_event_with_receipt_key_and_attributes() {
    let cluster = Cluster::with_topic(3).await;
    let receipts = cluster
        .publish_orders(["o-1", "o-2"].map(str::to_owned))
        .await;
    let receipts = receipts.rows();
    assert_eq!(receipts.len(), 2);
    assert_eq!(
        (&receipts[0]["line"], &receipts[0]["key"]),
        (&json!(1), &json!("o-1"))
    );

    let records = cluster.records(&["--filter", "key=o-1"]).await;
    let [record] = records.as_slice() else {
        panic!("one record has that key: {records:?}");
    };
    for name in ["topic", "partition", "offset"] {
        assert_eq!(record[name], receipts[0][name], "{name}");
    }
    assert_eq!(record["ce"]["id"], receipts[0]["id"]);
    assert_eq!(record["ce"]["type"], TYPE);
    assert_eq!(record["ce"]["subject"], "o-1");
    assert_eq!(record["ce"]["datacontenttype"], "application/json");
    let payload: Value =
        serde_json::from_str(record["payload"].as_str().expect("it is text")).expect("it is JSON");
    assert_eq!(payload, json!({"order_id": "o-1", "reason": "test"}));
}

#[tokio::test]
async fn an_invalid_line_is_named_and_ends_the_run() {
    let cluster = Cluster::with_topic(1).await;
    let lines = "{\"order_id\":\"o-1\",\"reason\":\"r\"}\n\n{\"order_id\":7}\n{\"order_id\":\"o-3\",\"reason\":\"r\"}\n";
    let args = ["publish", TYPE, "--topic", &cluster.topic];
    let run = cluster.run(&args, lines).await.code(1);
    assert!(run.stderr.contains("line 3: "), "{}", run.stderr);
    assert!(
        run.stderr.contains("published 1, failed 1"),
        "{}",
        run.stderr
    );
    assert_eq!(cluster.records(&[]).await.len(), 1);
}

#[tokio::test]
async fn with_keep_going_all_valid_lines_are_published_in_order() {
    let cluster = Cluster::with_topic(1).await;
    let lines = "{\"order_id\":\"o-1\",\"reason\":\"r\"}\nnot json\n{\"order_id\":\"o-2\",\"reason\":\"r\"}\n{}\n{\"order_id\":\"o-3\",\"reason\":\"r\"}";
    let args = ["publish", TYPE, "--topic", &cluster.topic, "--keep-going"];
    let run = cluster.run(&args, lines).await.code(1);
    for text in ["line 2: not JSON", "line 4: ", "published 3, failed 2"] {
        assert!(run.stderr.contains(text), "{}", run.stderr);
    }
    let keys: Vec<Value> = cluster
        .records(&[])
        .await
        .into_iter()
        .map(|record| record["key"].clone())
        .collect();
    assert_eq!(keys, ["o-1", "o-2", "o-3"]);
}

#[tokio::test]
async fn a_full_event_keeps_its_id_and_may_be_republished() {
    let cluster = Cluster::with_topic(1).await;
    let event = json!({
        "specversion": "1.0", "type": TYPE, "source": "/elsewhere", "id": "e-1",
        "data": {"order_id": "o-1", "reason": "r"},
    });
    for mode in ["binary", "structured"] {
        let args = ["publish", "--topic", &cluster.topic, "--ce", mode];
        cluster.run(&args, &event.to_string()).await.code(0);
    }
    let records = cluster.records(&[]).await;
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!(
            (&record["ce"]["source"], &record["ce"]["id"]),
            (&json!("/elsewhere"), &json!("e-1"))
        );
        assert_eq!(record["key"], "o-1");
    }
}

#[tokio::test]
async fn fields_make_a_payload_and_any_field_the_key() {
    let cluster = Cluster::with_topic(1).await;
    let fields = ["-d", "order_id=17", "-d", "reason=late"];
    let mut args = vec!["publish", TYPE, "--topic", &cluster.topic, "-o", "jsonl"];
    args.extend(fields);
    let declared = cluster.run(&args, "").await.code(0).rows();
    assert_eq!(declared[0]["key"], "17");
    args.extend(["--key-field", "/reason"]);
    let pointed = cluster.run(&args, "").await.code(0).rows();
    assert_eq!(pointed[0]["key"], "late");
}

#[tokio::test]
async fn a_missing_topic_is_named_with_the_command_creating_it() {
    let cluster = Cluster::with_topic(1).await;
    let args = [
        "publish",
        TYPE,
        "--topic",
        "no-such-topic",
        "-d",
        "order_id=o-1",
        "-d",
        "reason=r",
    ];
    let run = cluster.run(&args, "").await.code(1);
    assert!(
        run.stderr.contains("evenkeel topics create no-such-topic"),
        "{}",
        run.stderr
    );
}

#[tokio::test]
async fn arguments_that_fit_no_line_are_a_usage_error() {
    let cluster = Cluster::with_topic(1).await;
    let check = async |args: &[&str], expected: &str| {
        let run = cluster.run(args, "{}\n").await.code(2);
        assert!(run.stderr.contains(expected), "{}", run.stderr);
    };
    check(&["publish", "no.such-type.v1"], "shop.order-placed.v1").await;
    check(
        &["publish", TYPE, "--key-field", "order_id"],
        "is not a JSON pointer",
    )
    .await;
    check(&["publish", TYPE, "--json", "{"], "not JSON").await;
}

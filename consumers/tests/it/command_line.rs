//! Error messages and exit codes of the binaries, and the output of `orderboard`.

use crate::interleavings::EFFECT;
use crate::process::WITHIN;
use evenkeel::testing::{ChildProcess, Finished};
use shop_consumers::effect_journal;
use shop_consumers::orderboard::{self, Telling};
use shop_schemas::{OrderCancelled, PaymentAuthorized};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use std::path::Path;

const PAYMENTS: &str = env!("CARGO_BIN_EXE_payments");
const INVENTORY: &str = env!("CARGO_BIN_EXE_inventory");
const ORDERBOARD: &str = env!("CARGO_BIN_EXE_orderboard");

async fn run(binary: &str, arguments: &[&str]) -> Finished {
    let mut command = ChildProcess::command(binary);
    command.args(arguments);
    ChildProcess::run(command, "", WITHIN).await
}

async fn fails(binary: &str, arguments: &[&str], code: i32, expected: &str) {
    let said = run(binary, arguments).await.code(code).stderr;
    assert!(said.contains(expected), "{arguments:?}: {said}");
}

#[tokio::test]
async fn unusable_options_exit_with_2_and_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "brokerz = \"kafka:9092\"").unwrap();
    let config = config.to_str().unwrap();
    fails(PAYMENTS, &["--config", config], 2, "brokerz").await;
    fails(PAYMENTS, &["--config", "/no/such/file"], 2, "/no/such/file").await;
    fails(PAYMENTS, &["--idle", "soon"], 2, "--idle").await;
    fails(
        PAYMENTS,
        &["-X", "enable.auto.commit=true"],
        2,
        "enable.auto.commit",
    )
    .await;
    fails(ORDERBOARD, &["list", "--state", "shiped"], 2, "shipped").await;
}

#[tokio::test]
async fn an_unreachable_cluster_exits_with_4_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("payments.db");
    let store = store.to_str().unwrap();
    // Nothing listens on the discard port.
    fails(
        PAYMENTS,
        &["-b", "127.0.0.1:9", "--store", store],
        4,
        "127.0.0.1:9",
    )
    .await;
}

#[tokio::test]
async fn a_named_file_overrides_variables_and_flags_override_both() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let store = dir.path().join("payments.db");
    std::fs::write(&config, "brokers = \"127.0.0.1:7\"").unwrap();
    let file = config.to_str().unwrap();
    for (flags, named, expected) in [
        (
            &["-b", "127.0.0.1:13", "--config", file][..],
            "",
            "127.0.0.1:13",
        ),
        (&["--config", file], "", "127.0.0.1:7"),
        (&[], file, "127.0.0.1:9"),
    ] {
        let mut payments = ChildProcess::command(PAYMENTS);
        if !named.is_empty() {
            payments.env("SHOP_CONFIG", named);
        }
        payments
            .args(flags)
            .env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
            .env("SHOP_STORE", &store);
        let said = ChildProcess::run(payments, "", WITHIN).await.stderr;
        let error = said.lines().find(|line| line.starts_with("error: "));
        assert!(
            error.is_some_and(|error| error.contains(expected)),
            "{said}"
        );
        assert!(store.exists());
    }
}

#[tokio::test]
async fn another_services_store_exits_with_3_naming_both() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("payments.db");
    let store = store.to_str().unwrap();
    let arguments = ["-b", "127.0.0.1:9", "--store", store];
    fails(PAYMENTS, &arguments, 4, "127.0.0.1:9").await;
    fails(INVENTORY, &arguments, 3, "payments").await;
}

async fn board(path: &Path) {
    let mut store = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .connect()
        .await
        .unwrap();
    let schema = [effect_journal::SCHEMA, orderboard::SERVICE.schema].concat();
    sqlx::raw_sql(AssertSqlSafe(schema))
        .execute(&mut store)
        .await
        .unwrap();
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    let paid = PaymentAuthorized {
        order_id: "o-1".to_owned(),
        amount_cents: 100,
        authorization: "a-1".to_owned(),
    };
    let cancelled = OrderCancelled {
        order_id: "o-2".to_owned(),
        reason: "changed my mind".to_owned(),
    };
    let facts = [paid.new_fact(EFFECT, at), cancelled.new_fact(EFFECT, at)];
    orderboard::learn(&mut store, &facts).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn orderboard_shows_an_order_and_lists_orders_by_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("orderboard.db");
    board(&path).await;
    let store = ["--store", path.to_str().unwrap()];
    let says = async |arguments: &[&str]| {
        let finished = run(ORDERBOARD, &[arguments, &store].concat()).await;
        finished.code(0).stdout
    };
    let shown = says(&["show", "o-1", "--output", "json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let expected = serde_json::json!({
        "order_id": "o-1",
        "state": "paid",
        "facts": [{"fact": "paid", "at": "2026-01-01T00:00:00.000000Z", "detail": "authorization a-1"}],
    });
    assert_eq!(shown, expected);
    assert!(says(&["show", "o-2"]).await.starts_with("o-2 is cancelled"));
    assert_eq!(
        says(&["list", "--state", "cancelled", "--output", "jsonl"]).await,
        "{\"order_id\":\"o-2\",\"state\":\"cancelled\"}\n"
    );
    assert_eq!(
        says(&["list", "--state", "shipped", "--output", "jsonl"]).await,
        ""
    );
    let unknown = ["show", "o-3", "--store", path.to_str().unwrap()];
    fails(ORDERBOARD, &unknown, 1, "o-3").await;
}

#[tokio::test]
async fn a_board_without_a_store_explains_how_to_get_one() {
    fails(
        ORDERBOARD,
        &["list", "--store", "/no/such/board.db"],
        1,
        "--store /no/such/board.db",
    )
    .await;
}

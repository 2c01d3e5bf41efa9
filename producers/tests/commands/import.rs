//! Tests of import: files and standard input, bad lines, repetition, interruption and continuation.

use crate::shop::{PATIENCE, Published, Shop, argument, orders, stock};
use evenkeel::testing::{Finished, eventually};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::future::ready;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;

const HEADER: &str = "order_id,customer_id,lines\n";
/// Limits sending to one window per second, so that an import can be interrupted half-way.
const SLOW: [&str; 2] = ["-X", "linger.ms=1000"];
const MANY: u64 = 30_000;

fn rows(numbers: impl IntoIterator<Item = u64>) -> String {
    numbers.into_iter().fold(String::new(), |mut text, number| {
        writeln!(text, "o-{number},c-1,article-001:2:870").expect("writes to memory");
        text
    })
}

fn ids(events: &[Published]) -> HashSet<&str> {
    events.iter().map(|event| event.id.as_str()).collect()
}

fn keys(events: &[Published]) -> HashSet<&str> {
    events.iter().map(|event| event.key.as_str()).collect()
}

fn check_summary(finished: &Finished, lines: u64, acknowledged: u64, bad_lines: u64) {
    let summary = finished.json();
    let counts = ["lines", "acknowledged", "bad_lines"].map(|name| summary[name].as_u64());
    assert_eq!(
        counts,
        [lines, acknowledged, bad_lines].map(Some),
        "{finished}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn importing_a_file_twice_publishes_the_same_ids() {
    let shop = Shop::open().await;
    let file = shop.file("orders.csv", &format!("{HEADER}{}", rows(0..500)));
    for _ in 0..2 {
        let imported = shop
            .run(orders(), &["import", argument(&file), "--output", "json"])
            .await;
        assert_eq!(imported.code, Some(0), "{imported}");
        check_summary(&imported, 501, 500, 0);
        assert_eq!(imported.json()["complete"], true);
        assert!(!shop.path("orders.csv.progress").exists());
    }
    let events = shop.published("shop.orders").await;
    assert_eq!(events.len(), 1000);
    assert_eq!(ids(&events).len(), 500);
    assert_eq!(keys(&events).len(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_from_standard_input_keep_the_order_of_keys() {
    let shop = Shop::open().await;
    let lines: String = (1..=200)
        .map(|number| {
            format!(
                "{{\"article\":\"article-00{}\",\"quantity\":{number},\"delivery_id\":\"d\"}}\n",
                number % 3
            )
        })
        .collect();
    let mut command = stock();
    command.stdin(Stdio::piped());
    let mut child = shop.start(
        command,
        &["import", "--format", "jsonl", "--output", "json"],
    );
    let mut input = child.stdin().expect("standard input is piped");
    input
        .write_all(lines.as_bytes())
        .await
        .expect("the import reads its input");
    drop(input);
    let imported = child.finished(PATIENCE).await;
    assert_eq!(imported.code, Some(0), "{imported}");
    check_summary(&imported, 200, 200, 0);
    let events = shop.published("shop.deliveries").await;
    for article in keys(&events) {
        let quantities = events
            .iter()
            .filter(|event| event.key == article)
            .map(|event| event.data["quantity"].as_u64());
        assert!(quantities.is_sorted(), "{article}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_are_numbered_without_content_and_the_rest_imported() {
    let shop = Shop::open().await;
    let bad = "secret name,c-1,article-001:2:870\no-2,c-1,article-001\no-3\n";
    let file = shop.file(
        "orders.csv",
        &format!("{HEADER}{}{bad}{}", rows(0..1), rows(4..5)),
    );
    let imported = shop
        .run(orders(), &["import", argument(&file), "--output", "json"])
        .await;
    assert_eq!(imported.code, Some(1), "{imported}");
    check_summary(&imported, 6, 2, 3);
    for expected in [
        "line 3: ",
        "/order_id",
        "line 4: ",
        "ARTICLE:QUANTITY:PRICE_CENTS",
        "line 5: it has 1 fields",
    ] {
        assert!(imported.stderr.contains(expected), "{expected}: {imported}");
    }
    assert!(!imported.stderr.contains("secret"), "{imported}");
    assert_eq!(
        keys(&shop.published("shop.orders").await),
        HashSet::from(["o-0", "o-4"])
    );
}

/// The next run resumes after the good lines.
#[tokio::test(flavor = "multi_thread")]
async fn on_error_stop_publishes_nothing_after_the_first_bad_line() {
    let shop = Shop::open().await;
    let file = shop.file(
        "orders.csv",
        &format!("{HEADER}{}o-2\n{}", rows(0..2), rows(3..5)),
    );
    let stopped = shop
        .run(
            orders(),
            &[
                "import",
                argument(&file),
                "--on-error",
                "stop",
                "--output",
                "json",
            ],
        )
        .await;
    assert_eq!(stopped.code, Some(1), "{stopped}");
    check_summary(&stopped, 3, 2, 0);
    assert!(stopped.stderr.contains("line 4: "), "{stopped}");
    assert!(stopped.stderr.contains("continues at line 4"), "{stopped}");
    assert_eq!(shop.published("shop.orders").await.len(), 2);

    let rest = shop
        .run(orders(), &["import", argument(&file), "--output", "json"])
        .await;
    assert_eq!(rest.code, Some(1), "{rest}");
    check_summary(&rest, 6, 4, 1);
    assert_eq!(rest.json()["resumed_after_line"], 3);
    assert_eq!(shop.published("shop.orders").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_ctrl_c_a_rerun_publishes_each_row_exactly_once() {
    let shop = Shop::open().await;
    let file = shop.file("orders.csv", &format!("{HEADER}{}", rows(0..MANY)));
    let import = [&["import", argument(&file), "--output", "json"], &SLOW[..]].concat();
    let child = shop.start(orders(), &import);
    eventually("the first events are on the log", PATIENCE, || async {
        (!shop.published("shop.orders").await.is_empty()).then_some(())
    })
    .await;
    child.signal("INT");
    let interrupted = child.finished(PATIENCE).await;
    assert_eq!(interrupted.code, Some(130), "{interrupted}");
    assert!(
        interrupted
            .stderr
            .contains("the same command continues at line"),
        "{interrupted}"
    );
    let first = shop.published("shop.orders").await.len() as u64;
    assert!(first < MANY);
    check_summary(&interrupted, first + 1, first, 0);

    let rest = shop
        .run(orders(), &["import", argument(&file), "--output", "json"])
        .await;
    assert_eq!(rest.code, Some(0), "{rest}");
    check_summary(&rest, MANY + 1, MANY, 0);
    assert_eq!(rest.json()["resumed_after_line"], first + 1);
    let events = shop.published("shop.orders").await;
    assert_eq!(events.len() as u64, MANY);
    assert_eq!(ids(&events).len() as u64, MANY);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sigkill_no_row_is_missing_and_ids_are_stable() {
    let shop = Shop::open().await;
    let file = shop.file("orders.csv", &format!("{HEADER}{}", rows(0..MANY)));
    let import = [&["import", argument(&file), "--quiet"], &SLOW[..]].concat();
    let mut child = shop.start(orders(), &import);
    let progress = shop.path("orders.csv.progress");
    eventually("progress is saved", PATIENCE, || {
        ready(progress.exists().then_some(()))
    })
    .await;
    child.kill().await;
    assert_eq!(child.finished(PATIENCE).await.code, None);

    let rest = shop
        .run(orders(), &["import", argument(&file), "--output", "json"])
        .await;
    assert_eq!(rest.code, Some(0), "{rest}");
    check_summary(&rest, MANY + 1, MANY, 0);
    assert!(
        rest.json()["resumed_after_line"].as_u64() > Some(1),
        "{rest}"
    );
    let events = shop.published("shop.orders").await;
    assert_eq!(ids(&events).len() as u64, MANY);
    assert_eq!(keys(&events).len() as u64, MANY);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_ctrl_c_on_stdin_skip_lines_resumes_the_import() {
    let shop = Shop::open().await;
    let mut command = orders();
    command.stdin(Stdio::piped());
    let mut child = shop.start(command, &["import", "--format", "csv"]);
    // Open until the end, so that only the signal ends the import.
    let mut input = child.stdin().expect("standard input is piped");
    input
        .write_all(format!("{HEADER}{}", rows(0..100)).as_bytes())
        .await
        .expect("the import reads its input");
    eventually("what was written is on the log", PATIENCE, || async {
        (shop.published("shop.orders").await.len() == 100).then_some(())
    })
    .await;
    child.signal("INT");
    let interrupted = child.finished(PATIENCE).await;
    assert_eq!(interrupted.code, Some(130), "{interrupted}");
    assert!(
        interrupted.stderr.contains("--skip-lines 101"),
        "{interrupted}"
    );

    let whole = shop.file("whole.csv", &format!("{HEADER}{}", rows(0..150)));
    let mut command = orders();
    command.stdin(std::fs::File::open(whole).expect("the file is readable"));
    let rest = shop
        .run(
            command,
            &["import", "--format", "csv", "--skip-lines", "101"],
        )
        .await;
    assert_eq!(rest.code, Some(0), "{rest}");
    let events = shop.published("shop.orders").await;
    assert_eq!((events.len(), ids(&events).len()), (150, 150));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_cannot_be_imported_is_named() {
    let shop = Shop::open().await;
    let headless = shop.file("headless.csv", &rows(0..3));
    let check = async |path: &str, expected: &str| {
        let imported = shop.run(orders(), &["import", path]).await;
        assert_eq!(imported.code, Some(1), "{imported}");
        assert!(imported.stderr.contains(expected), "{imported}");
    };
    check("missing.csv", "missing.csv").await;
    check(argument(&headless), "the header has no column order_id").await;
    let folder = shop.path("folder.csv");
    std::fs::create_dir(&folder).expect("the folder is created");
    check(argument(&folder), "is a folder").await;
    assert!(shop.published("shop.orders").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_end_in_cr_are_imported_like_any_other() {
    let shop = Shop::open().await;
    let text = format!("{HEADER}{}", rows(0..6));
    let all_cr = shop.file("cr.csv", &text.replace('\n', "\r"));
    let mixed = text.replacen("870\n", "870\r\n", 2);
    let mixed = shop.file("mixed.csv", &mixed.replacen("870\n", "870\r", 2));
    for file in [all_cr, mixed] {
        let imported = shop
            .run(orders(), &["import", argument(&file), "--output", "json"])
            .await;
        assert_eq!(imported.code, Some(0), "{imported}");
        check_summary(&imported, 7, 6, 0);
    }
    assert_eq!(keys(&shop.published("shop.orders").await).len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_over_several_lines_is_exactly_one_order() {
    let shop = Shop::open().await;
    let text = "order_id,customer_id,lines\n\
        o-1,c-1,\"article-001:2:870\narticle-007:1:3090\"\n\
        o-2,\"c-1\no-evil,c-9,article-001:99:1\nx\",article-001:1:1\n\
        o-3,c-1,article-001:1:870\n";
    let file = shop.file("orders.csv", text);
    let imported = shop
        .run(orders(), &["import", argument(&file), "--output", "json"])
        .await;
    assert_eq!(imported.code, Some(1), "{imported}");
    check_summary(&imported, 7, 2, 1);
    assert!(imported.stderr.contains("line 4: "), "{imported}");
    let events = shop.published("shop.orders").await;
    assert_eq!(keys(&events), HashSet::from(["o-1", "o-3"]));
    let order = events.iter().find(|event| event.key == "o-1");
    assert_eq!(
        order.expect("the order is published").data["total_cents"],
        4830
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_stops_at_quotes_that_hide_a_rows_end() {
    let shop = Shop::open().await;
    for (name, bad) in [
        ("open.csv", "o-9,\"c-1,article-001:2:870\n"),
        ("behind.csv", "o-9,\"c\"1,article-001:2:870\n"),
        ("inside.csv", "o-9,c\"1,article-001:2:870\n"),
    ] {
        let text = format!("{HEADER}{}{bad}{}", rows(0..2), rows(5..9));
        let file = shop.file(name, &text);
        let imported = shop
            .run(orders(), &["import", argument(&file), "--output", "json"])
            .await;
        assert_eq!(imported.code, Some(1), "{imported}");
        check_summary(&imported, 3, 2, 0);
        assert!(imported.stderr.contains("line 4: "), "{imported}");
        assert!(
            imported.stderr.contains("continues at line 4"),
            "{imported}"
        );
    }
    assert_eq!(
        keys(&shop.published("shop.orders").await),
        HashSet::from(["o-0", "o-1"])
    );
}

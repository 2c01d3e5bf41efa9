//! Reports about tools that import CSV and JSON: every row is read right or named, and nothing is
//! half an order.

use super::Shop;
use evenkeel::testing::Finished;
use serde_json::Value;

const HEADER: &str = "order_id,customer_id,lines";

fn row(id: &str) -> String {
    format!("{id},c-1,article-001:2:870")
}

async fn import(shop: &Shop, name: &str, text: impl AsRef<[u8]>, more: &[&str]) -> Finished {
    let file = shop.file(name, text);
    let arguments = [&["import", &file, "--output", "json"], more].concat();
    shop.run("orders", &arguments, b"").await
}

/// Keys of the orders on the log with their totals.
async fn orders(shop: &Shop) -> Vec<(String, u64)> {
    let records = shop.read("shop.orders").await;
    let order = |record: &evenkeel::kafka::reader::LogRecord| {
        let value: Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
        Some((
            value["order_id"].as_str()?.to_owned(),
            value["total_cents"].as_u64()?,
        ))
    };
    records
        .iter()
        .map(|record| order(record).expect("an order"))
        .collect()
}

fn whole(ids: &[&str]) -> Vec<(String, u64)> {
    ids.iter().map(|id| ((*id).to_owned(), 1740)).collect()
}

/// Imports, and expects this exit code, these words and these orders.
async fn check(text: impl AsRef<[u8]>, more: &[&str], code: i32, says: &str, ids: &[&str]) {
    let shop = Shop::open().await;
    let run = import(&shop, "orders.csv", text, more).await.code(code);
    assert!(run.stderr.contains(says), "{says:?}: {run:?}");
    assert_eq!(orders(&shop).await, whole(ids), "{run:?}");
}

#[tokio::test]
async fn filesql_279_lines_that_end_in_cr() {
    let text = [HEADER, &row("o-1"), &row("o-2")].join("\r");
    check(&text, &[], 0, "", &["o-1", "o-2"]).await;
    let one = format!(
        "{HEADER}\n{}\r{}\n{}\r\n",
        row("o-1"),
        row("o-2"),
        row("o-3")
    );
    check(&one, &[], 0, "", &["o-1", "o-2", "o-3"]).await;
}

#[tokio::test]
async fn highcharts_25193_a_quoted_field_over_lines_is_one_field() {
    let shop = Shop::open().await;
    let text = format!("{HEADER}\no-1,c-1,\"article-001:2:870\narticle-007:1:3090\"\n");
    import(&shop, "orders.csv", text, &[]).await.code(0);
    assert_eq!(orders(&shop).await, [("o-1".to_owned(), 4830)]);
}

#[tokio::test]
async fn sqlitebrowser_1212_an_unclosed_quote_stops_the_import() {
    let text = format!(
        "{HEADER}\n{}\no-2,\"c-1,article-001:2:870\n{}\n",
        row("o-1"),
        row("o-3")
    );
    check(
        &text,
        &[],
        1,
        "line 3: a quote is opened and not closed",
        &["o-1"],
    )
    .await;
}

#[tokio::test]
async fn jsonlines_68_byte_order_marks_are_stripped() {
    let csv = format!("\u{feff}{HEADER}\n{}\n", row("o-1"));
    check(&csv, &[], 0, "", &["o-1"]).await;
    let line = r#"{"order_id":"o-1","customer_id":"c-1","lines":"article-001:2:870"}"#;
    check(
        format!("\u{feff}{line}\r\n"),
        &["--format", "jsonl"],
        0,
        "",
        &["o-1"],
    )
    .await;
}

#[tokio::test]
async fn utf_16_and_other_encodings_are_named() {
    let text = format!("{HEADER}\n{}\n", row("o-1"));
    for mark in [true, false] {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        let bytes: Vec<u8> = [0xff, 0xfe]
            .into_iter()
            .filter(|_| mark)
            .chain(units)
            .collect();
        check(bytes, &[], 1, "UTF-16", &[]).await;
    }
    let latin = [
        format!("{HEADER}\n{}\no-", row("o-1")).as_bytes(),
        b"\xfc,c-1,article-001:2:870\n",
    ]
    .concat();
    check(latin, &[], 1, "line 3: it is not UTF-8", &["o-1"]).await;
}

#[tokio::test]
async fn mldb_365_a_trailing_comma_in_the_header_is_named() {
    let text = format!("{HEADER},\n{},\n", row("o-1"));
    check(&text, &[], 1, "column 4 of the header", &[]).await;
    let text = format!("{HEADER}\n{}\n{},\n", row("o-1"), row("o-2"));
    check(
        &text,
        &[],
        1,
        "line 3: it has 4 fields and the header has 3",
        &["o-1"],
    )
    .await;
}

#[tokio::test]
async fn firefly_iii_691_rows_of_nothing_but_commas_are_named() {
    let text = format!("{HEADER}\n,,\n{}\n", row("o-1"));
    check(&text, &[], 1, "line 2: ", &["o-1"]).await;
}

#[tokio::test]
async fn papaparse_161_empty_lines_and_missing_final_newlines_are_accepted() {
    let text = format!("{HEADER}\n\n{}\n   \n{}", row("o-1"), row("o-2"));
    check(&text, &[], 0, "", &["o-1", "o-2"]).await;
}

#[tokio::test]
async fn excel_declares_semicolons_in_a_first_line() {
    let text = format!("{HEADER}\n{}\n", row("o-1")).replace(',', ";");
    check(format!("sep=;\r\n{text}"), &[], 0, "", &["o-1"]).await;
    check(&text, &["--delimiter", ";"], 0, "", &["o-1"]).await;
    check(
        text.replace(';', "\t"),
        &["--delimiter", "tab"],
        0,
        "",
        &["o-1"],
    )
    .await;
    check(&text, &[], 1, "--delimiter ';'", &[]).await;
}

#[tokio::test]
async fn wrong_case_and_duplicate_columns_in_headers_are_reported() {
    let check_header = async |header: &str, says: &'static str| {
        check(format!("{header}\n{}\n", row("o-1")), &[], 1, says, &[]).await;
    };
    check_header(
        "Order_ID,customer_id,lines",
        "the header has no column order_id",
    )
    .await;
    check_header("order_id,customer_id,lines,lines", "the column lines twice").await;
    check(
        format!(" order_id , customer_id , lines \n{}\n", row("o-1")),
        &[],
        0,
        "",
        &["o-1"],
    )
    .await;
}

#[tokio::test]
async fn fields_of_a_megabyte_or_with_nul_are_reported() {
    let long = format!(
        "{HEADER}\no-1,{},article-001:2:870\n{}\n",
        "x".repeat(1 << 20),
        row("o-2")
    );
    check(&long, &[], 1, "line 2: it is longer than", &["o-2"]).await;
    let nul = format!("{HEADER}\no\0-1,c-1,article-001:2:870\n{}\n", row("o-2"));
    check(&nul, &[], 1, "line 2: ", &["o-2"]).await;
}

/// Anything else is reported, and the next line is imported.
#[tokio::test]
async fn only_one_json_object_a_line_is_imported() {
    let object = r#"{"order_id":"o-1","customer_id":"c-1","lines":"article-001:2:870"}"#;
    let good = object.replace("o-1", "o-9");
    for (bad, says) in [
        (format!("[{object}]"), "it begins with an array"),
        (
            r#"["o-1","c-1","article-001:2:870"]"#.to_owned(),
            "it begins with an array",
        ),
        (format!("{object}{object}"), "trailing characters"),
        (format!("{object},"), "trailing characters"),
        (object.replace("\"o-1\"", "NaN"), "expected value"),
        (
            object.replace("\"c-1\"", "\"c-1\",\"customer_id\":\"c-2\""),
            "duplicate field",
        ),
        (
            object.replace("870\"}", "870\",\"total_cents\":18446744073709551616}"),
            "invalid type",
        ),
        (
            "{\n  \"order_id\": \"o-1\",\n  \"customer_id\": \"c-1\"\n}".to_owned(),
            "line 1",
        ),
    ] {
        check(
            format!("{bad}\r\n{good}\r\n"),
            &["--format", "jsonl"],
            1,
            says,
            &["o-9"],
        )
        .await;
    }
}

/// A report of another kind: an import goes on in a file that is not the one it stopped in.
#[tokio::test]
async fn excavator_86_resuming_starts_after_the_last_imported_row() {
    let shop = Shop::open().await;
    let text = format!(
        "{HEADER}\n{}\no-2,c-1,nonsense\n{}\n",
        row("o-1"),
        row("o-3")
    );
    import(&shop, "orders.csv", &text, &["--on-error", "stop"])
        .await
        .code(1);
    assert_eq!(orders(&shop).await, whole(&["o-1"]));
    let progress = shop.folder.path().join("orders.csv.progress");
    assert!(progress.exists());
    let file = shop.folder.path().join("orders.csv");
    let again = [
        "import",
        file.to_str().expect("the text is UTF-8"),
        "--output",
        "json",
    ];
    let run = shop.run("orders", &again, b"").await.code(1);
    assert!(run.stderr.contains("continuing at line 3"), "{run:?}");
    assert_eq!(orders(&shop).await, whole(&["o-1", "o-3"]));
}

/// `dev down`, `dev up`: the address is the old one, and the cluster is empty.
#[tokio::test]
async fn foreign_or_edited_progress_is_ignored_with_a_warning() {
    let shop = Shop::open().await;
    let text = format!("{HEADER}\n{}\no-2,c-1,nonsense\n", row("o-1"));
    import(&shop, "orders.csv", &text, &["--on-error", "stop"])
        .await
        .code(1);
    let progress = shop.folder.path().join("orders.csv.progress");
    let written = std::fs::read_to_string(&progress).expect("the progress can be read");
    let other = Shop::open().await;
    let file = shop.folder.path().join("orders.csv");
    let again = [
        "import",
        file.to_str().expect("the text is UTF-8"),
        "--on-error",
        "stop",
    ];
    let run = other.run("orders", &again, b"").await.code(1);
    assert!(
        run.stderr
            .contains("it belongs to an import to another cluster"),
        "{run:?}"
    );
    assert_eq!(orders(&other).await, whole(&["o-1"]));
    for (edit, says) in [
        (
            written.replace("\"bytes\":", "\"bytes\":9"),
            "it was edited or damaged",
        ),
        (
            written[..written.len() / 2].to_owned(),
            "it cannot be understood",
        ),
        ("\0".to_owned(), "it cannot be understood"),
    ] {
        std::fs::write(&progress, edit).expect("the file is written");
        let run = shop.run("orders", &again, b"").await.code(1);
        assert!(run.stderr.contains(says), "{says}: {run:?}");
    }
}

#[tokio::test]
async fn odd_names_of_files_are_names_of_files() {
    let shop = Shop::open().await;
    let text = format!("{HEADER}\n{}\n", row("o-1"));
    for name in ["a b.csv", "#?%41.csv", "größe.csv", "-o.csv"] {
        import(&shop, name, &text, &[]).await.code(0);
    }
    assert_eq!(orders(&shop).await.len(), 4);
}

//! Reports about command-line tools of Kafka.

use super::{Shop, record};

const CANCELLED: &str = "shop.order-cancelled.v1";

#[tokio::test]
async fn kafka_ui_3751_numbers_are_published_exactly_as_written() {
    let shop = Shop::open().await;
    shop.file(
        "other.type.v1.schema.json",
        r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"other.type.v1","type":"object"}"#,
    );
    let accounts = ["23958446825181076828", "23958446825181076999"];
    let lines = accounts.map(|account| {
        format!("{{\"z\":1.10,\"account\":{account},\"wei\":12345678901234567.89}}\n")
    });
    let arguments = [
        "publish",
        "other.type.v1",
        "--schemas",
        shop.folder.path().to_str().expect("the text is UTF-8"),
        "--topic",
        "shop.orders",
        "--key-field",
        "/account",
    ];
    shop.run("evenkeel", &arguments, lines.concat().as_bytes())
        .await
        .code(0);
    for (record, (account, line)) in shop
        .read("shop.orders")
        .await
        .iter()
        .zip(accounts.iter().zip(&lines))
    {
        assert_eq!(record.key.as_deref(), Some(account.as_bytes()));
        assert_eq!(record.value.as_deref(), Some(line.trim_end().as_bytes()));
    }
}

#[tokio::test]
async fn jsonlines_68_byte_order_marks_before_lines_are_skipped() {
    let shop = Shop::open().await;
    let line = "\u{feff}{\"order_id\":\"o-1\",\"reason\":\"test\"}\r\n";
    let file = shop.file("lines.jsonl", line);
    shop.run(
        "evenkeel",
        &["publish", CANCELLED, "--topic", "shop.orders"],
        line.as_bytes(),
    )
    .await
    .code(0);
    let from_file = [
        "publish",
        CANCELLED,
        "--topic",
        "shop.orders",
        "--from-file",
        &file,
    ];
    shop.run("evenkeel", &from_file, b"").await.code(0);
    let letters = shop.file("letters.jsonl", "\u{feff}{}\n");
    let replay = ["dlq", "replay", "--from-file", &letters];
    let run = shop.run("evenkeel", &replay, b"").await;
    assert!(
        run.stderr.contains("line 1: no text in topic"),
        "the line is read: {run:?}"
    );
}

#[tokio::test]
async fn node_rdkafka_1050_every_build_has_tls_and_scram() {
    let shop = Shop::open().await;
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] {
        let mechanism = format!("sasl.mechanism={mechanism}");
        let arguments = [
            "topics",
            "list",
            "-X",
            "security.protocol=SASL_SSL",
            "-X",
            &mechanism,
            "-X",
            "sasl.username=u",
            "-X",
            "sasl.password=p",
            "--timeout",
            "3s",
        ];
        let run = shop.run("evenkeel", &arguments, b"").await;
        assert!(
            !run.stderr.contains("not available") && !run.stderr.contains("No provider"),
            "{run:?}"
        );
    }
}

#[tokio::test]
async fn claude_code_plugins_260_a_line_break_forges_no_row() {
    let shop = Shop::open().await;
    let message = "no card\ndlq.payments.shop.orders  forged\u{202e}";
    let headers = [
        ("__dlq.errors.topic", "shop.orders"),
        ("__dlq.errors.message", message),
    ];
    let mut letter = record("k", &headers, Some("v"));
    letter.topic = "dlq.payments.shop.orders".to_owned();
    shop.publish([letter]).await;
    let list = ["dlq", "list", "dlq.payments.shop.orders"];
    let run = shop.run("evenkeel", &list, b"").await.code(0);
    assert!(
        run.stdout.contains("forged") && !run.stdout.contains('\u{202e}'),
        "{run:?}"
    );
    let forged = |line: &str| line.starts_with("dlq.payments.shop.orders  forged");
    assert!(!run.stdout.lines().any(forged), "{run:?}");
}

/// Escapes reach a pipe as they are in JSON, and no terminal: there the tool strips them.
#[tokio::test]
async fn escapes_of_records_do_not_leave_json() {
    let shop = Shop::open().await;
    shop.publish([record(
        "\u{1b}[2J",
        &[("h\u{9b}", "\u{1b}]0;title\u{7}")],
        Some("\u{1b}[31m"),
    )])
    .await;
    let arguments = ["consume", "shop.orders", "--until-end", "--output", "jsonl"];
    let run = shop.run("evenkeel", &arguments, b"").await.code(0);
    assert!(!run.stdout.contains('\u{1b}'), "{run:?}");
    assert_eq!(run.rows()[0]["payload"], "\u{1b}[31m");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_named_and_no_success() {
    let shop = Shop::open().await;
    shop.publish([record("k", &[], Some("v"))]).await;
    let evenkeel = env!("CARGO_BIN_EXE_evenkeel");
    let script = format!("{evenkeel} consume shop.orders --until-end --output jsonl > /dev/full");
    let mut command = tokio::process::Command::new("sh");
    command
        .args(["-c", &script])
        .env("KAFKA_BOOTSTRAP_SERVERS", shop.kafka.brokers());
    let ended = command.output().await.expect("sh is there");
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&ended.stderr).contains("No space left"),
        "{ended:?}"
    );
}

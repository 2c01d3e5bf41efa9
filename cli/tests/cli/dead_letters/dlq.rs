//! Dead letters of every family are listed, shown, exported and purged.

use crate::support::dead_letters::Mailbox;
use evenkeel::event::OutgoingRecord;
use serde_json::{Value, json};

/// Dead letters of a Spring, a Connect and a Streams application, which all failed on partition 1.
async fn publish_families(mailbox: &Mailbox) {
    let source = mailbox.source.as_bytes();
    mailbox
        .publish([
            mailbox.written(
                "s",
                0,
                &[
                    ("kafka_dlt-original-topic", source),
                    ("kafka_dlt-original-partition", &[0, 0, 0, 1]),
                    ("kafka_dlt-original-offset", &[0, 0, 0, 0, 0, 0, 0, 200]),
                    ("kafka_dlt-original-consumer-group", b"billing"),
                    (
                        "kafka_dlt-exception-fqcn",
                        b"org.ListenerExecutionFailedException",
                    ),
                    (
                        "kafka_dlt-exception-cause-fqcn",
                        b"java.lang.IllegalStateException",
                    ),
                    ("kafka_dlt-exception-message", b"Listener failed"),
                ],
            ),
            mailbox.written(
                "c",
                1,
                &[
                    ("__connect.errors.topic", source),
                    ("__connect.errors.partition", b"1"),
                    ("__connect.errors.offset", b"201"),
                    ("__connect.errors.connector.name", b"warehouse"),
                    ("__connect.errors.stage", b"VALUE_CONVERTER"),
                    (
                        "__connect.errors.exception.class.name",
                        b"org.DataException",
                    ),
                    ("__connect.errors.exception.message", b"not JSON"),
                ],
            ),
            mailbox.written(
                "t",
                2,
                &[
                    ("__streams.errors.topic", source),
                    ("__streams.errors.partition", b"1"),
                    ("__streams.errors.offset", b"202"),
                    ("__streams.errors.exception", b"org.StreamsException"),
                    ("__streams.errors.message", b"division by zero"),
                ],
            ),
        ])
        .await;
}

#[tokio::test]
async fn dead_letters_are_grouped_by_cause_and_filters_select_them() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let refused = |n: usize| {
        mailbox.letter(
            &format!("k{n}"),
            n,
            "permanent",
            &format!("card {n} refused"),
        )
    };
    let late = |n: usize| mailbox.letter("k0", n, "transient", "timed out after 250ms");
    mailbox
        .publish((0..5).map(refused).chain((5..7).map(late)))
        .await;

    let list = async |more: &[&str]| -> Vec<Value> {
        let mut args = vec!["dlq", "list", "--group", &mailbox.group, "-o", "jsonl"];
        args.extend(more);
        mailbox.run(&args).await.code(0).rows()
    };
    let at = |offset: usize| format!("{}/0@{offset}", mailbox.letters);
    let group = |class: &str, message: &str, count: usize, example: String| {
        json!({
            "topic": mailbox.letters, "family": "kafka", "class": class, "stage": "handler", "message": message,
            "count": count, "replayed": 0, "first": "2026-11-21T10:11:12Z", "last": "2026-11-21T10:11:12Z",
            "example": example,
        })
    };
    let refused = group("permanent", "card <n> refused", 5, at(4));
    let late = group("transient", "timed out after <n>ms", 2, at(6));
    assert_eq!(list(&[]).await, [refused.clone(), late.clone()]);
    assert_eq!(list(&["--class", "trans*"]).await, [late]);
    assert_eq!(list(&["--grep", "refused"]).await, [refused]);
    assert_eq!(list(&["--grep", "card 3"]).await[0]["count"], 1);
    assert_eq!(list(&["--key", "k0"]).await.len(), 2);
    for nothing in [
        ["--type", "other.*"],
        ["--stage", "decode"],
        ["--until", "2026-11-21T10:11:12Z"],
        ["--since", "2026-11-21T10:11:13Z"],
        ["--partition", "7"],
    ] {
        assert_eq!(list(&nothing).await, Vec::<Value>::new(), "{nothing:?}");
    }
    let everywhere = mailbox.run(&["dlq", "ls"]).await.code(0).stdout;
    let table = everywhere
        .lines()
        .find(|line| line.contains(&mailbox.letters));
    assert!(
        table.is_some_and(|line| line.contains("card <n> refused")),
        "{everywhere}"
    );
    let nobody = mailbox
        .run(&["dlq", "list", "--group", "nobody"])
        .await
        .code(1);
    assert!(
        nobody.stderr.contains("no group nobody"),
        "{}",
        nobody.stderr
    );
}

#[tokio::test]
async fn dead_letters_of_other_families_are_listed_shown_and_replayed() {
    let Some(mailbox) = Mailbox::new(2).await else {
        return;
    };
    publish_families(&mailbox).await;
    let rows = mailbox.listed().await;
    let mut seen: Vec<(&Value, &Value, &Value)> = rows
        .iter()
        .map(|row| (&row["family"], &row["class"], &row["message"]))
        .collect();
    seen.sort_by_key(|(family, ..)| family.as_str());
    let expected = [
        (
            &json!("connect"),
            &json!("org.DataException"),
            &json!("not JSON"),
        ),
        (
            &json!("spring"),
            &json!("java.lang.IllegalStateException"),
            &json!("Listener failed"),
        ),
        (
            &json!("streams"),
            &json!("org.StreamsException"),
            &json!("division by zero"),
        ),
    ];
    assert_eq!(seen, expected);

    let shown = mailbox
        .run(&["dlq", "show", &mailbox.letters, "0", "0"])
        .await
        .code(0)
        .stdout;
    assert!(
        shown.contains(&format!("{}/1@200", mailbox.source)),
        "{shown}"
    );
    let replay = ["dlq", "replay", &mailbox.letters, "--execute"];
    mailbox.run(&replay).await.code(0);
    let records = mailbox.read(&mailbox.source).await;
    assert_eq!(records.len(), 3);
    for record in records {
        assert_eq!(record.partition, 1, "it goes where it came from");
        let names = record
            .headers
            .iter()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned());
        assert!(
            names
                .clone()
                .all(|name| name.starts_with("evenkeel.dlq.replay")),
            "{:?}",
            names.collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn a_dead_letter_is_shown_completely() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let mut binary = mailbox.letter("k", 1, "permanent", "no total");
    binary.headers.push("raw", Some(&[0, 0xff]));
    binary.value = Some(vec![0xff; 20].into());
    mailbox
        .publish([mailbox.letter("k", 0, "permanent", "no total"), binary])
        .await;
    let position = format!("{}/0@0", mailbox.letters);
    let shown = mailbox
        .run(&["dlq", "show", &position])
        .await
        .code(0)
        .stdout;
    for part in [
        "failed on      ",
        "no total",
        "permanent",
        "payments-1",
        "2026-11-21T10:11:12Z",
        "replayed       no",
        "ce_id = id-0",
        "! __dlq.errors.group = ",
        "value, JSON\n{\"number\":0}",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let binary = mailbox
        .run(&["dlq", "show", &mailbox.letters, "0", "1"])
        .await
        .code(0)
        .stdout;
    assert!(
        binary.contains("raw = 00 ff") && binary.contains("\nff ff ff ff\n"),
        "{binary}"
    );

    let json = mailbox
        .run(&["dlq", "show", &position, "-o", "json"])
        .await
        .code(0)
        .stdout;
    let json: Value = serde_json::from_str(&json).expect("the text is JSON");
    let exported = mailbox
        .run(&["dlq", "export", &mailbox.letters, "-n", "1"])
        .await
        .code(0)
        .rows();
    assert_eq!([json], *exported);
    assert_eq!(exported[0]["failure"]["attempts"], 3);
    let absent = format!("{}/0@9", mailbox.letters);
    let absent = mailbox.run(&["dlq", "show", &absent]).await.code(1);
    assert!(absent.stderr.contains("no record at"), "{}", absent.stderr);
}

#[tokio::test]
async fn purge_deletes_from_the_start_and_reports_what_stays() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let letter = |n: usize| mailbox.letter(if n == 2 { "kept" } else { "k" }, n, "transient", "m");
    mailbox.publish((0..5).map(letter)).await;
    let replay = ["dlq", "replay", &mailbox.letters, "--execute", "--key", "k"];
    mailbox.run(&replay).await.code(0);

    let purge = ["dlq", "purge", &mailbox.letters, "-o", "jsonl"];
    let purge_with = async |more: &[&str]| {
        let mut args = purge.to_vec();
        args.extend(more);
        let run = mailbox.run(&args).await.code(0);
        let [row] = run.rows().try_into().expect("one partition");
        let seen = ["before", "delete", "keep", "done"].map(|name| row[name].clone());
        (seen, run.stderr)
    };
    let (dry, said) = purge_with(&["--all-replayed"]).await;
    assert_eq!(dry, [json!(2), json!(2), json!(3), json!(false)]);
    assert!(
        said.contains("2 replayed dead letters stay") && said.contains("--execute"),
        "{said}"
    );
    assert_eq!(
        mailbox.read(&mailbox.letters).await.len(),
        5,
        "a dry run deletes nothing"
    );

    let (done, _) = purge_with(&["--all-replayed", "--execute"]).await;
    assert_eq!(done, [json!(2), json!(2), json!(3), json!(true)]);
    let offsets: Vec<i64> = mailbox
        .read(&mailbox.letters)
        .await
        .iter()
        .map(|r| r.offset)
        .collect();
    assert_eq!(offsets, [2, 3, 4]);

    let (dry, _) = purge_with(&["--before", "2000-01-01T00:00:00Z"]).await;
    assert_eq!(dry, [json!(2), json!(0), json!(3), json!(false)]);
    let (done, _) = purge_with(&["--before", "2200-01-01T00:00:00Z", "--execute"]).await;
    assert_eq!(done, [json!(5), json!(3), json!(0), json!(true)]);
    assert_eq!(mailbox.read(&mailbox.letters).await.len(), 0);
}

/// The replay log knows dead letters by offset, and the new topic has the same offsets.
#[tokio::test]
async fn dead_letters_of_a_recreated_topic_count_as_not_replayed() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let letters = || (0..3).map(|number| mailbox.letter("k", number, "transient", "m"));
    mailbox.publish(letters()).await;
    let replay = [
        "dlq",
        "replay",
        &mailbox.letters,
        "--execute",
        "-o",
        "jsonl",
    ];
    let replayed = async || {
        let run = mailbox.run(&replay).await.code(0);
        let rows = run.rows();
        rows.iter()
            .filter_map(|row| row["replayed"].as_u64())
            .sum::<u64>()
    };
    assert_eq!((replayed().await, replayed().await), (3, 0));
    mailbox.remake().await;
    mailbox.publish(letters()).await;

    let list = ["dlq", "list", &mailbox.letters, "-o", "jsonl"];
    let [row] = mailbox
        .run(&list)
        .await
        .code(0)
        .rows()
        .try_into()
        .expect("one cause");
    assert_eq!((&row["count"], &row["replayed"]), (&json!(3), &json!(0)));
    let purge = [
        "dlq",
        "purge",
        &mailbox.letters,
        "--all-replayed",
        "-o",
        "jsonl",
    ];
    let [row] = mailbox
        .run(&purge)
        .await
        .code(0)
        .rows()
        .try_into()
        .expect("there is one row");
    assert_eq!((&row["delete"], &row["keep"]), (&json!(0), &json!(3)));
    assert_eq!((replayed().await, replayed().await), (3, 0));
    mailbox.reach(6).await;
}

#[tokio::test]
async fn purge_spares_dead_letters_of_groups_with_ambiguous_names() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let own = |number| mailbox.letter("k", number, "permanent", "m");
    let mut other = own(1);
    let mut headers = evenkeel::event::Headers::new();
    for (name, value) in other.headers.iter() {
        if name == b"__dlq.errors.group" {
            headers.push("__dlq.errors.group", Some(b"another"));
        } else {
            headers.push_bytes(name, value);
        }
    }
    other.headers = headers;
    mailbox.publish([own(0), other, own(2)]).await;
    let purge = [
        "dlq",
        "purge",
        "--group",
        &mailbox.group,
        "--before",
        "2200-01-01T00:00:00Z",
    ];
    let purged = mailbox
        .run(&[&purge[..], &["--execute"]].concat())
        .await
        .code(0);
    assert!(purged.stderr.contains("another"), "{}", purged.stderr);
    let left = mailbox.read(&mailbox.letters).await;
    let offsets: Vec<i64> = left.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [1, 2]);
}

#[tokio::test]
async fn purge_and_list_touch_dead_letters_only() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let order = |key: &str| OutgoingRecord {
        topic: mailbox.source.clone(),
        ..mailbox.written(key, 0, &[("ce_type", b"test.happened.v1")])
    };
    mailbox.publish(["o-1", "o-2"].map(order)).await;
    let purge = async |topic: &str, code| {
        let args = ["dlq", "purge", topic, "--before", "2200-01-01T00:00:00Z"];
        mailbox
            .run(&[&args[..], &["--execute"]].concat())
            .await
            .code(code)
    };
    let refused = purge(&mailbox.source, 1).await;
    let first = format!("{}/0@0 carries no failure headers", mailbox.source);
    assert!(refused.stderr.contains(&first), "{}", refused.stderr);
    for (topic, holds) in [
        ("retry.payments.shop.orders", "next attempt"),
        ("control.payments", "commands"),
        ("shop.orders", "events"),
    ] {
        let refused = purge(topic, 2).await;
        assert!(refused.stderr.contains(holds), "{}", refused.stderr);
    }
    let list = ["dlq", "list", &mailbox.source, "-o", "jsonl"];
    let listed = mailbox.run(&list).await.code(0);
    assert_eq!(listed.rows(), Vec::<Value>::new());
    assert!(
        listed.stderr.contains("2 records carry no failure headers"),
        "{}",
        listed.stderr
    );
}

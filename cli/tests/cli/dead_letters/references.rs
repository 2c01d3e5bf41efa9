//! Dead letters of records that were too large for their topic: originals are fetched, and missing
//! ones are named.

use crate::support::dead_letters::{Mailbox, header, number_of};
use evenkeel::event::OutgoingRecord;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::LogRecord;
use std::collections::BTreeMap;
use std::time::Duration;

/// Records of one key that failed, and a dead letter for each that refers to it.
async fn publish(mailbox: &Mailbox, count: usize) {
    let original = |number: usize| OutgoingRecord {
        topic: mailbox.source.clone(),
        headers: [
            (b"ce_id".as_slice(), Some(number.to_string().as_bytes())),
            (b"large", Some(&[b'x'; 100])),
        ]
        .into_iter()
        .collect(),
        ..mailbox.written("k", number, &[])
    };
    mailbox.publish((0..count).map(original)).await;
    let refer = |original: &LogRecord| {
        let mut letter = mailbox.letter("k", original.offset as usize, "permanent", "no card");
        let time = original.timestamp_ms.expect("a time").to_string();
        for (name, value) in [
            ("evenkeel.dlq.record.timestamp", time.as_str()),
            ("evenkeel.dlq.reference", "true"),
        ] {
            letter.headers.push(name, Some(value.as_bytes()));
        }
        letter.value = None;
        letter
    };
    let originals = mailbox.read(&mailbox.source).await;
    mailbox.publish(originals.iter().map(refer)).await;
}

/// A record that is gone is named.
#[tokio::test]
async fn referenced_records_are_shown_exported_and_replayed_unless_gone() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    publish(&mailbox, 3).await;
    let at = |offset: usize| format!("{}/0@{offset}", mailbox.letters);
    let shown = mailbox.run(&["dlq", "show", &at(0)]).await.code(0).stdout;
    assert!(
        shown.contains("{\"number\":0}") && shown.contains("large = xxx"),
        "{shown}"
    );

    let admin = Admin::connect(&mailbox.kafka.config(), Duration::from_secs(30))
        .await
        .expect("the admin client connects");
    let before = BTreeMap::from([(0, 1)]);
    let deleted = admin.delete_records(&mailbox.source, &before).await;
    assert_eq!(deleted.expect("the records are deleted"), before);
    let gone = format!("{}: its original at {}/0@0 is gone", at(0), mailbox.source);

    let shown = mailbox.run(&["dlq", "show", &at(0)]).await.code(1);
    assert!(shown.stderr.contains(&gone), "{}", shown.stderr);
    assert!(shown.stdout.contains("no card"), "{}", shown.stdout);

    let exported = mailbox
        .run(&["dlq", "export", &mailbox.letters])
        .await
        .code(1);
    assert!(exported.stderr.contains(&gone), "{}", exported.stderr);
    let payloads: Vec<_> = exported
        .rows()
        .iter()
        .map(|row| {
            (
                row["payload"].clone(),
                row["failure"]["is_reference"].clone(),
            )
        })
        .collect();
    let whole = |number: usize| (format!("{{\"number\":{number}}}").into(), false.into());
    assert_eq!(payloads, [whole(1), whole(2)]);

    let replayed = mailbox
        .run(&["dlq", "replay", &mailbox.letters, "--execute"])
        .await
        .code(1);
    assert!(replayed.stderr.contains(&gone), "{}", replayed.stderr);
    assert!(
        replayed
            .stderr
            .contains("replayed 2, failed 1, held back 0"),
        "{}",
        replayed.stderr
    );
    let records = mailbox.read(&mailbox.source).await;
    let back = &records[2..];
    assert_eq!(back.iter().map(number_of).collect::<Vec<_>>(), [1, 2]);
    for record in back {
        let header = |name| header(&record.headers, name);
        assert_eq!(header("large").map(|large| large.len()), Some(100));
        assert_eq!(header("evenkeel.dlq.reference"), None);
        assert_eq!(header("evenkeel.dlq.replay-count").as_deref(), Some("1"));
    }
}

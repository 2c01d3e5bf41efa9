//! `drill duplicates` delivers settled records to a running group again, in order, and names
//! handlers that are not idempotent.

use crate::support::dead_letters::{Mailbox, header, signal};
use crate::support::member::{Handled, Happened, Running};
use crate::support::tool::{Run, command, end_of};
use evenkeel::consumer::{Assignment, ConsumerSettings};
use evenkeel::event::{Event, EventType, OutgoingRecord, decode};
use evenkeel::handler::{Context, Delivery, HandlerError, Router};
use evenkeel::inbox::MemoryInbox;
use evenkeel::recovery::retry_topic;
use evenkeel::testing::eventually;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tower::Service;

const WITHIN: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize)]
struct Mailed {
    number: usize,
}

impl EventType for Mailed {
    const TYPE: &'static str = "test.mailed.v1";
    const TOPIC: &'static str = "test";

    fn key(&self) -> String {
        String::new()
    }
}

/// A member of a group.
struct Member {
    handled: Handled,
    running: Running,
}

impl Member {
    /// Handles events of one type with an inbox, and of the other without one where `mails_twice`; gives numbers from 10 up,
    /// and parks those from 20 up; from 1,000 up it handles each once and gives it up the second time.
    fn start(mailbox: &Mailbox, group: &str, mails_twice: bool) -> Self {
        let handled = Handled::default();
        let list = handled.clone();
        let handle = Arc::new(move |context: Context, number: usize| {
            let key = String::from_utf8_lossy(context.key().unwrap_or_default()).into_owned();
            let is_again = list.push(key, number);
            match number {
                1_000.. if is_again => Err(HandlerError::permanent("it is there already")),
                10..20 => Err(HandlerError::permanent("no stock")),
                20..30 => Err(HandlerError::transient("not now")),
                _ => Ok(()),
            }
        });
        let mail = Arc::clone(&handle);
        let guarded = Router::new()
            .on(move |event: Event<Happened>, context: Context| {
                std::future::ready(handle(context, event.data.number))
            })
            .with_inbox(MemoryInbox::default());
        let outside = Router::new().on(move |event: Event<Mailed>, context: Context| {
            std::future::ready(mail(context, event.data.number))
        });
        let split = tower::service_fn(move |delivery: Delivery| {
            let record = &delivery.record;
            let event = decode(record.headers(), record.value());
            let is_mail = event.is_ok_and(|event| event.attributes.ty == Mailed::TYPE);
            let mut router = match is_mail && mails_twice {
                true => outside.clone(),
                false => guarded.clone(),
            };
            router.call(delivery)
        });
        let mut settings = ConsumerSettings::new(group, [&mailbox.source]);
        settings.commit_interval = Duration::from_millis(100);
        settings.retry.attempts_max = 1;
        // Of a group whose partitions the brokers assign they do not tell the members.
        if mails_twice {
            settings.assignment = Assignment::Broker;
        }
        settings.retry.park_delays = vec![Duration::from_secs(3_600)];
        let running = Running::start(mailbox, settings, split);
        Self { handled, running }
    }

    fn handled(&self) -> Vec<(String, usize)> {
        self.handled.entries()
    }

    async fn stop(self) {
        self.running.stop().await;
    }
}

/// An event whose id is its number, in the partition of its key.
fn event(mailbox: &Mailbox, ty: &str, key: &str, number: usize) -> OutgoingRecord {
    let id = format!("id-{number}");
    OutgoingRecord {
        partition: None,
        ..mailbox.event(ty, &id, key, number)
    }
}

/// Waits until a group has settled everything.
async fn settled(mailbox: &Mailbox, group: &str) {
    let lag = ["groups", "lag", group, "-o", "jsonl"];
    eventually("the group has settled everything", WITHIN, || async {
        let rows = mailbox.run(&lag).await.rows();
        let own: Vec<&Value> = rows
            .iter()
            .filter(|row| row["topic"] == mailbox.source)
            .collect();
        (!own.is_empty() && own.iter().all(|row| row["lag"] == 0)).then_some(())
    })
    .await;
}

fn arguments<'a>(mailbox: &'a Mailbox, more: &[&'a str]) -> Vec<&'a str> {
    let group = ["drill", "duplicates", "--group", &mailbox.group];
    let output = ["--by", "ada", "-o", "jsonl"];
    [&group[..], &output, more].concat()
}

async fn dry(mailbox: &Mailbox) -> Run {
    mailbox.run(&arguments(mailbox, &[])).await
}

async fn drill(mailbox: &Mailbox, more: &[&str]) -> Run {
    let execute = ["--execute", "--not-production"];
    let more = [&execute[..], more].concat();
    mailbox.run(&arguments(mailbox, &more)).await
}

/// Some fields of the row of a type.
fn row<const N: usize>(run: &Run, ty: &str, names: [&str; N]) -> [Value; N] {
    let rows = run.rows();
    let row = rows.iter().find(|row| row["type"] == ty);
    let row = row.unwrap_or_else(|| panic!("no {ty} in {run:?}"));
    names.map(|name| row[name].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_recognises_every_repetition_and_other_groups_see_none() {
    let Some(mailbox) = Mailbox::new(3).await else {
        return;
    };
    let other = format!("{}-other", mailbox.group);
    let member = Member::start(&mailbox, &mailbox.group, false);
    let neighbour = Member::start(&mailbox, &other, false);
    let keys = ["a", "b", "c", "d"];
    let number = |n: usize| event(&mailbox, Happened::TYPE, keys[n % 4], 100 + n);
    let ignored = event(&mailbox, "test.ignored.v1", "a", 200);
    mailbox.publish((0..40).map(number).chain([ignored])).await;
    settled(&mailbox, &mailbox.group).await;
    settled(&mailbox, &other).await;
    let handled = [member.handled(), neighbour.handled()];
    assert_eq!(handled[0].len(), 40);

    let deserted = format!("{}-deserted", mailbox.source);
    for topic in [&deserted, &retry_topic(&mailbox.group, &deserted)] {
        let created = mailbox.kafka.create_topic(topic, 1).await;
        created.expect("the topic is new");
    }
    let shown = dry(&mailbox).await.code(0);
    let left = format!("{deserted} is left out: no member");
    assert!(shown.err.contains(&left), "{}", shown.err);
    let at = format!("{} at {}", mailbox.group, mailbox.kafka.brokers());
    assert!(shown.err.contains(&at), "{}", shown.err);
    let names = ["events", "recognised", "verdict", "executed"];
    let expected = [json!(40), json!(0), json!("not-repeated"), json!(false)];
    assert_eq!(row(&shown, Happened::TYPE, names), expected);
    assert!(shown.err.contains("--execute"), "{}", shown.err);
    let refused = mailbox
        .run(&arguments(&mailbox, &["--execute"]))
        .await
        .code(2);
    assert!(refused.err.contains("--not-production"), "{}", refused.err);
    let retry = retry_topic(&mailbox.group, &mailbox.source);
    assert_eq!(mailbox.read(&retry).await.len(), 0, "nothing was written");

    let run = drill(&mailbox, &[]).await.code(0);
    let expected = [json!(40), json!(40), json!("idempotent"), json!(true)];
    assert_eq!(row(&run, Happened::TYPE, names), expected);
    let ignored = row(&run, "test.ignored.v1", ["events", "ignored", "verdict"]);
    assert_eq!(ignored, [json!(1), json!(1), json!("ignored")]);
    assert_eq!([member.handled(), neighbour.handled()], handled);
    let written = mailbox.read(&retry).await;
    let by = written
        .iter()
        .find_map(|record| header(&record.headers, "evenkeel.parked.by"));
    assert_eq!(by.as_deref(), Some("ada"));
    assert_eq!(mailbox.read(&mailbox.source).await.len(), 41);

    let last = drill(&mailbox, &["--from", "-2"]).await.code(0);
    let [events] = row(&last, Happened::TYPE, ["events"]);
    assert!(
        events.as_u64().is_some_and(|events| events <= 6),
        "{last:?}"
    );
    settled(&mailbox, &mailbox.group).await;
    member.stop().await;
    neighbour.stop().await;
    let shown = dry(&mailbox).await.code(0);
    assert!(!shown.err.contains(&left), "nobody tells: {}", shown.err);
    let gone = drill(&mailbox, &[]).await.code(1);
    assert!(gone.err.contains("no member"), "{}", gone.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_without_inbox_is_named_and_repeated_in_order() {
    let Some(mailbox) = Mailbox::new(2).await else {
        return;
    };
    let member = Member::start(&mailbox, &mailbox.group, true);
    let keys = ["a", "b", "c"];
    let mail = |n: usize| event(&mailbox, Mailed::TYPE, keys[n % 3], 100 + n);
    let happened = (0..5).map(|n| event(&mailbox, Happened::TYPE, "a", 200 + n));
    mailbox.publish((0..30).map(mail).chain(happened)).await;
    settled(&mailbox, &mailbox.group).await;
    let before = member.handled().len();
    assert_eq!(before, 35);

    let run = drill(&mailbox, &[]).await.code(3);
    let names = ["recognised", "handled_again", "verdict"];
    let bad = [json!(0), json!(30), json!("not-idempotent")];
    assert_eq!(row(&run, Mailed::TYPE, names), bad);
    let good = [json!(5), json!(0), json!("idempotent")];
    assert_eq!(row(&run, Happened::TYPE, names), good);
    assert!(run.err.contains(Mailed::TYPE), "{}", run.err);
    assert!(!run.err.contains(Happened::TYPE), "{}", run.err);
    assert!(
        run.err.contains(&format!("{}/", mailbox.source)),
        "{}",
        run.err
    );
    let repeated = member.handled().split_off(before);
    assert_eq!(repeated.len(), 30);
    for key in keys {
        let own = repeated.iter().filter(|(found, _)| found == key);
        assert!(own.map(|(_, number)| number).is_sorted(), "{repeated:?}");
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_wait_and_dead_letters_are_left_out() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let member = Member::start(&mailbox, &mailbox.group, true);
    let mail = |key, number| event(&mailbox, Mailed::TYPE, key, number);
    let records = [
        mail("a", 1),
        mail("waits", 2),
        mail("waits", 20),
        mail("waits", 3),
        mail("dies", 10),
    ];
    mailbox.publish(records).await;
    settled(&mailbox, &mailbox.group).await;
    let handled = member.handled();
    let shown = async || {
        let show = ["parked", "show", &mailbox.group, "--key", "waits"];
        mailbox.run(&show).await.code(0).out
    };
    let waiting = shown().await;

    let run = drill(&mailbox, &[]).await.code(3);
    let names = ["events", "handled_again", "key_waits", "dead_letters"];
    let expected = [json!(1), json!(1), json!(3), json!(1)];
    assert_eq!(row(&run, Mailed::TYPE, names), expected);
    let again = [handled, vec![("a".to_owned(), 1)]].concat();
    assert_eq!(member.handled(), again);
    assert_eq!(shown().await, waiting);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unanswered_repetitions_prove_nothing_and_an_interrupted_drill_says_so() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let member = Member::start(&mailbox, &mailbox.group, false);
    let happened = (0..20).map(|n| event(&mailbox, Happened::TYPE, "a", 100 + n));
    mailbox.publish(happened).await;
    settled(&mailbox, &mailbox.group).await;

    let slow = ["--execute", "--not-production", "--rate", "1"];
    let mut slow = command(&arguments(&mailbox, &slow));
    slow.env("KAFKA_BOOTSTRAP_SERVERS", mailbox.kafka.brokers());
    let slow = slow.spawn().expect("the binary starts");
    let retry = retry_topic(&mailbox.group, &mailbox.source);
    eventually("a repetition is delivered", WITHIN, || async {
        (!mailbox.read(&retry).await.is_empty()).then_some(())
    })
    .await;
    signal(&slow, "-INT").await;
    let stopped = end_of(slow).await.code(130);
    assert!(stopped.err.contains("stopped"), "{}", stopped.err);

    let order = async |what: &str| {
        let args = [
            "groups",
            what,
            &mailbox.group,
            "--why",
            "a test",
            "--by",
            "ada",
        ];
        mailbox.run(&args).await.code(0);
    };
    order("pause").await;
    let run = drill(&mailbox, &["--wait", "2s"]).await.code(5);
    let names = ["recognised", "unanswered", "verdict"];
    let expected = [json!(0), json!(20), json!("unanswered")];
    assert_eq!(row(&run, Happened::TYPE, names), expected);
    order("resume").await;
    drill(&mailbox, &[]).await.code(0);
    assert_eq!(member.handled().len(), 20);
    member.stop().await;
}

/// Stops a group from handling anything, or lets it go on.
async fn order(mailbox: &Mailbox, what: &str) {
    let why = ["--why", "a test", "--by", "ada"];
    let args = [&["groups", what, &mailbox.group][..], &why].concat();
    mailbox.run(&args).await.code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_answers_nothing_any_more_gets_nothing_more() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let member = Member::start(&mailbox, &mailbox.group, false);
    let happened = (0..200).map(|n| event(&mailbox, Happened::TYPE, &format!("{n}"), 100 + n));
    mailbox.publish(happened).await;
    settled(&mailbox, &mailbox.group).await;
    order(&mailbox, "pause").await;
    let unanswered = |run: &Run| {
        let [count] = row(run, Happened::TYPE, ["unanswered"]);
        count.as_u64().expect("a number")
    };

    let slow = drill(&mailbox, &["--rate", "5", "--wait", "2s"])
        .await
        .code(5);
    assert!((1..50).contains(&unanswered(&slow)), "{slow:?}");
    let retry = retry_topic(&mailbox.group, &mailbox.source);
    let stays = format!(
        "stay in {retry}, and are handled when {} continues",
        mailbox.group
    );
    assert!(slow.err.contains(&stays), "{}", slow.err);

    let show = ["parked", "show", &mailbox.group, "--key", "100"];
    let shown = mailbox.run(&[&show[..], &["-o", "jsonl"]].concat()).await;
    assert_eq!(shown.code(0).rows()[0]["repeated_by"], "ada");

    let fast = ["--from", "beginning", "--rate", "100000", "--wait", "4s"];
    let fast = drill(&mailbox, &fast).await.code(5);
    assert_eq!(unanswered(&fast), 80, "{fast:?}");
    order(&mailbox, "resume").await;
    drill(&mailbox, &["--from", "-2"]).await.code(0);
    assert_eq!(member.handled().len(), 200);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_repetitions_end_the_drill_before_all_are_dead_letters() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let member = Member::start(&mailbox, &mailbox.group, true);
    let mail = |n: usize| event(&mailbox, Mailed::TYPE, &format!("{n}"), 1_000 + n);
    mailbox.publish((0..200).map(mail)).await;
    settled(&mailbox, &mailbox.group).await;

    let run = drill(&mailbox, &["--from", "beginning"]).await.code(3);
    let [failed] = row(&run, Mailed::TYPE, ["failed"]);
    let failed = failed.as_u64().expect("a number");
    assert!((10..90).contains(&failed), "{run:?}");
    assert!(run.err.contains("the rest is not delivered"), "{}", run.err);
    let letters = mailbox.read(&mailbox.letters).await;
    assert_eq!(letters.len() as u64, failed);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_keyless_record_is_skipped_its_neighbours_are_not() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let member = Member::start(&mailbox, &mailbox.group, false);
    let keyless = |number| OutgoingRecord {
        key: None,
        ..event(&mailbox, Happened::TYPE, "", number)
    };
    mailbox.publish([1, 20, 2, 21].map(keyless)).await;
    settled(&mailbox, &mailbox.group).await;

    let run = drill(&mailbox, &[]).await.code(0);
    let names = ["events", "recognised", "key_waits"];
    let expected = [json!(2), json!(2), json!(2)];
    assert_eq!(row(&run, Happened::TYPE, names), expected);
    assert_eq!(member.handled().len(), 4);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_is_refused_without_access_to_dead_letters() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let named = arguments(&mailbox, &["--dead-letter-topic", "letters-of-nobody"]);
    let group = format!("{}-fresh", mailbox.group);
    let retry = retry_topic(&group, &mailbox.source);
    let own = retry_topic(&mailbox.group, &mailbox.source);
    for topic in [&retry, &own] {
        let created = mailbox.kafka.create_topic(topic, 1).await;
        created.expect("the topic is new");
    }
    let refused = mailbox.run(&named).await.code(1);
    assert!(refused.err.contains("letters-of-nobody"), "{}", refused.err);
    assert!(
        refused.err.contains("--dead-letter-topic"),
        "{}",
        refused.err
    );

    let without = ["drill", "duplicates", "--group", &group];
    let shown = mailbox.run(&without).await.code(0);
    let absent = format!("there is no dlq.{group}.{}", mailbox.source);
    assert!(shown.err.contains(&absent), "{}", shown.err);
    let shown = dry(&mailbox).await.code(0);
    assert!(!shown.err.contains("there is no"), "{}", shown.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn negative_from_counts_back_from_the_last_settled_records() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let member = Member::start(&mailbox, &mailbox.group, false);
    let happened = |n: usize| event(&mailbox, Happened::TYPE, "a", 100 + n);
    mailbox.publish((0..20).map(happened)).await;
    settled(&mailbox, &mailbox.group).await;
    member.stop().await;
    mailbox.publish((20..50).map(happened)).await;

    let check = async |more: &[&str], expected: u64| {
        let shown = mailbox.run(&arguments(&mailbox, more)).await.code(0);
        let [events] = row(&shown, Happened::TYPE, ["events"]);
        assert_eq!(events, json!(expected), "{more:?}");
    };
    check(&["--from", "-5"], 5).await;
    check(&["--from", "-100"], 20).await;
    check(&["--from", "-5", "--to", "-2"], 3).await;
}

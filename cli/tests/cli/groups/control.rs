//! Live control: real members of a group in this process, commanded by the real binary.

use crate::support::member::{Handled, Member, settings};
use crate::support::tool::run_on;
use evenkeel::control::{MemberInfo, control_topic, control_topic_config};
use evenkeel::event::{Headers, OutgoingRecord, Record};
use evenkeel::handler::Router;
use evenkeel::kafka::admin::{Admin, NewTopic};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::{Finished, TestKafka, eventually, real_kafka, unique};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for an expected state.
const WITHIN: Duration = Duration::from_secs(30);

/// A topic that a group reads.
struct Shop {
    kafka: &'static TestKafka,
    group: String,
    topic: String,
}

impl Shop {
    /// None where there is no Apache Kafka.
    async fn new(partitions: i32) -> Option<Self> {
        let kafka = real_kafka().await?;
        let (group, topic) = (unique("payments"), unique("orders"));
        let created = kafka.create_topic(&topic, partitions).await;
        created.expect("the topic is new");
        Some(Self {
            kafka,
            group,
            topic,
        })
    }

    /// A member that handles everything at once.
    fn member(&self) -> Member {
        let settings = settings(&self.group, &self.topic);
        let router = Router::new().raw(async |_: Record| ());
        Member::start(self.kafka, settings, router, &Handled::default())
    }

    /// Publishes that many records to a partition.
    async fn publish(&self, partition: i32, records: usize) {
        let settings = PublisherSettings::new("/test");
        let publisher = Publisher::new(&self.kafka.config(), settings)
            .expect("the settings of the publisher are valid");
        for number in 0..records {
            let record = OutgoingRecord {
                topic: self.topic.clone(),
                partition: Some(partition),
                key: Some(number.to_string().into()),
                value: Some("{}".into()),
                headers: Headers::new(),
                timestamp_ms: None,
            };
            publisher
                .publish_record(record)
                .await
                .expect("the brokers acknowledge the record");
        }
    }

    /// Runs `groups COMMAND GROUP`.
    async fn groups(&self, command: &str, more: &[&str]) -> Finished {
        let mut args = vec!["groups", command, &self.group];
        args.extend(more);
        run_on(self.kafka, &args, "").await
    }

    /// The same for a command that changes something, with JSON lines as output.
    async fn order(&self, command: &str, more: &[&str]) -> Finished {
        let mut args = more.to_vec();
        args.extend(["--why", "a bad deploy", "--by", "ada", "-o", "jsonl"]);
        self.groups(command, &args).await
    }

    async fn described(&self) -> Value {
        let described = self.groups("describe", &["-o", "jsonl"]).await.code(0);
        described.rows().remove(0)
    }

    /// Waits until all partitions are assigned.
    async fn assigned(&self, partitions: usize) {
        eventually("all partitions are assigned", WITHIN, || async {
            let run = self.groups("describe", &["-o", "jsonl"]).await;
            let rows = (run.code == Some(0)).then(|| run.rows())?;
            let members = rows[0]["members"].as_array()?;
            let of = |member: &Value| {
                member["assignment"].as_object().map(|topics| {
                    topics
                        .values()
                        .filter_map(|list| Some(list.as_array()?.len()))
                        .sum::<usize>()
                })
            };
            (members.iter().filter_map(of).sum::<usize>() == partitions).then_some(())
        })
        .await;
    }
}

impl Shop {
    /// Writes for a member which process it is.
    async fn say_who_is(&self, member: &str) {
        let mut info = MemberInfo::new(member, "payments");
        info.host = "vm-7".to_owned();
        info.pid = 4711;
        info.admin = Some("127.0.0.1:9101".to_owned());
        let publisher = Publisher::new(&self.kafka.config(), PublisherSettings::new("/test"));
        let record = OutgoingRecord {
            topic: control_topic(&self.group),
            partition: Some(0),
            key: Some(info.key().into()),
            value: Some(info.value().expect("it can be written as JSON").into()),
            headers: Headers::new(),
            timestamp_ms: None,
        };
        let publisher = publisher.expect("a publisher");
        publisher
            .publish_record(record)
            .await
            .expect("the brokers acknowledge the record");
    }
}

/// Each member says which process it is, and takes that back when it stops.
#[tokio::test(flavor = "multi_thread")]
async fn the_processes_behind_members_are_shown_until_they_stop() {
    let Some(shop) = Shop::new(2).await else {
        return;
    };
    let (one, other) = (shop.member(), shop.member());
    let processes = async || {
        let run = shop.groups("members", &["-o", "jsonl"]).await;
        let rows = (run.code == Some(0)).then(|| run.rows())?;
        let known = rows.iter().filter(|row| row["process"].is_object());
        Some(known.cloned().collect::<Vec<Value>>())
    };
    let known = eventually("both say who they are", WITHIN, || async {
        processes().await.filter(|known| known.len() == 2)
    })
    .await;
    for row in known {
        let process = &row["process"];
        assert_eq!(process["member"], row["member_id"], "{row}");
        assert_eq!(process["pid"], std::process::id(), "{row}");
        assert_ne!(process["host"], "", "{row}");
    }
    let described = shop.described().await;
    assert_eq!(described["processes"].as_array().map(Vec::len), Some(2));
    other.stop().await;
    eventually("one is left, and only it is known", WITHIN, || async {
        let known = processes().await?;
        let entries = shop.described().await["processes"].as_array()?.len();
        (known.len() == 1 && entries == 1).then_some(())
    })
    .await;
    one.stop().await;
}

fn outcomes(run: &Finished) -> Vec<String> {
    let outcome = |row: &Value| row["outcome"].as_str().unwrap_or_default().to_owned();
    run.rows().iter().map(outcome).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_group_obeys_commands_and_its_history_shows_them() {
    let Some(shop) = Shop::new(4).await else {
        return;
    };
    let members = [shop.member(), shop.member()];
    shop.assigned(4).await;
    let partition = ["--topic", &shop.topic, "--partition", "1"];

    let paused = shop.order("pause", &partition).await.code(0);
    assert_eq!(outcomes(&paused), ["applied"]);
    let row = &paused.rows()[0];
    let of_topic = serde_json::json!([{"topic": shop.topic, "partitions": [1]}]);
    assert_eq!(row["partitions"], of_topic);
    let names = ["at", "command", "detail", "member", "outcome", "partitions"];
    assert!(
        row.as_object().expect("an object").keys().eq(names),
        "{row}"
    );
    assert!(
        row["member"]
            .as_str()
            .is_some_and(|member| !member.is_empty()),
        "{row}"
    );
    let described = shop.described().await;
    let pause = &described["paused"][0];
    assert_eq!(
        (&pause["scope"], &pause["topic"], &pause["partition"]),
        (&"partition".into(), &shop.topic.as_str().into(), &1.into())
    );
    assert_eq!(pause["by"], "ada");
    let list = run_on(shop.kafka, &["groups", "list", "-o", "jsonl"], "").await;
    let rows = list.code(0).rows();
    let listed = rows.iter().find(|row| row["group"] == shop.group.as_str());
    assert_eq!(listed.expect("it is listed")["paused"][0], *pause);
    let list = run_on(shop.kafka, &["groups", "list", "--check"], "")
        .await
        .code(3);
    let told = format!("{}/1 is paused since", shop.topic);
    assert!(list.stderr.contains(&told), "{}", list.stderr);
    let lag = shop.groups("lag", &[]).await.code(0).stdout;
    assert_eq!(lag.matches("by ada: a bad deploy").count(), 1, "{lag}");
    for command in ["describe", "lag"] {
        let checked = shop.groups(command, &["--check"]).await.code(3);
        assert!(checked.stderr.contains(&told), "{}", checked.stderr);
    }
    let table = shop.groups("describe", &[]).await.code(0).stdout;
    assert_eq!(table.matches("by ada: a bad deploy").count(), 1, "{table}");

    shop.publish(1, 3).await;
    let record = format!("{}/1@1", shop.topic);
    let asked = Instant::now();
    let skip = shop
        .order("skip", &["--record", &record, "--wait", "20s"])
        .await
        .code(0);
    assert_eq!(outcomes(&skip), ["pending"], "{skip:?}");
    assert!(
        asked.elapsed() < Duration::from_secs(15),
        "it does not wait for the resume"
    );

    let resumed = shop.order("resume", &partition).await.code(0);
    assert_eq!(outcomes(&resumed), ["applied"]);
    let rate = shop.order("rate", &["50"]).await.code(0);
    assert_eq!(outcomes(&rate), ["applied"; 2]);
    let described = shop.groups("describe", &["-o", "jsonl"]).await.code(0);
    assert_eq!(described.rows()[0]["rate"]["records_per_second"], 50);
    assert!(
        described.stderr.contains("50 records per second"),
        "{}",
        described.stderr
    );
    shop.order("rate", &["off"]).await.code(0);
    let retried = shop
        .order("retry-now", &["--topic", &shop.topic])
        .await
        .code(0);
    assert_eq!(outcomes(&retried), ["applied"; 2]);

    let history = eventually("the history has the skip's end", WITHIN, || async {
        let rows = shop
            .groups("history", &["-o", "jsonl"])
            .await
            .code(0)
            .rows();
        let acks = rows[1]["acknowledgements"].as_array()?;
        (acks.len() == 2).then_some(rows)
    })
    .await;
    let given: Vec<&str> = history
        .iter()
        .filter_map(|row| row["action"].as_str())
        .collect();
    assert_eq!(
        given,
        ["pause", "skip", "resume", "rate", "rate", "retry-now"]
    );
    assert_eq!(history[1]["acknowledgements"][1]["outcome"], "skipped");
    assert_eq!(
        (&history[0]["by"], &history[0]["why"]),
        (&"ada".into(), &"a bad deploy".into())
    );
    let later = shop
        .groups(
            "history",
            &["--since", "2100-01-01T00:00:00Z", "-o", "jsonl"],
        )
        .await;
    assert!(later.code(0).rows().is_empty());
    let table = shop.groups("history", &[]).await.code(0).stdout;
    assert!(
        table.contains(&format!("skip the record {record}")),
        "{table}"
    );
    assert_eq!(
        table.matches("a bad deploy").count(),
        6,
        "each command once: {table}"
    );

    let letters = run_on(
        shop.kafka,
        &["dlq", "list", "--group", &shop.group, "-o", "jsonl"],
        "",
    )
    .await;
    let letters = letters.code(0).rows();
    assert_eq!(
        (&letters[0]["stage"], &letters[0]["count"]),
        (&"skipped".into(), &1.into())
    );
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_commands_are_refused_and_not_written() {
    let Some(shop) = Shop::new(1).await else {
        return;
    };
    let no_topic = shop.order("pause", &[]).await.code(1);
    assert!(
        no_topic.stderr.contains("there is no group"),
        "{}",
        no_topic.stderr
    );
    shop.groups("history", &[]).await.code(1);
    let member = shop.member();
    shop.assigned(1).await;
    let check = async |command: &str, more: &[&str], expected: &str| {
        let run = shop.order(command, more).await.code(1);
        assert!(run.stderr.contains(expected), "{}", run.stderr);
    };
    check("pause", &["--topic", "no-such-topic"], &shop.topic).await;
    check(
        "pause",
        &["--topic", &shop.topic, "--partition", "9"],
        "no partition 9",
    )
    .await;
    let record = format!("{}/0@7", shop.topic);
    check("skip", &["--record", &record], "there is no record").await;
    check("resume", &[], "nothing is paused").await;
    member.stop().await;

    check("retry-now", &[], "no member").await;
    let kept = shop.order("pause", &[]).await.code(0);
    assert!(
        kept.stderr.contains("applies to members that start"),
        "{}",
        kept.stderr
    );
    check(
        "resume",
        &["--topic", &shop.topic],
        "paused is the whole group",
    )
    .await;
    let history = shop
        .groups("history", &["-o", "jsonl"])
        .await
        .code(0)
        .rows();
    assert_eq!(history.len(), 1, "{history:?}");
    let member = shop.member();
    eventually("a new member answers for what it found", WITHIN, || async {
        let history = shop.groups("history", &["-o", "jsonl"]).await.rows();
        (history[0]["acknowledgements"].as_array()?.len() == 1).then_some(())
    })
    .await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_command_is_reported_by_the_exit_code() {
    let Some(shop) = Shop::new(1).await else {
        return;
    };
    let admin = Admin::connect(&shop.kafka.config(), WITHIN)
        .await
        .expect("the admin client connects");
    let topic = NewTopic::new(control_topic(&shop.group))
        .with_partitions(1)
        .with_replication(1)
        .with_config(control_topic_config());
    admin
        .create_topics(&[topic])
        .await
        .expect("the broker creates the topic");
    // A member that knows nothing of commands.
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", shop.kafka.brokers())
        .set("group.id", &shop.group)
        .create()
        .expect("a consumer");
    client
        .subscribe(&[&shop.topic])
        .expect("the client subscribes");
    let over = Arc::new(AtomicBool::new(false));
    let polling = {
        let over = Arc::clone(&over);
        tokio::task::spawn_blocking(move || {
            while !over.load(Ordering::Relaxed) {
                let _ = client.poll(Duration::from_millis(50));
            }
        })
    };
    shop.assigned(1).await;
    let id = shop.described().await["members"][0]["member_id"].clone();
    let id = id.as_str().expect("a member's id");
    shop.say_who_is(id).await;
    let run = shop.order("pause", &["--wait", "1s"]).await.code(5);
    let expected = format!(
        "no answer from {id} (host vm-7, pid 4711, admin 127.0.0.1:9101) for {}/0 ",
        shop.topic
    );
    assert!(run.stderr.contains(&expected), "{}", run.stderr);
    assert!(run.stderr.contains("groups history"), "{}", run.stderr);
    over.store(true, Ordering::Relaxed);
    polling.await.expect("the task does not panic");
}

//! Commands without the needed ACLs name the missing right. They never report an empty cluster, and
//! never that all is well.

use crate::groups::commit;
use crate::support::tool::run;
use evenkeel::testing::{Finished, Listener, SecuredKafka, secured_kafka, unique};
use serde_json::json;

/// A command of a user.
async fn run_as(kafka: &SecuredKafka, user: &str, args: &[&str]) -> Finished {
    let address = kafka.address(Listener::Sasl);
    let login = SecuredKafka::login(user);
    let mut args = args.to_vec();
    args.extend(["-b", &address]);
    for property in &login {
        args.extend(["-X", property]);
    }
    run(&args).await
}

/// A topic, and a group that has committed to it.
async fn topic_and_group(kafka: &SecuredKafka, name: &str) -> (String, String) {
    let (topic, group) = (unique(name), unique(&format!("{name}-group")));
    let created = kafka.cluster().create_topic(&topic, 2).await;
    created.expect("the topic is new");
    commit(kafka.cluster(), &group, &topic, 0).await;
    (topic, group)
}

#[tokio::test]
async fn without_permissions_every_list_reports_the_missing_acl() {
    let Some(kafka) = secured_kafka().await else {
        return;
    };
    let (topic, group) = topic_and_group(kafka, "hidden").await;
    let check = async |args: &[&str], says: &[&str]| {
        let run = run_as(kafka, "nobody", args).await.code(1);
        for says in says {
            assert!(run.stderr.contains(says), "{args:?}: {}", run.stderr);
        }
        for never in ["does not exist", "create it with", "there is no group"] {
            assert!(!run.stderr.contains(never), "{args:?}: {}", run.stderr);
        }
    };
    let no_topic = ["visible to User:nobody", "an ACL for DESCRIBE on topics"];
    check(&["topics", "list"], &no_topic).await;
    check(
        &["dlq", "list"],
        &["begins with dlq. is visible to User:nobody"],
    )
    .await;
    check(&["dlq", "list", "-g", &group], &["visible to User:nobody"]).await;
    check(&["parked", "list", &group], &["visible to User:nobody"]).await;
    let no_group = ["visible to User:nobody", "DESCRIBE on groups"];
    check(&["groups", "list"], &no_group).await;
    check(&["groups", "lag"], &no_group).await;
    check(&["groups", "lag", "--max-age", "5m"], &no_group).await;
    let of_group = format!("DESCRIBE on the group {group}");
    check(&["groups", "lag", &group], &[&of_group]).await;
    check(&["groups", "describe", &group], &[&of_group]).await;
    let of_topic = format!("DESCRIBE on the topic {topic}");
    check(&["topics", "describe", &topic], &[&of_topic]).await;
    check(&["consume", &topic, "-e"], &[&of_topic]).await;
    let data = ["-d", "order_id=o-1", "-d", "reason=r"];
    let publish = ["publish", "shop.order-cancelled.v1", "-t", &topic];
    check(&[&publish[..], &data].concat(), &[&of_topic]).await;
    check(&["topics", "create", "mine"], &["CREATE on the topic mine"]).await;
    check(&["groups", "pause", &group, "--why", "w"], &["DESCRIBE on"]).await;

    let all = run_as(kafka, "admin", &["topics", "list"]).await.code(0);
    assert!(
        all.stdout.contains(&topic) && all.stderr.is_empty(),
        "{all:?}"
    );
    run_as(kafka, "admin", &["dlq", "list"]).await.code(0);
}

#[tokio::test]
async fn partial_permissions_list_some_and_say_others_are_left_out() {
    let Some(kafka) = secured_kafka().await else {
        return;
    };
    let (topic, group) = topic_and_group(kafka, "seen").await;
    let (_, unseen) = topic_and_group(kafka, "unseen").await;
    let (of_topic, of_group) = (
        format!("DESCRIBE TOPIC {topic}"),
        format!("DESCRIBE GROUP {group}"),
    );
    let (of_unseen, of_dead) = (format!("DESCRIBE GROUP {unseen}"), "DESCRIBE TOPIC dlq.*");
    let rights = [of_topic.as_str(), &of_group, &of_unseen, of_dead];
    kafka
        .grant("reader", &rights)
        .await
        .expect("the permission is granted");

    let topics = run_as(kafka, "reader", &["topics", "list", "-o", "jsonl"])
        .await
        .code(0);
    assert!(
        topics.stdout.contains(&topic) && !topics.stdout.contains(&unseen),
        "{topics:?}"
    );
    assert!(topics.stderr.contains("left out"), "{}", topics.stderr);
    let groups = run_as(kafka, "reader", &["groups", "list"]).await.code(0);
    assert!(
        groups.stdout.contains(&group) && groups.stderr.contains("left out"),
        "{groups:?}"
    );
    // None is there, and one would be seen.
    run_as(kafka, "reader", &["dlq", "list"]).await.code(0);
    let typo = run_as(kafka, "reader", &["groups", "describe", &group[1..]])
        .await
        .code(1);
    assert!(
        typo.stderr.contains("DESCRIBE on the group"),
        "{}",
        typo.stderr
    );

    // Of the group whose topic is hidden nobody can say how far it is.
    let lag = run_as(kafka, "reader", &["groups", "lag", &group])
        .await
        .code(0);
    assert!(lag.stdout.contains(&topic), "{lag:?}");
    let hidden = run_as(kafka, "reader", &["groups", "lag", &unseen])
        .await
        .code(1);
    assert!(
        hidden.stderr.contains(&format!(
            "no topic that {unseen} has committed to is visible to User:reader"
        )),
        "{}",
        hidden.stderr
    );
    let all = run_as(kafka, "reader", &["groups", "lag"]).await.code(1);
    assert!(
        all.stdout.contains(&topic) && all.stderr.contains(&unseen),
        "{all:?}"
    );
}

#[tokio::test]
async fn settings_that_may_not_be_seen_are_no_drift() {
    let Some(kafka) = secured_kafka().await else {
        return;
    };
    let (topic, _) = topic_and_group(kafka, "declared").await;
    let right = format!("DESCRIBE TOPIC {topic}");
    kafka
        .grant("writer", &[&right])
        .await
        .expect("the permission is granted");
    let needed = format!("DESCRIBE_CONFIGS on the topic {topic}");

    let described = run_as(kafka, "writer", &["topics", "describe", &topic])
        .await
        .code(1);
    assert!(
        described.stdout.contains(&topic) && described.stderr.contains(&needed),
        "{described:?}"
    );
    let file = tempfile::NamedTempFile::new().expect("a file for the test");
    let declaration = json!({
        "name": topic, "partitions": 2, "retention_ms": 604_800_000, "key": "id",
        "producers": [], "consumers": [], "events": [],
    });
    std::fs::write(file.path(), declaration.to_string()).expect("the file is written");
    let path = file.path().to_string_lossy();
    let apply = ["topics", "apply", "--file", &path, "-o", "jsonl"];
    let applied = run_as(kafka, "writer", &apply).await.code(1);
    let row = &applied.rows()[0];
    assert_eq!(row["action"], "hidden", "{row}");
    assert!(
        row["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains(&needed)),
        "{row}"
    );
}

#[tokio::test]
async fn an_unknown_name_gets_a_suggestion() {
    let Some(kafka) = secured_kafka().await else {
        return;
    };
    let (topic, group) = topic_and_group(kafka, "meant").await;
    let slip = topic.replacen("meant", "maent", 1);
    let check = async |args: &[&str], says: &[&str], never: &[&str]| {
        let run = run_as(kafka, "admin", args).await.code(1);
        for says in says {
            assert!(run.stderr.contains(says), "{args:?}: {}", run.stderr);
        }
        for never in never {
            assert!(!run.stderr.contains(never), "{args:?}: {}", run.stderr);
        }
    };
    let meant = format!("did you mean {topic}?");
    let meant_group = format!("did you mean {group}?");
    let slip_of_group = group.replacen("meant", "maent", 1);
    check(&["consume", &slip, "-e"], &[&meant], &["create it with"]).await;
    check(
        &["topics", "describe", &slip],
        &[&meant],
        &["create it with"],
    )
    .await;
    check(
        &["groups", "lag", &group, "-t", &slip],
        &[&meant],
        &["create it with"],
    )
    .await;
    check(&["dlq", "list", &slip], &[&meant], &["create it with"]).await;
    check(
        &["consume", "meant.*", "-e"],
        &["patterns are not understood"],
        &["create it with"],
    )
    .await;
    let data = ["-d", "order_id=o-1", "-d", "reason=r"];
    let publish = ["publish", "shop.order-cancelled.v1", "-t", &slip];
    check(
        &[&publish[..], &data].concat(),
        &[&meant, "create it with"],
        &[],
    )
    .await;
    check(
        &["groups", "describe", &slip_of_group],
        &[&meant_group],
        &[],
    )
    .await;
    check(&["groups", "lag", &slip_of_group], &[&meant_group], &[]).await;
    check(
        &["groups", "pause", &slip_of_group, "--why", "w"],
        &[&meant_group],
        &[],
    )
    .await;
    check(&["groups", "history", &slip_of_group], &[&meant_group], &[]).await;
    check(&["parked", "list", &slip_of_group], &[&meant_group], &[]).await;
    check(&["dlq", "list", "-g", &slip_of_group], &[&meant_group], &[]).await;
    check(
        &["consume", "parcels", "-e"],
        &["evenkeel topics list"],
        &["did you mean"],
    )
    .await;
}

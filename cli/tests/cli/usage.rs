//! Exit codes, configuration, completions and schemas: commands that need no cluster.

use crate::support::tool::{command, run, run_command};
use std::time::{Duration, Instant};

const TYPE: &str = "shop.order-cancelled.v1";

/// A port where nothing listens.
fn closed_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").to_string()
}

#[tokio::test]
async fn unreachable_brokers_are_named_within_seconds() {
    let address = closed_port();
    let check = async |args: &[&str]| {
        let mut args = args.to_vec();
        args.extend(["-b", &address, "--timeout", "2s"]);
        let started = Instant::now();
        let run = run(&args).await.code(4);
        assert!(run.stderr.contains(&address), "{}", run.stderr);
        assert!(started.elapsed() < Duration::from_secs(10));
    };
    check(&["consume", "t", "-e"]).await;
    check(&["publish", TYPE, "-d", "order_id=o-1", "-d", "reason=r"]).await;
    check(&["topics", "list"]).await;
    check(&["groups", "lag"]).await;
    check(&["groups", "pause", "g", "--why", "w"]).await;
    check(&["dlq", "list"]).await;
}

#[tokio::test]
async fn wrong_usage_has_its_own_exit_code() {
    let check = async |args: &[&str], expected: &str| {
        let run = run(args).await.code(2);
        assert!(run.stderr.contains(expected), "{}", run.stderr);
    };
    check(&[], "Usage").await;
    check(&["consume", "t", "-f", "%q"], "%q").await;
    check(
        &["consume", "t", "-o", "-1", "-o", "5"],
        "--from is given twice",
    )
    .await;
    check(&["consume", "t", "-o", "stored"], "without a group").await;
    check(&["consume", "t", "--filter", "colour=red"], "colour").await;
    check(&["topics", "list", "--timeout", "soon"], "10s").await;
    check(
        &["topics", "list", "-X", "no.such.property=1"],
        "no.such.property",
    )
    .await;
    check(&["topics", "list", "-b", ""], "brokers").await;
    check(&["dlq", "show", "dlq.g.t/0"], "TOPIC/PARTITION@OFFSET").await;
    check(&["dlq", "replay"], "--group").await;
    check(&["dlq", "replay", "dlq.g.t", "--to", "a b"], "a b").await;
    check(&["dlq", "purge", "dlq.g.t"], "--before").await;
    check(&["dlq", "purge", "--all-replayed"], "--group").await;
    check(&["groups", "pause", "g"], "--why").await;
    check(&["groups", "pause", "g", "--why", " "], "reason").await;
    let of_partition = ["groups", "resume", "g", "--partition", "1", "--why", "w"];
    check(&of_partition, "--topic").await;
    let of_key = [
        "groups", "pause", "g", "--topic", "t", "--key", "k", "--why", "w",
    ];
    check(&of_key, "key").await;
    let of_position = ["groups", "skip", "g", "--record", "t/0", "--why", "w"];
    check(&of_position, "TOPIC/PARTITION@OFFSET").await;
    check(&["groups", "rate", "g", "0", "--why", "w"], "off").await;
}

#[tokio::test]
async fn a_secret_is_not_repeated_in_an_error() {
    let args = [
        "topics",
        "list",
        "-X",
        "ssl.key.password=swordfish",
        "-X",
        "nonsense=1",
    ];
    let run = run(&args).await.code(2);
    assert!(!run.stderr.contains("swordfish"), "{}", run.stderr);
}

#[tokio::test]
async fn flags_override_the_environment_and_it_overrides_the_file() {
    let [file, env, flag] = [closed_port(), closed_port(), closed_port()];
    let dir = tempfile::tempdir().expect("a temporary folder is created");
    let path = dir.path().join("evenkeel.toml");
    std::fs::write(&path, format!("[kafka]\nbootstrap.servers = \"{file}\"\n"))
        .expect("the file is written");
    let attempt = async |in_env: bool, args: &[&str]| {
        let mut command = command(&["topics", "list", "--timeout", "1s"]);
        command.env("EVENKEEL_CONFIG", &path).args(args);
        if in_env {
            command.env("KAFKA_BROKERS", &env);
        }
        run_command(command, "").await.code(4).stderr
    };
    assert!(attempt(false, &[]).await.contains(&file));
    assert!(attempt(true, &[]).await.contains(&env));
    assert!(attempt(true, &["-b", &flag]).await.contains(&flag));
}

#[tokio::test]
async fn an_unreadable_configuration_is_named() {
    let run = run(&["topics", "list", "--config", "/no/such/file.toml"]).await;
    assert!(run.code(2).stderr.contains("/no/such/file.toml"));
}

#[tokio::test]
async fn payloads_are_checked_one_by_one() {
    let payloads = "{\"order_id\":\"o-1\",\"reason\":\"r\"}\n{\"order_id\":\"o-1\"}";
    let args = ["schemas", "check", TYPE, "--output", "jsonl"];
    let run = run_command(command(&args), payloads).await.code(3);
    let rows = run.rows();
    assert_eq!(rows[0]["valid"], true);
    assert_eq!(rows[1]["valid"], false);
    assert!(
        rows[1]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("required")),
        "{rows:?}"
    );
    let valid = run_command(command(&args), "{\"order_id\":\"o-1\",\"reason\":\"r\"}").await;
    valid.code(0);
}

#[tokio::test]
async fn schema_files_are_checked_and_shown() {
    let dir = tempfile::tempdir().expect("a temporary folder is created");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("the file is written");
        path.to_string_lossy().into_owned()
    };
    let good = write("a.v1.schema.json", r#"{"type": "object"}"#);
    let bad = write("b.v1.schema.json", r#"{"type": "no such type"}"#);
    run(&["schemas", "check", &good]).await.code(0);
    let both = run(&["schemas", "check", &good, &bad, "--output", "jsonl"]).await;
    assert_eq!(both.code(3).rows()[1]["valid"], false);
    run(&["schemas", "check", "no-such-file-or-type"])
        .await
        .code(2);

    std::fs::remove_file(bad).expect("the file is removed");
    let folder = dir.path().to_string_lossy();
    let listed = run(&["schemas", "list", "--schemas", &folder, "--output", "jsonl"]).await;
    assert_eq!(listed.code(0).rows()[0]["type"], "a.v1");
    let shown = run(&["schemas", "show", "a.v1", "--schemas", &folder]).await;
    assert!(shown.code(0).stdout.contains("\"object\""));
}

#[tokio::test]
async fn shells_and_manuals_know_every_command() {
    let bash = run(&["completions", "bash"]).await.code(0).stdout;
    let man = run(&["man"]).await.code(0).stdout;
    for name in [
        "publish", "consume", "topics", "groups", "dlq", "schemas", "dev",
    ] {
        assert!(bash.contains(name) && man.contains(name), "{name}");
    }
    let dir = tempfile::tempdir().expect("a temporary folder is created");
    let folder = dir.path().to_string_lossy();
    run(&["man", "--dir", &folder]).await.code(0);
    assert!(dir.path().join("evenkeel-topics-apply.1").exists());
}

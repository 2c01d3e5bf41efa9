//! Tests of precedence and rejected values. They set no variables: a test must not change its
//! process's environment.

use super::*;
use clap::Parser;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    options: Options,
}

fn settings(service: &str, arguments: &[&str]) -> Result<Settings, ConfigError> {
    let arguments = std::iter::once("daemon").chain(arguments.iter().copied());
    Command::try_parse_from(arguments)
        .expect("the flags are known")
        .options
        .settings(service)
}

fn config(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn a_service_reads_the_topics_that_declare_it() {
    for (service, topics) in [
        ("payments", &["shop.orders"][..]),
        (
            "inventory",
            &["shop.deliveries", "shop.orders", "shop.payments"],
        ),
        ("shipping", &["shop.orders", "shop.payments", "shop.stock"]),
        (
            "orderboard",
            &[
                "shop.orders",
                "shop.payments",
                "shop.shipments",
                "shop.stock",
            ],
        ),
    ] {
        let settings = settings(service, &[]).unwrap();
        assert_eq!(settings.consumer.topics, topics, "{service}");
        assert_eq!(settings.consumer.group, service);
    }
}

#[test]
fn flags_override_the_file_and_it_overrides_defaults() {
    let (_dir, path) = config(
        "store = \"file.db\"\ndurability = \"process-crash\"\nconcurrency = 7\ndrain_timeout = \"3s\"\ninbox_retention = \"60d\"\nvalidate = false\n\
         [kafka]\n\"session.timeout.ms\" = \"9000\"",
    );
    let default = settings("payments", &[]).unwrap();
    assert_eq!(default.store, PathBuf::from("payments.db"));
    assert_eq!(default.inbox_retention, inbox_purge::RETENTION_DEFAULT);
    assert_eq!(default.durability, Durability::PowerLoss);
    assert!(default.validate);
    let file = settings("payments", &["--config", &path]).unwrap();
    assert_eq!(file.store, PathBuf::from("file.db"));
    assert_eq!(file.consumer.concurrency, 7);
    assert_eq!(file.consumer.drain_timeout, Duration::from_secs(3));
    assert_eq!(file.inbox_retention, Duration::from_hours(60 * 24));
    assert_eq!(file.kafka.properties["session.timeout.ms"], "9000");
    assert_eq!(file.durability, Durability::ProcessCrash);
    assert!(!file.validate);
    let flags = [
        "--config",
        &path,
        "--store",
        "flag.db",
        "--durability",
        "power-loss",
        "--concurrency",
        "9",
        "--inbox-retention",
        "12w 12h",
        "-b",
        "kafka:9092",
        "-X",
        "session.timeout.ms=8000",
    ];
    let flag = settings("payments", &flags).unwrap();
    assert_eq!(flag.store, PathBuf::from("flag.db"));
    assert_eq!(flag.durability, Durability::PowerLoss);
    assert_eq!(flag.consumer.concurrency, 9);
    assert_eq!(flag.inbox_retention, Duration::from_hours(12 * 7 * 24 + 12));
    assert_eq!(flag.kafka.brokers, "kafka:9092");
    assert_eq!(flag.kafka.properties["session.timeout.ms"], "8000");
}

#[test]
fn a_bounded_run_ends_at_the_end_or_when_idle() {
    let bound = |arguments: &[&str]| settings("payments", arguments).unwrap().consumer.stop_when;
    assert_eq!(bound(&[]), StopWhen::Endless);
    assert_eq!(bound(&["--until-end"]), StopWhen::UntilEnd);
    assert_eq!(
        bound(&["--idle", "500ms"]),
        StopWhen::Idle(Duration::from_millis(500))
    );
    assert!(Command::try_parse_from(["daemon", "--until-end", "--idle", "1s"]).is_err());
}

#[test]
fn unusable_options_are_refused_by_name() {
    let (_dir, path) = config("drain_timeout = \"soon\"");
    let (_other, retention) = config("inbox_retention = \"for ever\"");
    for (arguments, expected) in [
        (&["--config", path.as_str()][..], "drain_timeout"),
        (&["--config", retention.as_str()], "inbox_retention"),
        (&["-X", "no-such.property=1"], "no-such.property"),
        (&["-X", "session.timeout.ms"], "session.timeout.ms"),
        (&["--config", "/no/such/file.toml"], "/no/such/file.toml"),
    ] {
        let message = settings("payments", arguments).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    for wrong in [
        ["--concurrency", "0"],
        ["--idle", "-5s"],
        ["--drain-timeout", "5 apples"],
        ["--inbox-retention", "1 month"],
    ] {
        assert!(
            Command::try_parse_from(["daemon", wrong[0], wrong[1]]).is_err(),
            "{wrong:?}"
        );
    }
}

#[test]
fn a_flag_or_the_file_selects_the_group_protocol() {
    let check = |arguments: &[&str], expected| {
        let settings = settings("payments", arguments).unwrap();
        assert_eq!(settings.consumer.assignment, expected, "{arguments:?}");
    };
    let (_dir, path) = config("group_protocol = \"consumer\"");
    check(&[], Assignment::CooperativeSticky);
    check(&["--group-protocol", "consumer"], Assignment::Broker);
    check(&["--config", &path], Assignment::Broker);
    check(
        &["--config", &path, "--group-protocol", "classic"],
        Assignment::CooperativeSticky,
    );
}

/// Given by the command line or by the file.
#[test]
fn an_admin_port_alone_binds_to_localhost() {
    let (_dir, path) = config("admin = \"9464\"");
    let file = settings("payments", &["--config", &path]).unwrap();
    assert_eq!(file.admin, Some(([127, 0, 0, 1], 9464).into()));
    let flag = settings("payments", &["--admin", ":9100"]).unwrap();
    assert_eq!(flag.admin, Some(([127, 0, 0, 1], 9100).into()));
    let wide = settings("payments", &["--admin", "0.0.0.0:9100"]).unwrap();
    assert_eq!(wide.admin, Some(([0, 0, 0, 0], 9100).into()));
    let (_dir, path) = config("admin = \"here\"");
    let refused = settings("payments", &["--config", &path]).unwrap_err();
    assert!(refused.to_string().contains("write a port"), "{refused}");
}

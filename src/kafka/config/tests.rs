//! Settings: what is accepted, refused, masked and read from the environment.

use super::*;
use std::ffi::OsString;

fn refused(assignment: &str) -> ConfigError {
    KafkaConfig::new("localhost:9092")
        .set(assignment)
        .expect_err(assignment)
}

fn from_variables(variables: &[(&str, &str)]) -> Result<KafkaConfig, ConfigError> {
    environment::read(
        variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value))),
    )
}

#[test]
fn properties_that_break_a_guarantee_are_refused_with_the_reason() {
    for (assignment, setting, says) in [
        ("enable.auto.commit=true", "enable.auto.commit", "settled"),
        ("auto.commit.enable=true", "enable.auto.commit", "settled"),
        (
            "enable.auto.offset.store=true",
            "enable.auto.offset.store",
            "settled",
        ),
        ("acks=1", "acks", "in-sync"),
        ("request.required.acks=0", "acks", "in-sync"),
        ("enable.idempotence=false", "enable.idempotence", "true"),
        ("partitioner=random", "partitioner", "murmur2_random"),
        ("group.id=payments", "group.id", "consumer"),
        (
            "plugin.library.paths=/tmp/x.so",
            "plugin.library.paths",
            "code",
        ),
        (
            "delivery.report.only.error=true",
            "delivery.report.only.error",
            "report",
        ),
        (
            "queue.buffering.max.kbytes=1",
            "queue.buffering.max.kbytes",
            "buffer_bytes_max",
        ),
    ] {
        let error = refused(assignment);
        assert_eq!(error.setting, setting);
        assert!(error.reason.contains(says), "{assignment}: {error}");
    }
}

#[test]
fn the_values_that_we_set_anyway_may_be_set() {
    let mut config = KafkaConfig::new("localhost:9092");
    for assignment in [
        "acks=all",
        "acks=-1",
        "enable.idempotence=TRUE",
        "partitioner=murmur2_random",
        "partitioner=consistent_random",
        "enable.auto.commit=false",
    ] {
        config.set(assignment).expect(assignment);
    }
}

#[test]
fn unknown_properties_and_impossible_values_are_named() {
    assert_eq!(refused("linger.msec=5").setting, "linger.msec");
    assert_eq!(refused("linger.ms=soon").setting, "linger.ms");
    assert_eq!(refused("no assignment").setting, "no");
    let mut config = KafkaConfig::new("localhost:9092");
    config.properties.insert("fetch.maxx".into(), "1".into());
    assert_eq!(
        config.validate().expect_err("unknown").setting,
        "fetch.maxx"
    );
}

#[test]
fn a_refused_secret_is_not_repeated() {
    let error = refused("ssl.key.pem=hunter2\0");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn brokers_need_hosts_and_ports() {
    for good in [
        "localhost",
        "a:9092,b:9093",
        "PLAINTEXT://a:1",
        "[::1]:9092",
        "::1",
    ] {
        KafkaConfig::new(good).validate().expect(good);
    }
    for bad in [
        "",
        " ",
        ",",
        "a:9092,",
        ":9092",
        "a:port",
        "a:0",
        "a:70000",
        "SASL_SSL://me:word@a:1",
    ] {
        let error = KafkaConfig::new(bad).validate().expect_err(bad);
        assert_eq!(error.setting, "brokers");
        assert!(!error.reason.contains("word@"), "{error}");
    }
}

#[test]
fn our_defaults_stand_and_the_users_properties_win() {
    let mut config = KafkaConfig::new("localhost:9092");
    let producer = config.producer().expect("producer");
    for (name, expected) in [
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("partitioner", "murmur2_random"),
        ("compression.type", "lz4"),
    ] {
        assert_eq!(producer.get(name), Some(expected), "{name}");
    }
    let consumer = config.consumer("payments").expect("consumer");
    for (name, expected) in [
        ("group.id", "payments"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        ("fetch.queue.backoff.ms", "10"),
        ("queued.max.messages.kbytes", "6144"),
    ] {
        assert_eq!(consumer.get(name), Some(expected), "{name}");
    }

    config.set("compression.codec=gzip").expect("alias");
    config.set("auto.offset.reset=error").expect("reset");
    config.set("client.id=mine").expect("client id");
    let producer = config.producer().expect("producer");
    assert_eq!(producer.get("compression.type"), Some("gzip"));
    assert_eq!(producer.get("compression.codec"), None);
    assert_eq!(producer.get("auto.offset.reset"), None);
    assert_eq!(producer.get("client.id"), Some("mine"));
    let consumer = config.consumer("payments").expect("consumer");
    assert_eq!(consumer.get("auto.offset.reset"), Some("error"));
    assert_eq!(consumer.get("compression.type"), None);
}

#[test]
fn every_kind_of_client_can_be_created() {
    let config = KafkaConfig::new("localhost:9092");
    for built in [config.producer(), config.consumer("g"), config.client()] {
        let built = built.expect("settings");
        built
            .create_native_config()
            .expect("accepted by librdkafka");
    }
    assert_eq!(config.consumer(" ").expect_err("no group").setting, "group");
}

#[test]
fn debug_prints_no_secret() {
    let mut config = KafkaConfig::new("SASL_SSL://user:pw-brokers@host:9092");
    for name in [
        "sasl.password",
        "ssl.key.pem",
        "ssl.key.password",
        "ssl.keystore.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.config",
        "sasl.jaas.config",
    ] {
        config
            .properties
            .insert(name.into(), format!("planted-{name}"));
    }
    config.properties.insert(
        "sasl.oauthbearer.extensions".into(),
        "see https://me:planted-url@host/path?x=1".into(),
    );
    config.properties.insert("linger.ms".into(), "7".into());
    let printed = format!("{config:?} {config:#?}");
    assert!(!printed.contains("planted"), "{printed}");
    assert!(!printed.contains("pw-brokers"), "{printed}");
    assert!(printed.contains("linger.ms") && printed.contains('7'));
    assert!(printed.contains("https://***@host/path?x=1"), "{printed}");
}

#[test]
fn masking_keeps_text_without_user_information() {
    for text in ["a:1,b:2", "me@host", "http://host/a@b", ""] {
        assert_eq!(mask_userinfo(text), text);
    }
    assert_eq!(
        mask_userinfo("http://a:b@c, ftp://d@e"),
        "http://***@c, ftp://***@e"
    );
}

#[test]
fn the_environment_names_brokers_in_order() {
    let check = |variables: &[(&str, &str)], expected| {
        let config = from_variables(variables).expect("settings");
        assert_eq!(config.brokers, expected, "{variables:?}");
    };
    check(&[], "localhost:9092");
    check(&[("KAFKA_BROKERS", "b:1")], "b:1");
    check(&[("BOOTSTRAP_SERVERS", "c:1")], "c:1");
    check(
        &[("KAFKA_BROKERS", "b:1"), ("KAFKA_BOOTSTRAP_SERVERS", "a:1")],
        "a:1",
    );
    check(
        &[("KAFKA_BOOTSTRAP_SERVERS", ""), ("KAFKA_BROKERS", "b:1")],
        "b:1",
    );
}

#[test]
fn the_environment_passes_properties_through() {
    let config = from_variables(&[
        ("KAFKA_CLIENT_ID", "mine"),
        ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("KAFKA_SASL_USERNAME", "me"),
        ("KAFKA_X__SESSION_TIMEOUT_MS", "9000"),
        ("KAFKA_X__log__level", "3"),
        ("KAFKA_HOME", "unrelated"),
    ])
    .expect("settings");
    assert_eq!(config.client_id, "mine");
    let expected = [
        ("log_level", "3"),
        ("sasl.username", "me"),
        ("security.protocol", "SASL_PLAINTEXT"),
        ("session.timeout.ms", "9000"),
    ];
    assert!(
        config
            .properties
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .eq(expected)
    );
    let error = from_variables(&[("KAFKA_X__ACKS", "0")]).expect_err("breaks a guarantee");
    assert_eq!(error.setting, "KAFKA_X__ACKS");
}

#[test]
fn a_secret_may_come_from_a_file() {
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), "hunter2\n").expect("write");
    let path = file.path().to_str().expect("path");
    let config = from_variables(&[("KAFKA_SASL_PASSWORD_FILE", path)]).expect("settings");
    assert_eq!(config.properties["sasl.password"], "hunter2");

    let both = [
        ("KAFKA_SASL_PASSWORD_FILE", path),
        ("KAFKA_SASL_PASSWORD", "x"),
    ];
    assert_eq!(
        from_variables(&both).expect_err("both").setting,
        "KAFKA_SASL_PASSWORD"
    );
    let absent = from_variables(&[("KAFKA_SASL_PASSWORD_FILE", "/nowhere/at/all")]);
    let error = absent.expect_err("no file");
    assert_eq!(error.setting, "KAFKA_SASL_PASSWORD_FILE");
    assert!(error.reason.contains("/nowhere/at/all"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let mut config = KafkaConfig::new("localhost:9092");
    config.set("ssl.ca.location=/no/such.pem").expect("known");
    let error = config.validate().expect_err("it is not there");
    assert_eq!(error.setting, "ssl.ca.location");
    assert!(error.reason.contains("/no/such.pem"), "{error}");
    config.set("ssl.ca.location=probe").expect("known");
    config.validate().expect("librdkafka looks for it");
}

//! The cluster that flags, file and environment select, and the advice for each cause of a failed
//! connection.

mod acls;

use crate::support::tool::{Cluster, command, run, run_command};
use evenkeel::testing::{Finished, Listener, PASSWORD, SecuredKafka, secured_kafka};
use serde_json::json;

/// A file for `--config`, removed with the folder.
fn config(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a temporary folder is created");
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("the file is written");
    let path = path.to_string_lossy().into_owned();
    (dir, path)
}

#[tokio::test]
async fn config_show_names_the_origin_of_each_setting() {
    let (_dir, path) = config(
        "c.toml",
        "store = \"s.db\"\nbrokers = \"file:1\"\n[kafka]\nclient.id = \"me\"\nsasl.password = \"hunter2\"\n\
         security.protocol = \"SASL_PLAINTEXT\"\nsasl.mechanism = \"PLAIN\"\nsasl.username = \"u\"\n",
    );
    let mut shown = command(&[
        "-X",
        "linger.ms=7",
        "config",
        "-b",
        "flag:1",
        "show",
        "-o",
        "jsonl",
    ]);
    shown.env("KAFKA_CLIENT_ID", "you");
    shown.env("EVENKEEL_CONFIG", &path);
    let run = run_command(shown, "").await.code(0);
    let rows = run.rows();
    let row = |name: &str| {
        rows.iter()
            .find(|row| row["name"] == name)
            .expect(name)
            .clone()
    };
    let origin = |name: &str| row(name)["origin"].clone();
    assert_eq!(row("bootstrap.servers")["value"], "flag:1");
    assert_eq!(
        origin("bootstrap.servers"),
        json!({"from": "flag", "name": "--brokers"})
    );
    assert_eq!(origin("linger.ms"), json!({"from": "flag", "name": "-X"}));
    assert_eq!(row("client.id")["value"], "you");
    assert_eq!(
        origin("client.id"),
        json!({"from": "environment", "name": "KAFKA_CLIENT_ID"})
    );
    assert_eq!(
        origin("sasl.username"),
        json!({"from": "file", "name": path})
    );
    assert_eq!(
        origin("socket.keepalive.enable"),
        json!({"from": "default"})
    );
    assert_eq!(row("sasl.password")["value"], "***");
    assert!(
        run.stderr
            .contains("KAFKA_CLIENT_ID of the environment overrides client.id"),
        "{}",
        run.stderr
    );
    assert!(!format!("{run:?}").contains("hunter2"));

    // A file that the command line names wins over what somebody exported.
    let mut shown = command(&["config", "show", "--origin", "--config", &path]);
    shown.env("KAFKA_CLIENT_ID", "you");
    shown.env("KAFKA_BOOTSTRAP_SERVERS", "env:1");
    let table = run_command(shown, "").await.code(0).stdout;
    assert!(table.contains(&format!("file {path}")), "{table}");
    assert!(
        table.contains("file:1") && !table.contains("env:1"),
        "{table}"
    );
    assert!(!table.contains("KAFKA_CLIENT_ID"), "{table}");
}

#[tokio::test]
async fn a_config_file_without_brokers_never_means_localhost_silently() {
    let refused = async |name: &str, text: &str, says: &str| {
        let (_dir, path) = config(name, text);
        let run = run(&["topics", "list", "--config", &path]).await.code(2);
        assert!(run.stderr.contains(says), "{}", run.stderr);
        assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
    };
    refused("empty.toml", "", "brokers =").await;
    refused("other.toml", "brokerz = \"a:1\"", "brokerz").await;
    refused("c.toml", "[kafka]\nsasl.password = \"hunter2\n", "line 2").await;
    refused(
        "java.conf",
        "bootstrap.servers=a:1\nsasl.password=hunter2",
        ".properties",
    )
    .await;
    refused(
        "j.properties",
        "ssl.truststore.password=hunter2",
        "ssl.ca.location",
    )
    .await;

    let (_dir, path) = config("c.toml", "[kafka]\nclient.id = \"x\"");
    let run = run(&["config", "show", "--config", &path]).await.code(0);
    assert!(
        run.stderr.contains("using localhost:9092"),
        "{}",
        run.stderr
    );
    let (_dir, path) = config(
        "c.properties",
        "bootstrap.servers=a:1\nsecurity.protocol=SSL\n",
    );
    let shown = crate::support::tool::run(&["config", "show", "--config", &path])
        .await
        .code(0);
    assert!(
        shown.stdout.contains("a:1") && shown.stderr.is_empty(),
        "{shown:?}"
    );
}

/// A command that writes names the cluster.
#[tokio::test]
async fn flags_work_before_and_after_the_command() {
    let cluster = Cluster::with_topic(1).await;
    let publish = ["publish", "shop.order-cancelled.v1", "-t", &cluster.topic];
    let data = ["-d", "order_id=o-1", "-d", "reason=r"];
    let published = cluster
        .run(&[&publish[..], &data].concat(), "")
        .await
        .code(0);
    assert!(
        published.stderr.contains("on cluster mockCluster"),
        "{}",
        published.stderr
    );
    // A closed port: a flag that is lost would find the cluster of the environment.
    for args in [
        &["-b", "127.0.0.1:1", "--timeout", "1s", "topics", "list"][..],
        &["topics", "--brokers=127.0.0.1:1", "list", "--timeout", "1s"],
        &["topics", "list", "-b127.0.0.1:1", "--timeout=1s"],
    ] {
        let run = cluster.run(args, "").await.code(4);
        assert!(run.stderr.contains("127.0.0.1:1"), "{}", run.stderr);
    }
}

/// Asks for the topics of a secured listener.
async fn list(kafka: &SecuredKafka, listener: Listener, properties: &[&str]) -> Finished {
    let address = kafka.address(listener);
    let mut args = vec!["topics", "list", "--timeout", "6s", "-b", &address];
    for property in properties {
        args.extend(["-X", property]);
    }
    run(&args).await
}

#[tokio::test]
async fn every_tls_fault_is_reported_with_advice() {
    let Some(kafka) = secured_kafka().await else {
        return;
    };
    let tls = "security.protocol=SSL";
    let ca = format!("ssl.ca.location={}", kafka.file("ca.pem").display());
    let other = format!("ssl.ca.location={}", kafka.file("other.pem").display());
    let check = async |listener, properties: &[&str], says: &[&str]| {
        let run = list(kafka, listener, properties).await.code(4);
        for says in says {
            assert!(
                run.stderr.contains(says),
                "{listener:?} {properties:?}: {}",
                run.stderr
            );
        }
        assert!(!run.stderr.contains("check the address"), "{}", run.stderr);
    };
    let untrusted = [
        "is not trusted; it was issued by CN=evenkeel test authority",
        "ssl.ca.location",
    ];
    check(Listener::Mutual, &[tls], &untrusted).await;
    check(Listener::Mutual, &[tls, &other], &untrusted).await;
    check(
        Listener::Expired,
        &[tls, &ca],
        &["has expired on", "renewed"],
    )
    .await;
    check(
        Listener::Elsewhere,
        &[tls, &ca],
        &["for other names: elsewhere.test", "connect by a name"],
    )
    .await;
    check(Listener::Mutual, &[tls, &ca], &["ssl.certificate.location"]).await;
    check(Listener::Mutual, &[], &["expect TLS", "SASL_SSL"]).await;
    check(Listener::Sasl, &[tls, &ca], &["no TLS", "PLAINTEXT"]).await;
    check(Listener::Sasl, &[], &["expect a login", "sasl.mechanism"]).await;

    let certificate = format!(
        "ssl.certificate.location={}",
        kafka.file("client.pem").display()
    );
    let key = format!("ssl.key.location={}", kafka.file("client.key").display());
    let known = list(kafka, Listener::Mutual, &[tls, &ca, &certificate, &key]).await;
    assert!(
        known
            .code(1)
            .stderr
            .contains("no topic is visible to this client")
    );
}

#[tokio::test]
async fn every_login_fault_is_reported_with_advice() {
    let Some(kafka) = secured_kafka().await else {
        return;
    };
    let check = async |listener, properties: &[&str], code, says: &[&str]| {
        let run = list(kafka, listener, properties).await.code(code);
        for says in says {
            assert!(run.stderr.contains(says), "{properties:?}: {}", run.stderr);
        }
        assert!(!run.stderr.contains(PASSWORD), "{}", run.stderr);
    };
    let login = SecuredKafka::login("admin");
    let login: Vec<&str> = login.iter().map(String::as_str).collect();
    let but = |property| [&login[..], &[property]].concat();
    check(Listener::Sasl, &login, 0, &[]).await;
    check(
        Listener::Sasl,
        &but("sasl.password=wrong"),
        1,
        &["sasl.password"],
    )
    .await;
    check(
        Listener::Sasl,
        &but("sasl.mechanism=SCRAM-SHA-512"),
        1,
        &["supported mechanisms: PLAIN", "set sasl.mechanism to one"],
    )
    .await;
    check(
        Listener::Sasl,
        &but("sasl.username="),
        2,
        &["sasl.username: is not set; PLAIN needs it"],
    )
    .await;
    check(Listener::Sasl, &but("sasl.mechanism=PLANE"), 2, &["PLANE"]).await;
    check(
        Listener::Sasl,
        &["security.protocol=SASL_PLAINTEXT"],
        2,
        &["sasl.mechanism", "not set"],
    )
    .await;
}

#[tokio::test]
async fn the_systems_authorities_are_trusted_without_a_setting() {
    let Some(kafka) = secured_kafka().await else {
        return;
    };
    let address = kafka.address(Listener::SaslTls);
    let secret = tempfile::NamedTempFile::new().expect("a file for the test");
    std::fs::write(secret.path(), format!("{PASSWORD}\n")).expect("the file is written");
    let mut list = command(&["topics", "list", "--timeout", "6s", "-b", &address]);
    list.env("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
        .env("KAFKA_SASL_MECHANISM", "PLAIN")
        .env("KAFKA_SASL_USERNAME", "admin")
        .env("KAFKA_SASL_PASSWORD_FILE", secret.path())
        .env("SSL_CERT_FILE", kafka.file("ca.pem"));
    run_command(list, "").await.code(0);
}

#[tokio::test]
async fn a_token_file_logs_in_and_faults_give_advice() {
    let Some(kafka) = secured_kafka().await else {
        return;
    };
    let check = async |more: &[&str], code, says: &[&str]| {
        let tokens = [
            "security.protocol=SASL_PLAINTEXT",
            "sasl.mechanism=OAUTHBEARER",
        ];
        let started = std::time::Instant::now();
        let run = list(kafka, Listener::Tokens, &[&tokens[..], more].concat()).await;
        let run = run.code(code);
        for says in says {
            assert!(run.stderr.contains(says), "{more:?}: {}", run.stderr);
        }
        // A good token lists; the others need not wait for the end of --timeout.
        let took = started.elapsed();
        assert!(took < std::time::Duration::from_secs(5), "{took:?}");
        run
    };
    let why = [
        "source of tokens",
        "file=/path/to/token",
        "set_token_source",
    ];
    check(&[], 2, &why).await;
    let no_curl = ["no curl", "file=/path/to/token", "dynamic-linking"];
    check(&["sasl.oauthbearer.method=oidc"], 2, &no_curl).await;
    check(&["sasl.oauthbearer.client.id=a"], 2, &no_curl).await;
    check(
        &["sasl.oauthbearer.config=principal=a"],
        2,
        &["expected file="],
    )
    .await;

    let unsecured = [
        "enable.sasl.oauthbearer.unsecure.jwt=true",
        "sasl.oauthbearer.config=principal=admin",
    ];
    check(&unsecured, 0, &[]).await;

    let (_dir, path) = config("token", &SecuredKafka::token("admin", 0, 600));
    let file = format!("sasl.oauthbearer.config=file={path}");
    check(&[&file], 0, &[]).await;
    check(&[&format!("{file} extension_logicalCluster=lkc-1")], 0, &[]).await;
    let failed = "Failed to acquire SASL OAUTHBEARER token";
    for (text, says) in [
        (
            SecuredKafka::token("admin", -60, -1),
            "the token expired at",
        ),
        ("planted.planted.planted".to_owned(), "no JWT"),
        (String::new(), "is empty"),
    ] {
        std::fs::write(&path, &text).expect("the file is written");
        let run = check(
            &[&file],
            1,
            &[failed, says, &path, "sasl.oauthbearer.config"],
        )
        .await;
        assert!(!run.stderr.contains("planted"), "{}", run.stderr);
    }
    // What is wrong with it only the broker finds: it is of the future.
    std::fs::write(&path, SecuredKafka::token("admin", 3000, 3600)).expect("the file is written");
    check(&[&file], 1, &["invalid_token", "audience"]).await;
    std::fs::remove_file(&path).expect("the file is removed");
    check(&[&file], 1, &[failed, "cannot read", &path]).await;
}

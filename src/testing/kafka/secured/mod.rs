//! A Kafka with authentication and authorisation, for tests of error messages about missing
//! credentials or rights.
//!
//! One broker, as a Java process, with one listener for each kind of connection error. `openssl`
//! creates the certificates. `Rights.java` grants permissions with Kafka's own admin client.

use super::java;
use crate::kafka::KafkaConfig;
use crate::testing::names::free_port;
use crate::testing::process::subprocess;
use crate::testing::{JavaProgram, Libraries, StartError, TestKafka, required};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The password of every user. It is no secret: the broker listens on 127.0.0.1 only.
pub const PASSWORD: &str = "of a user";

/// Time limit of creating certificates and of changing rights.
const LIMIT: Duration = Duration::from_secs(60);

/// Creates an authority and four certificates: of this machine, of another host, an expired one,
/// and a client's.
const CERTIFICATES: &str = r#"set -e
cd "$1"
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj '/CN=evenkeel test authority'
openssl req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.pem -days 30 -subj '/CN=another authority'
issue() {
  openssl req -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$1"
  echo "subjectAltName=$2" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days "$3" -extfile "$1.ext" -out "$1.pem"
  cat "$1.key" "$1.pem" >"$1.store.pem"
}
issue here IP:127.0.0.1,DNS:localhost 30
issue elsewhere DNS:elsewhere.test 30
issue expired IP:127.0.0.1,DNS:localhost -1
issue client DNS:client.test 30
"#;

/// A listener of the broker. Each provokes one kind of error in a client with other settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Listener {
    /// No TLS; user and password by SASL/PLAIN.
    Sasl,
    /// TLS; user and password by SASL/PLAIN.
    SaslTls,
    /// TLS with a certificate of another host.
    Elsewhere,
    /// TLS with an expired certificate.
    Expired,
    /// TLS; clients need a certificate.
    Mutual,
    /// No TLS; unsigned tokens (SASL/OAUTHBEARER). The broker closes a connection when its token
    /// expires.
    Tokens,
}

const LISTENERS: [(Listener, &str, &str, &str); 6] = [
    (Listener::Sasl, "SASL", "SASL_PLAINTEXT", ""),
    (Listener::SaslTls, "SASLTLS", "SASL_SSL", "here"),
    (Listener::Elsewhere, "ELSEWHERE", "SSL", "elsewhere"),
    (Listener::Expired, "EXPIRED", "SSL", "expired"),
    (Listener::Mutual, "MUTUAL", "SSL", "here"),
    (Listener::Tokens, "TOKENS", "SASL_PLAINTEXT", ""),
];

/// Users that may log in. `admin` has all rights, the others only those that a test grants.
const USERS: [&str; 5] = ["admin", "nobody", "reader", "writer", "service"];

/// A broker with authentication and authorisation. Its plain listener, [`SecuredKafka::cluster`],
/// allows everything.
///
/// The users are `admin`, who has all rights, and `nobody`, `reader`, `writer` and `service`, who
/// have those that a test grants.
///
/// ```no_run
/// use evenkeel::testing::{secured_kafka, unique};
///
/// # async fn a_test() -> Result<(), evenkeel::testing::StartError> {
/// let Some(kafka) = secured_kafka().await else { return Ok(()) };
/// let topic = unique("orders");
/// kafka.cluster().create_topic(&topic, 1).await?;
/// kafka.grant("reader", &[format!("READ TOPIC {topic}").as_str()]).await?;
/// let reader = kafka.config("reader");
/// # let _ = reader;
/// # Ok(())
/// # }
/// ```
pub struct SecuredKafka {
    cluster: TestKafka,
    ports: Vec<(Listener, u16)>,
    certificates: TempDir,
    rights: JavaProgram,
}

impl std::fmt::Debug for SecuredKafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecuredKafka")
            .field("cluster", &self.cluster)
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}

/// The secured broker that the tests of this process share. If it is not available, prints to
/// standard error why the test is skipped, and returns `None`.
///
/// # Panics
/// If it is not available and `EVENKEEL_REQUIRE_KAFKA=1` is set.
pub async fn secured_kafka() -> Option<&'static SecuredKafka> {
    static SHARED: OnceCell<Result<SecuredKafka, String>> = OnceCell::const_new();
    let start = || async {
        SecuredKafka::start()
            .await
            .map_err(|error| error.to_string())
    };
    let shared = SHARED.get_or_init(start).await;
    let shared = shared.as_ref().map_err(|tried| StartError::NoneFound {
        tried: tried.clone(),
    });
    required(shared)
}

impl SecuredKafka {
    /// Creates the certificates and starts the broker.
    async fn start() -> Result<Self, StartError> {
        let failed = |error: std::io::Error| StartError::java(error.to_string());
        let certificates = tempfile::Builder::new()
            .prefix("evenkeel-certificates-")
            .tempdir()
            .map_err(failed)?;
        let directory = certificates.path().display().to_string();
        subprocess::output("sh", ["-c", CERTIFICATES, "sh", &directory], LIMIT)
            .await
            .map_err(|reason| StartError::server("openssl", reason))?;
        let mut ports = Vec::with_capacity(LISTENERS.len());
        for (listener, ..) in LISTENERS {
            ports.push((listener, free_port().map_err(failed)?));
        }
        let settings = settings(certificates.path(), &ports);
        let borrowed: Vec<(&str, &str)> = settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let source = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/testing/kafka/secured/Rights.java"
        );
        Ok(Self {
            cluster: TestKafka::start_with(&borrowed).await?,
            ports,
            certificates,
            rights: JavaProgram::new(source, Libraries::Kafka).await?,
        })
    }

    /// The broker through its plain listener, which allows everything.
    pub fn cluster(&self) -> &TestKafka {
        &self.cluster
    }

    /// Host and port of a listener.
    pub fn address(&self, listener: Listener) -> String {
        let port = self.ports.iter().find(|(of, _)| *of == listener);
        format!("127.0.0.1:{}", port.map_or(0, |(_, port)| *port))
    }

    /// Path of a generated file: `ca.pem`, `other.pem` (an authority that issued nothing),
    /// `client.pem` or `client.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.certificates.path().join(name)
    }

    /// Client properties to log in as `user`, without TLS.
    pub fn login(user: &str) -> [String; 4] {
        [
            "security.protocol=SASL_PLAINTEXT".to_owned(),
            "sasl.mechanism=PLAIN".to_owned(),
            format!("sasl.username={user}"),
            format!("sasl.password={PASSWORD}"),
        ]
    }

    /// Client settings to log in as `user`, without TLS. A user that does not exist is accepted
    /// here and rejected by the broker.
    pub fn config(&self, user: &str) -> KafkaConfig {
        let mut config = KafkaConfig::new(self.address(Listener::Sasl));
        for property in Self::login(user) {
            config.set(&property).expect("a property of librdkafka");
        }
        config
    }

    /// An unsigned token of `user` for [`Listener::Tokens`]. It is valid between two times, in
    /// seconds from now.
    pub fn token(user: &str, from: i64, until: i64) -> String {
        let now = jiff::Timestamp::now().as_second();
        let claims = serde_json::json!({"sub": user, "iat": now + from, "exp": now + until});
        let header = BASE64.encode(r#"{"alg":"none"}"#);
        format!("{header}.{}.", BASE64.encode(claims.to_string()))
    }

    /// Client properties to log in with the token in this file.
    pub fn token_login(file: &Path) -> [String; 3] {
        [
            "security.protocol=SASL_PLAINTEXT".to_owned(),
            "sasl.mechanism=OAUTHBEARER".to_owned(),
            format!("sasl.oauthbearer.config=file={}", file.display()),
        ]
    }

    /// Grants rights to a user. Each is `OPERATION RESOURCE NAME`, such as `DESCRIBE TOPIC orders`.
    /// A name that ends in `*` is a prefix.
    ///
    /// # Errors
    /// If the broker rejects a right.
    pub async fn grant(&self, user: &str, rights: &[&str]) -> Result<(), StartError> {
        let mut arguments = vec![self.cluster.brokers(), user];
        arguments.extend(rights);
        self.rights.run(&arguments, LIMIT).await.map(drop)
    }
}

/// Broker settings in addition to those of every test broker.
fn settings(certificates: &Path, ports: &[(Listener, u16)]) -> Vec<(String, String)> {
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let file = |name: &str| certificates.join(name).display().to_string();
    let mut listeners = Vec::new();
    let mut protocols = "PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
    let mut settings = vec![
        own(
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        ),
        own("super.users", "User:ANONYMOUS;User:admin"),
    ];
    let users = USERS
        .map(|user| format!("user_{user}=\"{PASSWORD}\""))
        .join(" ");
    let module = "org.apache.kafka.common.security";
    let plain = format!("{module}.plain.PlainLoginModule required {users};");
    let tokens = format!(
        "{module}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"admin\";"
    );
    for ((listener, name, protocol, certificate), (_, port)) in LISTENERS.iter().zip(ports) {
        listeners.push(format!("{name}://127.0.0.1:{port}"));
        protocols.push_str(&format!(",{name}:{protocol}"));
        let of = |setting: &str| format!("listener.name.{}.{setting}", name.to_lowercase());
        if *listener == Listener::Tokens {
            settings.push((of("sasl.enabled.mechanisms"), "OAUTHBEARER".to_owned()));
            settings.push((of("oauthbearer.sasl.jaas.config"), tokens.clone()));
            // A connection lives as long as its token.
            let hour = "3600000".to_owned();
            settings.push((of("oauthbearer.connections.max.reauth.ms"), hour));
        } else if protocol.starts_with("SASL") {
            settings.push((of("sasl.enabled.mechanisms"), "PLAIN".to_owned()));
            settings.push((of("plain.sasl.jaas.config"), plain.clone()));
        }
        if !certificate.is_empty() {
            settings.push((of("ssl.keystore.type"), "PEM".to_owned()));
            settings.push((
                of("ssl.keystore.location"),
                file(&format!("{certificate}.store.pem")),
            ));
            settings.push((of("ssl.truststore.type"), "PEM".to_owned()));
            settings.push((of("ssl.truststore.location"), file("ca.pem")));
        }
        if *listener == Listener::Mutual {
            settings.push((of("ssl.client.auth"), "required".to_owned()));
        }
    }
    settings.push(own(java::MORE_LISTENERS, &listeners.join(",")));
    settings.push(own("listener.security.protocol.map", &protocols));
    settings
}

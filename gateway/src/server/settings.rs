//! The settings of a gateway, as the library takes them. Knows no flag and no file.

use super::connections::ConnectionLimits;
use super::middleware::BodyLimits;
use super::stop::StopSettings;
use crate::access::{AccessError, Authenticator, JwtSettings, Principal, Rights};
use crate::admission::AdmissionSettings;
use crate::post::PostLimits;
use crate::status::StatusSettings;
use crate::stream::StreamSettings;
use evenkeel::kafka::KafkaConfig;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The name of the only caller of a gateway without authentication.
const ANYBODY: &str = "anybody";

/// The longest time for a body of events, whatever its rate; see [`BodyLimits`].
const POST_BODY_TIME_MAX: Duration = Duration::from_secs(120);

/// Where accepted events become durable. Never prints an address, which may have a password.
///
/// ```
/// use evenkeel_gateway::server::StoreAddress;
///
/// assert!(matches!("sqlite:gateway.db".parse(), Ok(StoreAddress::Sqlite(_))));
/// assert!(matches!("brokers".parse(), Ok(StoreAddress::Brokers)));
/// assert!("mysql://localhost".parse::<StoreAddress>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreAddress {
    /// An outbox in this SQLite file, for the gateways of one machine.
    Sqlite(PathBuf),
    /// An outbox in this PostgreSQL, for gateways anywhere.
    Postgres(String),
    /// The brokers: an answer waits for their acknowledgement, and repetitions are not recognised.
    Brokers,
}

impl StoreAddress {
    /// Its kind, for messages: `sqlite`, `postgres` or `brokers`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
            Self::Brokers => "brokers",
        }
    }

    /// The default bounds of posts for it.
    pub fn admission(&self) -> AdmissionSettings {
        match self {
            Self::Sqlite(_) | Self::Postgres(_) => AdmissionSettings::outbox(),
            Self::Brokers => AdmissionSettings::brokers(),
        }
    }
}

impl FromStr for StoreAddress {
    type Err = String;

    /// Reads `sqlite:PATH`, `postgres://USER@HOST/DATABASE` or `brokers`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "brokers" {
            return Ok(Self::Brokers);
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        let path = text.strip_prefix("sqlite://");
        match path.or_else(|| text.strip_prefix("sqlite:")) {
            Some(path) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            _ => Err("a store is sqlite:PATH, postgres://USER@HOST/DATABASE or brokers".to_owned()),
        }
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres(_) => f.debug_tuple("Postgres").finish_non_exhaustive(),
            Self::Brokers => f.write_str("Brokers"),
        }
    }
}

/// How callers prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessSettings {
    /// Not at all: every request has all rights. For development, on this machine only.
    Open,
    /// By tokens whose hashes are in a file, by JSON Web Tokens, or by both.
    Tokens {
        /// The file with the hashes.
        file: Option<PathBuf>,
        /// How JSON Web Tokens are verified.
        jwt: Option<JwtSettings>,
    },
}

impl AccessSettings {
    /// The authenticator. Reads the files.
    ///
    /// # Errors
    /// If a file cannot be used, or nothing is configured.
    pub fn authenticator(&self) -> Result<Authenticator, AccessError> {
        let Self::Tokens { file, jwt } = self else {
            return Ok(Authenticator::open(Principal::new(ANYBODY, Rights::all())));
        };
        let mut builder = Authenticator::builder();
        if let Some(file) = file {
            builder = builder.with_token_file(file);
        }
        if let Some(jwt) = jwt {
            builder = builder.with_jwt(jwt.clone());
        }
        builder.build()
    }
}

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The certificate with its chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

impl TlsFiles {
    /// The files of a certificate with its chain, and of its key.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
        }
    }
}

/// The settings of a gateway. [`GatewaySettings::new`] sets the defaults.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct GatewaySettings {
    /// The connection to Kafka.
    pub kafka: KafkaConfig,
    /// The public address. Default 127.0.0.1:8080. Port 0 takes a free port.
    pub listen: SocketAddr,
    /// Where accepted events become durable. Default `sqlite:gateway.db`.
    pub store: StoreAddress,
    /// How callers prove who they are.
    pub access: AccessSettings,
    /// The certificate. Default none: plain text.
    pub tls: Option<TlsFiles>,
    /// The name of this gateway among others, in the header `worker` of each answer.
    pub worker: Arc<str>,
    /// Origins of other sites whose pages may use the gateway. Default none.
    pub allowed_origins: Vec<String>,
    /// URLs of the orderboard's instances, for `GET /orders/{id}`. Default none.
    pub orderboards: Vec<String>,
    /// Bounds of connections.
    pub connections: ConnectionLimits,
    /// Bounds of bodies.
    pub body: BodyLimits,
    /// Bounds of posts.
    pub post: PostLimits,
    /// When posts are refused. Default: [`StoreAddress::admission`].
    pub admission: Option<AdmissionSettings>,
    /// Bounds of streams. Their origins are [`allowed_origins`](Self::allowed_origins).
    pub stream: StreamSettings,
    /// Settings of status answers.
    pub status: StatusSettings,
    /// How long a stop takes.
    pub stop: StopSettings,
}

impl GatewaySettings {
    /// Settings with the defaults.
    pub fn new(kafka: KafkaConfig, access: AccessSettings, worker: impl Into<Arc<str>>) -> Self {
        Self {
            kafka,
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            store: StoreAddress::Sqlite("gateway.db".into()),
            access,
            tls: None,
            worker: worker.into(),
            allowed_origins: Vec::new(),
            orderboards: Vec::new(),
            connections: ConnectionLimits::default(),
            body: BodyLimits::default(),
            post: PostLimits::default().with_body_time_max(POST_BODY_TIME_MAX),
            admission: None,
            stream: StreamSettings::default(),
            status: StatusSettings::default(),
            stop: StopSettings::default(),
        }
    }

    /// Sets the public address.
    pub fn with_listen(mut self, listen: SocketAddr) -> Self {
        self.listen = listen;
        self
    }

    /// Sets where accepted events become durable.
    pub fn with_store(mut self, store: StoreAddress) -> Self {
        self.store = store;
        self
    }

    /// Sets the certificate.
    pub fn with_tls(mut self, tls: impl Into<Option<TlsFiles>>) -> Self {
        self.tls = tls.into();
        self
    }

    /// Sets the bounds of connections.
    pub fn with_connections(mut self, connections: ConnectionLimits) -> Self {
        self.connections = connections;
        self
    }

    /// Sets the bounds of bodies.
    pub fn with_body(mut self, body: BodyLimits) -> Self {
        self.body = body;
        self
    }

    /// Sets how long a stop takes.
    pub fn with_stop(mut self, stop: StopSettings) -> Self {
        self.stop = stop;
        self
    }

    /// Whether every request has all rights.
    pub fn is_open(&self) -> bool {
        self.access == AccessSettings::Open
    }

    /// Checks what no single setting shows.
    ///
    /// # Errors
    /// A text that names the flags.
    pub fn validate(&self) -> Result<(), String> {
        if self.is_open() && !self.listen.ip().is_loopback() {
            return Err(format!(
                "--no-auth gives all rights to everybody who reaches {}: use it with an address \
                 of this machine only, such as --listen 127.0.0.1:8080, or use --tokens",
                self.listen
            ));
        }
        if let Some(origin) = self
            .allowed_origins
            .iter()
            .find(|origin| !is_origin(origin))
        {
            return Err(format!(
                "--allowed-origin {origin:?} is no origin; write scheme, host and port as browsers \
                 do, without the scheme's own port, such as https://shop.example.org"
            ));
        }
        Ok(())
    }
}

/// Whether a browser would send this as `Origin`. It leaves out the port of the scheme.
fn is_origin(text: &str) -> bool {
    let (host, own_port) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(host), _) => (Some(host), ":443"),
        (None, host) => (host, ":80"),
    };
    host.is_some_and(|host| {
        !host.is_empty()
            && !host.ends_with(own_port)
            && host
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
            && !host.contains(['/', '?', '#', '@', '*'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(access: AccessSettings) -> GatewaySettings {
        GatewaySettings::new(KafkaConfig::new("localhost:9092"), access, "gateway-1")
    }

    #[test]
    fn a_gateway_without_authentication_stays_on_this_machine() {
        let tokens = AccessSettings::Tokens {
            file: Some("tokens.toml".into()),
            jwt: None,
        };
        for (listen, access, expected) in [
            ("127.0.0.1:8080", AccessSettings::Open, true),
            ("[::1]:8080", AccessSettings::Open, true),
            ("0.0.0.0:8080", AccessSettings::Open, false),
            ("[::]:8080", AccessSettings::Open, false),
            ("0.0.0.0:8080", tokens, true),
        ] {
            let listen = listen.parse().expect("an address");
            let settings = settings(access).with_listen(listen);
            assert_eq!(settings.validate().is_ok(), expected, "{listen}");
        }
    }

    #[test]
    fn origins_are_those_that_browsers_send() {
        for (text, expected) in [
            ("https://shop.example.org", true),
            ("http://localhost:3000", true),
            ("https://shop.example.org/", false),
            ("https://shop.example.org:8443", true),
            ("http://shop.example.org:443", true),
            ("https://shop.example.org:443", false),
            ("http://localhost:80", false),
            ("shop.example.org", false),
            ("https://Shop.example.org", false),
            ("*", false),
            ("https://*", false),
        ] {
            assert_eq!(is_origin(text), expected, "{text}");
        }
    }

    #[test]
    fn an_address_of_a_store_shows_no_password() {
        let address: StoreAddress = "postgres://jane:secret@db/shop".parse().expect("valid");
        assert!(!format!("{address:?}").contains("secret"));
        for wrong in ["", "sqlite:", "mysql://jane:secret@db", "gateway.db"] {
            let error = wrong.parse::<StoreAddress>().expect_err("no store");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}

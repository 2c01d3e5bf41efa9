//! Tokens for SASL/OAUTHBEARER, from a file that another program refreshes, or from the program's
//! own source.
//!
//! Owns the origin of a client's tokens and their validation. `native/login.rs` passes them to the
//! clients. No error repeats a token.
//!
//! A token is validated here before librdkafka receives it, because librdkafka repeats the value in
//! some of its errors, and those are logged.
//!
//! Times: a token is renewed after three quarters of its lifetime. A file is also read every five
//! minutes, because its replacement costs nothing to notice. After a failure a file is read again
//! after two seconds, and the process's source is called again after ten.

use super::ConfigError;
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rdkafka::ClientConfig;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// The property that names the file.
pub(crate) const CONFIG: &str = "sasl.oauthbearer.config";

/// The remedy for a client without tokens.
pub(crate) const TOKEN_REMEDY: &str = "set sasl.oauthbearer.config=file=/path/to/token, a JWT that is read again at each refresh, \
     or provide tokens by evenkeel::kafka::set_token_source";

/// The most bytes of a token file. Brokers accept requests of 512 KiB before a login.
const BYTES_MAX: u64 = 512 * 1024;

/// Base64url as in JWTs, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The error of a source of tokens: any error of the service's own.
///
/// It is logged, and becomes the cause of [`KafkaError::Refused`](super::KafkaError::Refused) when
/// a client has no valid token. So it must not contain a token. A source is called again after a
/// failure, so the error need not be permanent.
pub type TokenError = Box<dyn Error + Send + Sync>;

type Source = Box<dyn Fn() -> Result<Token, TokenError> + Send + Sync>;

static SOURCE: OnceLock<Source> = OnceLock::new();

/// A token that authenticates a client. `Debug` masks its value.
///
/// [`set_token_source`] shows where tokens are returned.
///
/// ```
/// use evenkeel::kafka::Token;
/// use std::time::{Duration, SystemTime};
///
/// let expires_at = SystemTime::now() + Duration::from_secs(900);
/// let token = Token::new("opaque-text", "payments", expires_at)
///     .with_extension("logicalCluster", "lkc-1");
/// assert!(!format!("{token:?}").contains("opaque-text"));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// The token as sent to the brokers: a JWT, or any other text that they understand. Not empty,
    /// and visible ASCII only; otherwise the source counts as failed.
    pub value: String,
    /// The principal of the token, as the client logs it. Brokers read it from the token.
    pub principal: String,
    /// When brokers stop accepting the token. Clients request the next one after three quarters of
    /// the time until then, but not within a second. A token that is expired already counts as a
    /// failure of the source.
    pub expires_at: SystemTime,
    /// Extensions that are sent beside the token (RFC 7628), such as Confluent Cloud's
    /// `logicalCluster` and `identityPoolId`. Names consist of ASCII letters and are not `auth`;
    /// values are visible ASCII. Default: none.
    pub extensions: BTreeMap<String, String>,
}

impl Token {
    /// Creates a token without extensions.
    pub fn new(
        value: impl Into<String>,
        principal: impl Into<String>,
        expires_at: SystemTime,
    ) -> Self {
        Self {
            value: value.into(),
            principal: principal.into(),
            expires_at,
            extensions: BTreeMap::new(),
        }
    }

    /// Reads a JWT: `exp` is its expiry and `sub` its principal. The brokers check the signature.
    ///
    /// # Errors
    /// Returns an error if the text is no JWT or has no `exp`. An expired JWT is no error here: it
    /// is refused when a client would use it.
    ///
    /// ```
    /// use evenkeel::kafka::Token;
    ///
    /// // {"alg":"none"} . {"sub":"payments","exp":4102444800} . no signature
    /// let jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJwYXltZW50cyIsImV4cCI6NDEwMjQ0NDgwMH0.";
    /// assert_eq!(Token::from_jwt(jwt)?.principal, "payments");
    /// assert!(Token::from_jwt("opaque-text").is_err());
    /// # Ok::<(), evenkeel::kafka::TokenError>(())
    /// ```
    pub fn from_jwt(value: impl Into<String>) -> Result<Self, TokenError> {
        let value = value.into();
        let claims = claims(&value)?;
        let seconds = claims.get("exp").and_then(serde_json::Value::as_f64);
        let seconds = seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
        let lifetime = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let expires_at = lifetime
            .and_then(|lifetime| SystemTime::UNIX_EPOCH.checked_add(lifetime))
            .ok_or("the JWT has no expiry (exp)")?;
        let subject = claims.get("sub").and_then(serde_json::Value::as_str);
        let principal = subject.unwrap_or_default().to_owned();
        Ok(Self::new(value, principal, expires_at))
    }

    /// The same token with one more extension.
    #[must_use]
    pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.insert(name.into(), value.into());
        self
    }

    /// Validates the token: librdkafka would refuse some faults with an error that repeats the
    /// value. An expired token is refused too.
    fn checked(self) -> Result<Self, TokenError> {
        let is_visible = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if self.value.is_empty() {
            return Err("the token is empty".into());
        }
        if !is_visible(&self.value) {
            return Err("the token has characters that are not visible ASCII".into());
        }
        for (name, value) in &self.extensions {
            check_extension(name, value)?;
        }
        if self.expires_at <= SystemTime::now() {
            return Err(format!("the token expired at {}", utc(self.expires_at)).into());
        }
        Ok(self)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("value", &"***")
            .field("principal", &self.principal)
            .field("expires_at", &self.expires_at)
            .field("extensions", &self.extensions)
            .finish()
    }
}

/// The process already has a source of tokens, which stays in use.
///
/// It is a mistake of the program: a second part of it set a source of its own. Set it in one
/// place, before the first client is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the source of tokens of this process is set already")]
pub struct TokenSourceAlreadySet;

/// Sets the source of tokens for SASL/OAUTHBEARER for all clients of this process, unless their
/// settings name a file (`sasl.oauthbearer.config=file=/path`). Call it once, before the first
/// client is created.
///
/// The source is called at the creation of a client, for its next token after three quarters of the
/// last one's lifetime, and every ten seconds after a failure. It is called on threads of its own,
/// never on one of tokio's, and may block for some seconds: meanwhile no other client receives a
/// token. A panic counts as a failure. Its error is logged, so it must not repeat a token.
///
/// # Errors
/// Returns an error at the second call. The first source stays.
///
/// # Examples
/// ```
/// use evenkeel::kafka::{KafkaConfig, Token, set_token_source};
/// use std::time::{Duration, SystemTime};
///
/// /// What AWS MSK takes: a signed URL, in base64, that lasts for 15 minutes.
/// fn signed_url() -> Result<String, std::io::Error> {
///     // Ask the signer of your cloud here.
/// #   Ok("aHR0cHM6Ly9rYWZrYS5ldS13ZXN0LTEuYW1hem9uYXdzLmNvbS8".to_owned())
/// }
///
/// set_token_source(|| {
///     let expires_at = SystemTime::now() + Duration::from_secs(15 * 60);
///     Ok(Token::new(signed_url()?, "payments", expires_at))
/// })?;
///
/// let mut kafka = KafkaConfig::new("b-1.shop.kafka.eu-west-1.amazonaws.com:9098");
/// kafka.set("security.protocol=SASL_SSL")?;
/// kafka.set("sasl.mechanism=OAUTHBEARER")?;
/// # kafka.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn set_token_source(
    source: impl Fn() -> Result<Token, TokenError> + Send + Sync + 'static,
) -> Result<(), TokenSourceAlreadySet> {
    SOURCE
        .set(Box::new(source))
        .map_err(|_| TokenSourceAlreadySet)
}

/// Whether the program has set its own source.
pub(crate) fn has_source() -> bool {
    SOURCE.get().is_some()
}

/// The origin of a client's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenOrigin {
    /// A file, read for each token.
    File(TokenFile),
    /// The source of the process.
    Process,
}

/// `file=/path extension_NAME=VALUE`: the value of `sasl.oauthbearer.config`. The extensions are in
/// the setting because a token file contains nothing but the JWT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenFile {
    path: PathBuf,
    extensions: BTreeMap<String, String>,
}

impl TokenOrigin {
    /// The origin of the tokens of a client with these properties. None if it needs no token, or
    /// librdkafka makes it.
    pub(crate) fn of(config: &ClientConfig) -> Option<Self> {
        let is = |name: &str, expected: &str| {
            let value = config.get(name);
            value.is_some_and(|value| value.eq_ignore_ascii_case(expected))
        };
        let protocol = config.get("security.protocol").unwrap_or_default();
        let uses_tokens = protocol.to_ascii_lowercase().starts_with("sasl")
            && is("sasl.mechanism", "oauthbearer");
        let makes_them = is("sasl.oauthbearer.method", "oidc")
            || is("enable.sasl.oauthbearer.unsecure.jwt", "true");
        if !uses_tokens || makes_them {
            return None;
        }
        match config.get(CONFIG) {
            // The settings were validated before.
            Some(text) => TokenFile::parse(text).ok().map(Self::File),
            None => Some(Self::Process),
        }
    }

    /// Fetches a token that is valid now. Blocks: on a file, or on the source of the process.
    pub(crate) fn token(&self) -> Result<Token, TokenError> {
        match self {
            Self::File(file) => file.token(),
            Self::Process => of_process(),
        }
    }

    /// The wait before the next token is fetched, for one with this lifetime.
    pub(crate) fn refresh_after(&self, lasts: Duration) -> Duration {
        let share = lasts.mul_f64(0.75).max(Duration::from_secs(1));
        match self {
            // Reading is cheap, and the file may be replaced early.
            Self::File(_) => share.min(Duration::from_secs(300)),
            Self::Process => share,
        }
    }

    /// The wait before a token is fetched again after a failure.
    pub(crate) fn retry_after(&self) -> Duration {
        Duration::from_secs(match self {
            Self::File(_) => 2,
            Self::Process => 10,
        })
    }
}

/// Calls the process's source. It may block or panic, so it has a thread of its own. The calling
/// thread waits for it: it is the login thread, or the one that creates a client.
fn of_process() -> Result<Token, TokenError> {
    let source = SOURCE.get().ok_or(TOKEN_REMEDY)?;
    let called = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("evenkeel-token".to_owned());
        let called = thread.spawn_scoped(scope, source)?;
        called
            .join()
            .unwrap_or_else(|_| Err("the source of tokens panicked".into()))
    });
    called?.checked()
}

impl TokenFile {
    /// Parses the property. No error repeats its value, which may be a misplaced secret.
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let refuse = |reason: &str| {
            let expected = "expected file=/path/to/token, and after it extension_NAME=VALUE for each SASL extension";
            ConfigError::new(CONFIG, format!("{reason}{expected}"))
        };
        let rest = text.trim().strip_prefix("file=");
        let rest = rest.ok_or_else(|| refuse(""))?;
        let mut parts = rest.split(" extension_");
        let path = parts.next().unwrap_or_default().trim();
        if path.is_empty() {
            return Err(refuse("names no file; "));
        }
        let mut extensions = BTreeMap::new();
        for part in parts {
            let (name, value) = part
                .trim()
                .split_once('=')
                .ok_or_else(|| refuse("an extension has no value; "))?;
            check_extension(name, value)
                .map_err(|error| ConfigError::new(CONFIG, error.to_string()))?;
            extensions.insert(name.to_owned(), value.to_owned());
        }
        Ok(Self {
            path: path.into(),
            extensions,
        })
    }

    /// The token in the file. Errors name the file.
    fn token(&self) -> Result<Token, TokenError> {
        let path = self.path.display();
        let text = read(&self.path)?;
        let named = |error: TokenError| -> TokenError { format!("{path}: {error}").into() };
        let mut token = Token::from_jwt(text.trim()).map_err(named)?;
        token.extensions.clone_from(&self.extensions);
        token.checked().map_err(named)
    }
}

/// Reads a token file, bounded in size. Refuses pipes and devices.
fn read(path: &Path) -> Result<String, TokenError> {
    let unreadable = |error| format!("cannot read {}: {error}", path.display());
    let shown = path.display();
    // Reading a pipe would block, and is possible only once.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("{shown} is not a file").into());
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("{shown} is larger than {BYTES_MAX} bytes").into());
    }
    if bytes.trim_ascii().is_empty() {
        return Err(format!("{shown} is empty").into());
    }
    String::from_utf8(bytes).map_err(|_| format!("{shown} contains no JWT").into())
}

/// The claims of a JWT. Checks the form of all three parts, and no signature: the brokers do that.
fn claims(jwt: &str) -> Result<serde_json::Map<String, serde_json::Value>, TokenError> {
    let no_jwt = || TokenError::from("no JWT: expected three base64url parts, separated by dots");
    let mut parts = jwt.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(no_jwt());
    };
    let object = |part: &str| {
        let bytes = BASE64.decode(part).map_err(|_| no_jwt())?;
        serde_json::from_slice(&bytes).map_err(|_| no_jwt())
    };
    let _: serde_json::Map<String, serde_json::Value> = object(header)?;
    BASE64.decode(signature).map_err(|_| no_jwt())?;
    object(claims)
}

/// RFC 7628, 3.1: extensions beside the token.
fn check_extension(name: &str, value: &str) -> Result<(), TokenError> {
    if name.is_empty() || name == "auth" || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err("an extension's name consists of letters, and is not auth".into());
    }
    match value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        true => Ok(()),
        false => {
            Err(format!("the extension {name} has characters that are not visible ASCII").into())
        }
    }
}

/// Formats a time for logs.
fn utc(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at)
        .map_or_else(|_| "an unknown time".to_owned(), |at| format!("{at:.0}"))
}

#[cfg(test)]
mod tests;

//! JSON Web Tokens (RFC 7519) as callers' tokens.
//!
//! `jsonwebtoken` verifies the signature, with an algorithm that belongs to the key. The claims
//! are checked here, with the time as an argument: version 9 of `jsonwebtoken` ignores an `nbf` of
//! the wrong type, and accepts a list as `iss`.
//!
//! | claim | requirement |
//! |---|---|
//! | `iss` | the issuer of the settings |
//! | `aud` | the audience of the settings, or a list with it |
//! | `exp` | required; not passed |
//! | `nbf` | optional; reached |
//! | `sub` | the caller's name: 1 to 128 visible ASCII characters |
//! | `scope` | the rights: `post:TYPE`, `stream:TYPE`, `status`; other scopes are ignored |
//!
//! A `TYPE` may end with `*`, as in [`Rights`](super::Rights). Times have a leeway of 30 s.
//!
//! Must not know HTTP.

use super::caller_name::{is_caller_name, is_source_template, source_of};
use super::key_set::{KeySet, select};
use super::{AccessError, Principal, Rights};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Validation, decode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::path::PathBuf;

/// The difference between two clocks that is tolerated, in seconds.
const LEEWAY_SECS: f64 = 30.0;

/// How JSON Web Tokens are verified.
///
/// Accepted algorithms: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA. Each key
/// is used with those of its kind only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct JwtSettings {
    /// The file with the issuer's public keys, a JWK set. It is read again when it changes, within
    /// a second; while its content is invalid, the old keys stay.
    pub key_set: PathBuf,
    /// The `iss` that a token must have.
    pub issuer: String,
    /// The `aud` that a token must have, alone or among others.
    pub audience: String,
    /// The `source` of a caller's events. `{sub}` stands for its name, percent-encoded. Default:
    /// `/callers/{sub}`.
    #[serde(default = "default_source")]
    pub source: String,
    /// The requests per second that each caller may make. Default: no limit of its own.
    pub rate: Option<u32>,
}

fn default_source() -> String {
    "/callers/{sub}".to_owned()
}

impl JwtSettings {
    /// Settings with a key set, an issuer and an audience.
    pub fn new(
        key_set: impl Into<PathBuf>,
        issuer: impl Into<String>,
        audience: impl Into<String>,
    ) -> Self {
        Self {
            key_set: key_set.into(),
            issuer: issuer.into(),
            audience: audience.into(),
            source: default_source(),
            rate: None,
        }
    }

    /// Sets the template of the callers' `source`.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets the rate of each caller, in requests per second.
    #[must_use]
    pub fn with_rate(mut self, rate: impl Into<Option<u32>>) -> Self {
        self.rate = rate.into();
        self
    }

    fn validate(&self) -> Result<(), AccessError> {
        let refused = |setting, reason| Err(AccessError::Setting { setting, reason });
        if self.issuer.is_empty() {
            return refused("issuer", "must not be empty: any issuer would be accepted");
        }
        if self.audience.is_empty() {
            return refused(
                "audience",
                "must not be empty: any audience would be accepted",
            );
        }
        if !is_source_template(&self.source) {
            let reason = "must be a URI reference that contains {sub} once, such as /callers/{sub}";
            return refused("source", reason);
        }
        if self.rate == Some(0) {
            return refused("rate", "must be above 0");
        }
        Ok(())
    }
}

/// Verifies tokens.
pub(super) struct JwtVerifier {
    settings: JwtSettings,
    keys: KeySet,
}

/// What of a token's header matters. `jwk`, `jku` and `x5u`, which name a key, never do.
#[derive(Deserialize)]
struct TokenHeader {
    alg: Algorithm,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: OneOrMany,
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    scope: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl JwtVerifier {
    /// Checks the settings and reads the keys.
    pub(super) fn open(settings: JwtSettings) -> Result<Self, AccessError> {
        settings.validate()?;
        let keys = KeySet::open(&settings.key_set)?;
        Ok(Self { settings, keys })
    }

    /// The caller that the token names, or why it is refused. The reason is for logs. The size of
    /// the token is bounded by the caller of this function.
    pub(super) fn principal(&self, token: &str, now: Timestamp) -> Result<Principal, &'static str> {
        let claims = self.verified(token)?;
        let now_secs = now.as_second() as f64;
        let aud = claims.aud.as_slice();
        if claims.iss != self.settings.issuer {
            return Err("the JWT has another issuer");
        }
        if !aud.contains(&self.settings.audience) {
            return Err("the JWT has another audience");
        }
        if claims.exp + LEEWAY_SECS <= now_secs {
            return Err("the JWT has expired");
        }
        if claims.nbf.is_some_and(|nbf| nbf > now_secs + LEEWAY_SECS) {
            return Err("the JWT is not valid yet");
        }
        if !is_caller_name(&claims.sub) {
            return Err("the JWT has a subject that cannot be a caller's name");
        }
        let source = source_of(&self.settings.source, &claims.sub);
        let scopes = claims.scope.as_ref().map_or(&[][..], OneOrMany::as_slice);
        let principal = Principal::new(claims.sub.as_str(), rights(scopes));
        Ok(principal
            .with_source(source)
            .with_rate(self.settings.rate)
            .with_valid_until(valid_until(claims.exp)))
    }

    /// The claims of a token whose signature is valid. Nothing else about them is checked.
    fn verified(&self, token: &str) -> Result<Claims, &'static str> {
        let header = header_of(token).ok_or("the JWT has a malformed header or algorithm")?;
        if header.crit.is_some() {
            return Err("the JWT has extensions that must be understood");
        }
        let keys = self.keys.current();
        let key = select(&keys, header.kid.as_deref(), header.alg);
        let key = key.ok_or("the JWT has no known key id")?;
        // The algorithms of a key are asymmetric and of its kind, so neither `none` nor an HMAC
        // with the public key as its secret gets past this.
        if !key.algorithms.contains(&header.alg) {
            return Err("the JWT has an algorithm that is not its key's");
        }
        let mut signature_only = Validation::new(header.alg);
        signature_only.required_spec_claims.clear();
        signature_only.validate_exp = false;
        signature_only.validate_aud = false;
        let token = decode::<Claims>(token, &key.key, &signature_only);
        Ok(token
            .map_err(|_| "the JWT has an invalid signature or claims")?
            .claims)
    }
}

/// When a token of this `exp` is refused. None if that is later than any time.
fn valid_until(exp: f64) -> Option<Timestamp> {
    // The cast saturates.
    Timestamp::from_second((exp + LEEWAY_SECS).ceil() as i64).ok()
}

fn header_of(token: &str) -> Option<TokenHeader> {
    let (header, _) = token.split_once('.')?;
    let json = URL_SAFE_NO_PAD.decode(header).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The rights of scopes. One text may contain several scopes, separated by spaces.
fn rights(scopes: &[String]) -> Rights {
    let mut rights = Rights::default();
    for scope in scopes.iter().flat_map(|scopes| scopes.split(' ')) {
        match scope.split_once(':') {
            None if scope == "status" => rights.status = true,
            Some(("post", ty)) if !ty.is_empty() => rights.post.push(ty.to_owned()),
            Some(("stream", ty)) if !ty.is_empty() => rights.stream.push(ty.to_owned()),
            _ => {}
        }
    }
    rights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_rights_and_unknown_ones_are_ignored() {
        let scopes = [
            "openid post:shop.order-placed.v1 post:depot.*".to_owned(),
            "stream:shop.*".to_owned(),
        ];
        let granted = rights(&scopes);
        assert_eq!(granted.post, ["shop.order-placed.v1", "depot.*"]);
        assert_eq!(granted.stream, ["shop.*"]);
        assert!(!granted.status);
        assert!(rights(&["status".to_owned()]).status);
        for other in [
            "", " ", "post:", "post", "Post:a", "status:", "admin", "stream:",
        ] {
            assert_eq!(rights(&[other.to_owned()]), Rights::default(), "{other:?}");
        }
    }

    #[test]
    fn settings_that_accept_anybody_are_refused() {
        let settings = || JwtSettings::new("keys.json", "https://issuer.example", "gateway");
        assert!(settings().validate().is_ok());
        let mut no_issuer = settings();
        no_issuer.issuer.clear();
        let mut no_audience = settings();
        no_audience.audience.clear();
        for refused in [
            no_issuer,
            no_audience,
            settings().with_source("/callers"),
            settings().with_rate(0),
        ] {
            assert!(refused.validate().is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_token_is_valid_until_its_leeway_ends() {
        for (exp, expected) in [(0.0, Some(30)), (0.5, Some(31)), (1e300, None)] {
            let until = valid_until(exp).map(Timestamp::as_second);
            assert_eq!(until, expected, "{exp}");
        }
    }

    #[test]
    fn headers_with_other_algorithms_are_malformed() {
        for (json, expected) in [
            (r#"{"alg":"ES256"}"#, true),
            (r#"{"alg":"none"}"#, false),
            (r#"{"alg":"None"}"#, false),
            (r#"{"alg":"ES256","alg":"none"}"#, false),
            (r#"{"alg":["ES256"]}"#, false),
            (r#"{"kid":"a"}"#, false),
            ("[]", false),
        ] {
            let token = format!("{}.e30.", URL_SAFE_NO_PAD.encode(json));
            assert_eq!(header_of(&token).is_some(), expected, "{json}");
        }
    }
}

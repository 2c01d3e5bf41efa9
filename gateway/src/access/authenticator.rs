//! Finds the caller of a request by its bearer token.
//!
//! Every refused token gets the same answer, so that it tells nothing about the cause. The cause
//! is logged at the level debug, without the token.

use super::jwt::JwtVerifier;
use super::token_file::TokenFile;
use super::url_tokens::has_token;
use super::{AccessError, JwtSettings, Principal};
use crate::http::{Problem, ProblemKind};
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// The size that a token may have. A larger one is refused unread.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Finds the [`Principal`] of a request. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    mode: Arc<Mode>,
}

enum Mode {
    Open(Principal),
    Tokens {
        file: Option<TokenFile>,
        jwt: Option<Box<JwtVerifier>>,
    },
}

impl Authenticator {
    /// No authentication: every request is this caller's. For development.
    pub fn open(principal: Principal) -> Self {
        Self {
            mode: Arc::new(Mode::Open(principal)),
        }
    }

    /// Authentication by a token file, by JSON Web Tokens, or by both.
    pub fn builder() -> AuthenticatorBuilder {
        AuthenticatorBuilder::default()
    }

    /// The caller, by the header `Authorization: Bearer <token>`. HTTP/2 and gRPC have the same
    /// header.
    ///
    /// With a key set, a token with two dots is verified as a JSON Web Token, any other one is
    /// looked up in the token file.
    ///
    /// # Errors
    /// [`ProblemKind::Malformed`] if there are several such headers, and otherwise
    /// [`ProblemKind::Unauthenticated`], with the same text for every cause.
    pub fn principal(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        let (file, jwt) = match &*self.mode {
            Mode::Open(principal) => return Ok(principal.clone()),
            Mode::Tokens { file, jwt } => (file.as_ref(), jwt.as_deref()),
        };
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (first, second) = (values.next(), values.next());
        if second.is_some() {
            let detail = "send one Authorization header, not several";
            return Err(Problem::new(ProblemKind::Malformed, detail));
        }
        let token = first.and_then(token_of).ok_or("no bearer token");
        let now = Timestamp::now();
        let found = token.and_then(|token| match jwt {
            Some(jwt) if token.matches('.').count() == 2 => by_jwt(jwt, file, token, now),
            _ => match file {
                Some(file) => file.principal(token, now),
                None => Err("the token is no JWT"),
            },
        });
        found.map_err(|reason| {
            tracing::debug!(reason, "a request was refused for its token");
            let detail = "send a valid token in the header Authorization: Bearer <token>";
            Problem::new(ProblemKind::Unauthenticated, detail)
        })
    }

    /// Finds the caller of a request, and marks its token as sensitive.
    ///
    /// # Errors
    /// Those of [`principal`](Self::principal), and [`ProblemKind::Malformed`] for a token in the
    /// URL.
    pub(crate) fn identify<B>(&self, request: &mut Request<B>) -> Result<Principal, Problem> {
        if request.uri().query().is_some_and(has_token) {
            let detail = "send the token in the header Authorization: Bearer <token>, not in the \
                          URL, which others log; replace the token that was sent";
            return Err(Problem::new(ProblemKind::Malformed, detail));
        }
        let principal = self.principal(request.headers())?;
        if let Some(value) = request.headers_mut().get_mut(AUTHORIZATION) {
            value.set_sensitive(true);
        }
        Ok(principal)
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Authenticator");
        match &*self.mode {
            Mode::Open(principal) => debug.field("open", principal),
            Mode::Tokens { file, jwt } => debug
                .field("token_file", &file.is_some())
                .field("jwt", &jwt.is_some()),
        };
        debug.finish()
    }
}

/// Builds an [`Authenticator`].
#[derive(Debug, Default)]
#[must_use]
pub struct AuthenticatorBuilder {
    token_file: Option<PathBuf>,
    jwt: Option<JwtSettings>,
}

impl AuthenticatorBuilder {
    /// Accepts the tokens of a file, which contains their SHA-256 hashes. It is read once: restart
    /// the gateway to revoke a token.
    ///
    /// ```toml
    /// [[tokens]]
    /// name = "mobile"
    /// sha256 = "…"                        # printed by `gateway token new`
    /// source = "/callers/mobile"          # default: /callers/<name>
    /// rate = 100                          # requests per second; default: no limit of its own
    /// expires = "2027-01-01T00:00:00Z"    # default: never
    /// [tokens.rights]                     # default: none
    /// post = ["shop.*"]
    /// stream = ["shop.order-placed.v1"]
    /// status = true
    /// ```
    pub fn with_token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token_file = Some(path.into());
        self
    }

    /// Accepts JSON Web Tokens.
    pub fn with_jwt(mut self, settings: JwtSettings) -> Self {
        self.jwt = Some(settings);
        self
    }

    /// Reads the files.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub fn build(self) -> Result<Authenticator, AccessError> {
        if self.token_file.is_none() && self.jwt.is_none() {
            return Err(AccessError::NothingConfigured);
        }
        let file = self
            .token_file
            .as_deref()
            .map(TokenFile::open)
            .transpose()?;
        let jwt = self.jwt.map(JwtVerifier::open).transpose()?.map(Box::new);
        Ok(Authenticator {
            mode: Arc::new(Mode::Tokens { file, jwt }),
        })
    }
}

/// The middleware: adds the [`Principal`] to the request, or refuses the request.
///
/// A token in the URL is refused with 400 even where no token is needed, so that callers notice
/// before it stands in logs everywhere. The `Authorization` header is marked as sensitive.
pub async fn authenticate(
    State(authenticator): State<Authenticator>,
    mut request: Request,
    next: Next,
) -> Response {
    match authenticator.identify(&mut request) {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// The caller of a JSON Web Token. The issuer must not be able to name a caller of the token file:
/// it would share its `Idempotency-Key`s and the identity of its events.
fn by_jwt(
    jwt: &JwtVerifier,
    file: Option<&TokenFile>,
    token: &str,
    now: Timestamp,
) -> Result<Principal, &'static str> {
    let caller = jwt.principal(token, now)?;
    match file {
        Some(file) if file.reserves(&caller) => Err("the JWT names a caller of the token file"),
        _ => Ok(caller),
    }
}

/// The token of an `Authorization` header, if its scheme is `Bearer`.
fn token_of(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    let is_token = (1..=MAX_TOKEN_BYTES).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("bearer") && is_token).then_some(token)
}

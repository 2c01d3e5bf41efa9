//! Callers: which tokens are accepted, from where they may come, and that refusals tell nothing.
//!
//! Every test goes through the middleware, as a route does.

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::{Extension, Router};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use evenkeel_gateway::access::{
    AccessError, Authenticator, JwtSettings, Principal, Rights, authenticate, hash_token, new_token,
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, get_current_timestamp};
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tower::ServiceExt;

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "gateway";

/// A key pair of these tests, which protects nothing.
struct Pair {
    kid: &'static str,
    algorithm: Algorithm,
    /// PKCS #8.
    private: &'static str,
    x: &'static str,
    y: &'static str,
}

const FIRST: Pair = Pair {
    kid: "first",
    algorithm: Algorithm::ES256,
    private: "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgX9u5smzvjYwlu+mYV8vctV8lX3JsSNWt6x\
              KdnLmWwJ+hRANCAAS7gpYet3CG/RZDQ9TKCcsLhykXa1TdESzKAck6AMxtTgjT7K6tsULazp5d8IKL7nre\
              wBrjR947IeeyEbZuetyA",
    x: "u4KWHrdwhv0WQ0PUygnLC4cpF2tU3REsygHJOgDMbU4",
    y: "CNPsrq2xQtrOnl3wgovuet7AGuNH3jsh57IRtm563IA",
};

const SECOND: Pair = Pair {
    kid: "second",
    algorithm: Algorithm::ES256,
    private: "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgv8ArXuIzq1n+xzXYjsV9+NUK0UGgmKRYkH\
              5FbDusHlKhRANCAATgMbstNhZ4aiAuPHWZdOb/zyCauMwZwZVkUPHJUxdkBbHpDx3q8QdsUDOYPUzC73FH\
              ycTObSFj8mzFz1S1/Zbs",
    x: "4DG7LTYWeGogLjx1mXTm_88gmrjMGcGVZFDxyVMXZAU",
    y: "sekPHerxB2xQM5g9TMLvcUfJxM5tIWPybMXPVLX9luw",
};

const EDWARDS: Pair = Pair {
    kid: "edwards",
    algorithm: Algorithm::EdDSA,
    private: "MC4CAQAwBQYDK2VwBCIEIGioDpNzgaVrZiRgyC7wsHxrYSXJMo784/bJoPLOpvE/",
    x: "a3WzG02EcA_0Kg7Vc1xYmGWuL7n9xOMQPiikkJIVheE",
    y: "",
};

impl Pair {
    fn public(&self) -> Value {
        match self.algorithm {
            Algorithm::EdDSA => json!({
                "kid": self.kid, "kty": "OKP", "crv": "Ed25519", "x": self.x,
            }),
            _ => json!({
                "kid": self.kid, "kty": "EC", "crv": "P-256", "x": self.x, "y": self.y,
            }),
        }
    }

    fn header(&self) -> Value {
        json!({"typ": "JWT", "alg": self.algorithm, "kid": self.kid})
    }

    /// A token with this header and these claims, signed with this key.
    fn sign(&self, header: &Value, claims: &Value) -> String {
        let der = STANDARD.decode(self.private).expect("base64");
        let key = match self.algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_der(&der),
            _ => EncodingKey::from_ec_der(&der),
        };
        signed(header, claims, &key, self.algorithm)
    }

    /// A token with these claims.
    fn token(&self, claims: &Value) -> String {
        self.sign(&self.header(), claims)
    }
}

/// A token whose header can name another algorithm than the one that signs.
fn signed(header: &Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = unsigned(header, claims);
    let signature = crypto::sign(message.as_bytes(), key, algorithm).expect("a signature");
    format!("{message}.{signature}")
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// Valid claims, with the given ones added or, if they are null, removed.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "mobile",
        "exp": get_current_timestamp() + 600,
        "scope": "openid post:shop.* status",
    });
    let (Some(members), Value::Object(changes)) = (claims.as_object_mut(), changes) else {
        panic!("both are objects")
    };
    for (name, value) in changes {
        match value {
            Value::Null => members.remove(&name),
            value => members.insert(name, value),
        };
    }
    claims
}

/// Writes the key set with its own modification time, so that every change is seen.
fn write_keys(path: &Path, text: &str, modified_secs: u64) {
    std::fs::write(path, text).expect("written");
    let file = File::options().write(true).open(path).expect("opened");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(modified_secs);
    file.set_modified(time).expect("the time is set");
}

fn key_set(pairs: &[&Pair]) -> String {
    let keys: Vec<Value> = pairs.iter().map(|pair| pair.public()).collect();
    json!({ "keys": keys }).to_string()
}

/// A folder with a key set.
fn keys(pairs: &[&Pair]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("keys.json");
    write_keys(&path, &key_set(pairs), 1);
    (dir, path)
}

/// A folder with a token file of one caller, `operator`.
fn tokens(token: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("tokens.toml");
    let hash = hash_token(token);
    let text = format!("[[tokens]]\nname = \"operator\"\nsha256 = \"{hash}\"\n");
    std::fs::write(&path, text).expect("written");
    (dir, path)
}

fn jwt(path: &Path) -> Router {
    let settings = JwtSettings::new(path, ISSUER, AUDIENCE);
    let authenticator = Authenticator::builder().with_jwt(settings).build();
    router(authenticator.expect("valid keys"))
}

/// A route that answers with the caller's name, source and rights.
fn router(authenticator: Authenticator) -> Router {
    async fn who(Extension(caller): Extension<Principal>, headers: HeaderMap) -> String {
        let header = headers.get(AUTHORIZATION);
        assert!(
            header.is_none_or(|value| value.is_sensitive()),
            "else it may be logged"
        );
        let may_post = caller.rights.may_post("shop.order-placed.v1");
        format!(
            "{} {} {may_post} {}",
            caller.name, caller.source, caller.rights.status
        )
    }
    Router::new()
        .route("/", get(who))
        .layer(from_fn_with_state(authenticator, authenticate))
}

async fn respond(router: &Router, uri: &str, authorization: &[&str]) -> Response<Body> {
    let mut request = Request::get(uri);
    for value in authorization {
        request = request.header(AUTHORIZATION, *value);
    }
    let request = request.body(Body::empty()).expect("a request");
    let response = router.clone().oneshot(request).await;
    response.expect("a router never fails")
}

async fn body(response: Response<Body>) -> String {
    let bytes = to_bytes(response.into_body(), 64 * 1024)
        .await
        .expect("a body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The answer to a request with this bearer token.
async fn answer(router: &Router, token: &str) -> (StatusCode, String) {
    let response = respond(router, "/", &[&*format!("Bearer {token}")]).await;
    (response.status(), body(response).await)
}

#[tokio::test]
async fn valid_jwts_name_the_caller_and_its_rights() {
    let (_dir, path) = keys(&[&FIRST, &EDWARDS]);
    let router = jwt(&path);
    let now = get_current_timestamp();
    let of = |sub: &str, source: &str| format!("{sub} {source} true true");
    let mobile = of("mobile", "/callers/mobile");
    for (token, expected) in [
        (FIRST.token(&claims(json!({}))), mobile.clone()),
        (EDWARDS.token(&claims(json!({}))), mobile.clone()),
        (
            FIRST.token(&claims(json!({"aud": ["other", AUDIENCE]}))),
            mobile.clone(),
        ),
        (
            FIRST.token(&claims(json!({"scope": ["post:*", "status"]}))),
            mobile.clone(),
        ),
        (
            FIRST.token(&claims(json!({"exp": now - 10, "nbf": now + 10}))),
            mobile.clone(),
        ),
        (
            FIRST.token(&claims(json!({"exp": now as f64 + 60.5}))),
            mobile,
        ),
        (
            FIRST.token(&claims(json!({"sub": "auth0|1"}))),
            of("auth0|1", "/callers/auth0%7C1"),
        ),
        (
            FIRST.token(&claims(json!({"scope": null}))),
            "mobile /callers/mobile false false".to_owned(),
        ),
    ] {
        assert_eq!(answer(&router, &token).await, (StatusCode::OK, expected));
    }
}

#[tokio::test]
async fn invalid_jwts_are_refused_with_one_answer() {
    let (_dir, path) = keys(&[&FIRST, &EDWARDS]);
    let router = jwt(&path);
    let good = FIRST.token(&claims(json!({})));
    assert_eq!(answer(&router, &good).await.0, StatusCode::OK);

    let refused = forged(&good).into_iter().chain(with_invalid_claims());
    let (_, expected) = answer(&router, "x").await;
    for (case, token) in refused {
        let response = respond(&router, "/", &[&*format!("Bearer {token}")]).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{case}");
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer", "{case}");
        assert_eq!(body(response).await, expected, "{case}");
    }
}

/// Tokens with valid claims that the issuer did not sign so.
fn forged(good: &str) -> Vec<(&'static str, String)> {
    let valid = claims(json!({}));
    let with_header = |changes: Value| {
        let mut header = FIRST.header();
        for (name, value) in changes.as_object().expect("an object") {
            header[name] = value.clone();
        }
        header
    };
    let none = unsigned(&with_header(json!({"alg": "none"})), &valid);
    let hmac = |secret: &[u8]| {
        let header = with_header(json!({"alg": "HS256"}));
        signed(
            &header,
            &valid,
            &EncodingKey::from_secret(secret),
            Algorithm::HS256,
        )
    };
    let coordinate = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64url");
    let point = [vec![4], coordinate(FIRST.x), coordinate(FIRST.y)].concat();
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let admin = claims(json!({"sub": "admin"}));
    let other_claims = unsigned(&FIRST.header(), &admin);
    let no_kid = json!({"alg": "ES256"});
    vec![
        ("alg none without a signature", format!("{none}.")),
        ("alg none with a signature", format!("{none}.{signature}")),
        ("no signature", format!("{message}.")),
        ("HMAC with the public point", hmac(&point)),
        (
            "HMAC with the key set",
            hmac(key_set(&[&FIRST, &EDWARDS]).as_bytes()),
        ),
        ("HMAC with the coordinate's text", hmac(FIRST.x.as_bytes())),
        ("HMAC with nothing", hmac(b"")),
        ("other claims", format!("{other_claims}.{signature}")),
        (
            "another key under a known id",
            SECOND.sign(&FIRST.header(), &valid),
        ),
        ("a key that the token brings", {
            let header = with_header(json!({"jwk": SECOND.public()}));
            SECOND.sign(&header, &valid)
        }),
        ("an unknown key id", SECOND.token(&valid)),
        ("no key id", FIRST.sign(&no_kid, &valid)),
        ("the id of a key of another kind", {
            FIRST.sign(&with_header(json!({"kid": EDWARDS.kid})), &valid)
        }),
        ("an algorithm of another kind", {
            FIRST.sign(&with_header(json!({"alg": "RS256"})), &valid)
        }),
        (
            "an extension",
            FIRST.sign(&with_header(json!({"crit": ["exp"]})), &valid),
        ),
        ("four parts", format!("{good}.x")),
        ("two parts", message.to_owned()),
        ("no JSON", "x.y.z".to_owned()),
        ("dots", "..".to_owned()),
        (
            "a huge token",
            FIRST.token(&claims(json!({"padding": "x".repeat(8 * 1024)}))),
        ),
    ]
}

/// Tokens that the issuer signed, with claims that are not acceptable.
fn with_invalid_claims() -> impl Iterator<Item = (&'static str, String)> {
    let now = get_current_timestamp();
    let changes = [
        ("expired", json!({"exp": now - 60})),
        ("no expiry", json!({"exp": null})),
        ("an expiry of the wrong type", json!({"exp": "9999999999"})),
        ("not valid yet", json!({"nbf": now + 60})),
        ("a start of the wrong type", json!({"nbf": "9999999999"})),
        ("a start too far to be a time", json!({"nbf": 1e300})),
        ("another issuer", json!({"iss": "https://other.example"})),
        ("no issuer", json!({"iss": null})),
        ("a list of issuers", json!({"iss": [ISSUER]})),
        ("another audience", json!({"aud": "other"})),
        ("other audiences", json!({"aud": ["other", "others"]})),
        ("no audience", json!({"aud": null})),
        ("no subject", json!({"sub": null})),
        ("an empty subject", json!({"sub": ""})),
        ("a subject with a line break", json!({"sub": "a\nb"})),
        ("a subject that is not ASCII", json!({"sub": "zoë"})),
        ("a long subject", json!({"sub": "s".repeat(129)})),
        ("scopes of the wrong type", json!({"scope": 7})),
    ];
    changes
        .into_iter()
        .map(|(case, changes)| (case, FIRST.token(&claims(changes))))
}

#[tokio::test]
async fn a_key_id_may_be_missing_if_there_is_one_key() {
    let (_dir, path) = keys(&[&FIRST]);
    let token = FIRST.sign(&json!({"alg": "ES256"}), &claims(json!({})));
    assert_eq!(answer(&jwt(&path), &token).await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_changed_key_set_is_used_within_a_second() {
    let (_dir, path) = keys(&[&FIRST]);
    let router = jwt(&path);
    let (first, second) = (
        FIRST.token(&claims(json!({}))),
        SECOND.token(&claims(json!({}))),
    );
    let accepted = async || {
        tokio::time::advance(Duration::from_secs(1)).await;
        let mut accepted = Vec::new();
        for token in [&first, &second] {
            accepted.push(answer(&router, token).await.0 == StatusCode::OK);
        }
        accepted
    };
    assert_eq!(accepted().await, [true, false]);
    write_keys(&path, &key_set(&[&FIRST, &SECOND]), 2);
    assert_eq!(accepted().await, [true, true]);
    write_keys(&path, "{\"keys\": [", 3);
    assert_eq!(accepted().await, [true, true], "a broken file");
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(accepted().await, [true, true], "no file");
    write_keys(&path, &key_set(&[&SECOND]), 4);
    assert_eq!(accepted().await, [false, true]);
}

#[tokio::test]
async fn tokens_of_the_file_and_jwts_are_told_apart() {
    let token = new_token();
    let (_tokens, token_file) = tokens(&token);
    let (_keys, path) = keys(&[&FIRST]);
    let settings = JwtSettings::new(&path, ISSUER, AUDIENCE);
    let both = Authenticator::builder()
        .with_token_file(&token_file)
        .with_jwt(settings)
        .build();
    let both = both.expect("valid files");
    assert!(!format!("{both:?}").contains(&hash_token(&token)));
    let router = router(both);

    let file = answer(&router, &token).await;
    assert_eq!(
        file,
        (
            StatusCode::OK,
            "operator /callers/operator false false".to_owned()
        )
    );
    let jwt = FIRST.token(&claims(json!({})));
    assert_eq!(answer(&router, &jwt).await.0, StatusCode::OK);
    let same_name = FIRST.token(&claims(json!({"sub": "operator"})));
    for refused in [
        same_name,
        new_token(),
        hash_token(&token),
        format!("{token}x"),
    ] {
        assert_eq!(answer(&router, &refused).await.0, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn exactly_one_bearer_header_is_accepted() {
    let token = new_token();
    let (_dir, path) = tokens(&token);
    let authenticator = Authenticator::builder().with_token_file(&path).build();
    let router = router(authenticator.expect("a valid file"));
    let bearer = format!("Bearer {token}");
    for (headers, expected) in [
        (vec![bearer.clone()], StatusCode::OK),
        (vec![format!("bearer  {token} ")], StatusCode::OK),
        (
            vec![bearer.clone(), bearer.clone()],
            StatusCode::BAD_REQUEST,
        ),
        (
            vec![bearer.clone(), "Basic eDp5".to_owned()],
            StatusCode::BAD_REQUEST,
        ),
        (vec![], StatusCode::UNAUTHORIZED),
        (vec!["Bearer".to_owned()], StatusCode::UNAUTHORIZED),
        (vec!["Bearer ".to_owned()], StatusCode::UNAUTHORIZED),
        (vec![token.clone()], StatusCode::UNAUTHORIZED),
        (vec![format!("Basic {token}")], StatusCode::UNAUTHORIZED),
        (vec![format!("{bearer} {token}")], StatusCode::UNAUTHORIZED),
        (
            vec![format!("{bearer}, {bearer}")],
            StatusCode::UNAUTHORIZED,
        ),
        (vec!["Bearer zoë".to_owned()], StatusCode::UNAUTHORIZED),
    ] {
        let values: Vec<&str> = headers.iter().map(String::as_str).collect();
        let response = respond(&router, "/", &values).await;
        assert_eq!(response.status(), expected, "{} headers", headers.len());
    }
}

#[tokio::test]
async fn tokens_in_urls_are_refused_in_every_mode() {
    let token = new_token();
    let (_dir, path) = tokens(&token);
    let closed = Authenticator::builder().with_token_file(&path).build();
    let open = Authenticator::open(Principal::new("developer", Rights::all()));
    for authenticator in [closed.expect("a valid file"), open] {
        let router = router(authenticator);
        for name in [
            "access_token",
            "token",
            "api_key",
            "Access_Token",
            "%74oken",
        ] {
            let uri = format!("/?type=a&{name}={token}");
            let response = respond(&router, &uri, &[&*format!("Bearer {token}")]).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{name}");
            assert!(!body(response).await.contains(&token), "{name}");
        }
        let response = respond(&router, "/?type=token", &[&*format!("Bearer {token}")]).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn an_open_gateway_needs_no_token() {
    let principal = Principal::new("developer", Rights::all());
    let router = router(Authenticator::open(principal));
    let response = respond(&router, "/", &[]).await;
    assert_eq!(
        body(response).await,
        "developer /callers/developer true true"
    );
}

#[test]
fn an_authenticator_without_valid_files_is_not_built() {
    let dir = tempfile::tempdir().expect("a folder");
    let missing = dir.path().join("missing");
    let builder = Authenticator::builder;
    let nothing = builder().build().expect_err("nothing is configured");
    assert!(
        matches!(nothing, AccessError::NothingConfigured),
        "{nothing}"
    );
    let settings = JwtSettings::new(&missing, ISSUER, AUDIENCE);
    for builder in [
        builder().with_token_file(&missing),
        builder().with_jwt(settings),
    ] {
        let error = builder.build().expect_err("no such file");
        assert!(matches!(error, AccessError::Unreadable { .. }), "{error}");
    }
}

//! Keeps other web sites from using a visitor's browser against the gateway, and answers the
//! preflights of the sites that may.
//!
//! Browsers name the site of a request in `Sec-Fetch-Site` and `Origin`. Other clients send
//! neither, and pass. Reads pass too: without CORS headers, a browser shows their answer to no
//! other site. A WebSocket is no read, as browsers apply no CORS to it.

use crate::http::{Problem, ProblemKind};
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a site that is allowed may send, beside attributes of an event.
const ALLOWED_HEADERS: &str = "authorization, content-type, idempotency-key, if-none-match, \
                               last-event-id, traceparent, tracestate, x-request-timeout";
/// The prefix of a header with an attribute.
const ATTRIBUTE_PREFIX: &str = "ce-";
/// The most attributes of an event: 8 of the specification, and 16 extensions.
const ATTRIBUTES_MAX: usize = 24;
const ALLOWED_METHODS: &str = "GET, POST";
/// What a site that is allowed may read beside the body.
const EXPOSED_HEADERS: &str = "etag, idempotency-replayed, location, read-model-lag, \
                               retry-after, trace-id, traceparent, worker";
/// How long a browser may keep the answer of a preflight, in seconds.
const PREFLIGHT_SECONDS: &str = "600";

/// The sites whose pages may use the gateway.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct CrossSite {
    /// Origins, such as `https://shop.example.org`.
    pub(in crate::server) allowed_origins: Arc<[String]>,
    /// Whether only names and addresses of this machine are accepted as `Host`. For a gateway
    /// without authentication: otherwise a site whose name resolves to 127.0.0.1 counts as the
    /// same site (DNS rebinding).
    pub(in crate::server) local_only: bool,
}

/// Answers 403 to a forbidden site, and preflights of an allowed one.
pub(super) async fn check_site<F>(
    settings: CrossSite,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    let Ok(host) = host(&request) else {
        let detail = "a request names one host, in one valid Host header";
        return Problem::new(ProblemKind::Malformed, detail).into_response();
    };
    if settings.local_only && !host.as_ref().is_none_or(is_local) {
        let detail = "this gateway has no authentication; it answers for localhost only";
        return Problem::new(ProblemKind::Forbidden, detail).into_response();
    }
    let allowed = allowed_origin(&settings.allowed_origins, request.headers());
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let is_foreign = changes_state(&request) && is_cross_site(host.as_ref(), request.headers());
    // It may be a part of the connection's read buffer.
    drop(host);
    let mut response = if allowed.is_some() {
        match is_preflight {
            true => preflight(&allowed_headers(request.headers())),
            false => next(request).await,
        }
    } else if is_preflight || is_foreign {
        let detail = "requests from pages of this site are not allowed; see allowed_origins";
        Problem::new(ProblemKind::Forbidden, detail).into_response()
    } else {
        next(request).await
    };
    let headers = response.headers_mut();
    if !settings.allowed_origins.is_empty() {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let exposed = HeaderValue::from_static(EXPOSED_HEADERS);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response
}

/// The origin of the request, if its pages may use the gateway. A copy: the request's headers are a
/// part of the connection's read buffer.
fn allowed_origin(known: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?.as_bytes();
    let known = known.iter().find(|known| known.as_bytes() == origin)?;
    HeaderValue::from_str(known).ok()
}

fn preflight(allowed_headers: &str) -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// The headers that a preflight allows: [`ALLOWED_HEADERS`], and those that it asks for and that
/// can be attributes. The gateway does not know the names of extensions before.
fn allowed_headers(preflight: &HeaderMap) -> String {
    let asked = preflight.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let asked = asked.iter().filter_map(|names| names.to_str().ok());
    let names = asked.flat_map(|names| names.split(',')).map(str::trim);
    let is_attribute = |name: &&str| {
        let name = name.strip_prefix(ATTRIBUTE_PREFIX);
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        name.is_some_and(|name| (1..=20).contains(&name.len()) && name.bytes().all(is_name))
    };
    let mut allowed = ALLOWED_HEADERS.to_owned();
    for name in names.filter(is_attribute).take(ATTRIBUTES_MAX) {
        allowed.push_str(", ");
        allowed.push_str(name);
    }
    allowed
}

/// Whether a request may have an effect, or begins a WebSocket.
fn changes_state(request: &Request) -> bool {
    let is_read = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    !is_read || request.headers().contains_key(header::UPGRADE)
}

/// Whether a browser sends the request for a page of another site.
fn is_cross_site(host: Option<&Authority>, headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    // A browser without Sec-Fetch-Site. An origin that has no host, such as `null`, is another.
    let origin = origin.to_str().ok().and_then(|origin| {
        let (_, authority) = origin.split_once("://")?;
        authority.parse::<Authority>().ok()
    });
    origin.is_none() || origin.as_ref() != host
}

/// The authority that the client named: `:authority` of HTTP/2, or `Host`. An error if it did not
/// name one host (RFC 9112, 3.2). HTTP/2 has `:authority`; HTTP/1.0 may name none.
fn host(request: &Request) -> Result<Option<Authority>, ()> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let named = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_11 => return Err(()),
        (None, _) => None,
        (Some(host), None) => Some(authority(host).ok_or(())?),
        (Some(_), Some(_)) => return Err(()),
    };
    Ok(request.uri().authority().cloned().or(named))
}

/// The authority in a valid `Host`.
fn authority(host: &HeaderValue) -> Option<Authority> {
    let host = host.to_str().ok().filter(|host| !host.contains('@'))?;
    host.parse().ok()
}

fn is_local(host: &Authority) -> bool {
    let name = host.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::{Body, Bytes};
    use axum::middleware::{Next, from_fn};
    use axum::routing::any;
    use tower::ServiceExt;

    const SHOP: &str = "https://shop.example.org";

    async fn answer(method: Method, headers: &[(&str, &str)], local_only: bool) -> Response {
        let settings = CrossSite {
            allowed_origins: Arc::from([SHOP.to_owned()]),
            local_only,
        };
        let layer = from_fn(move |request: Request, next: Next| {
            check_site(settings.clone(), request, |request| next.run(request))
        });
        let router: Router = Router::new()
            .route("/", any(async || StatusCode::OK))
            .layer(layer);
        let mut request = axum::http::Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        router.oneshot(request).await.expect("it is infallible")
    }

    #[tokio::test]
    async fn pages_of_other_sites_cannot_change_state() {
        let host = ("host", "gateway:8080");
        let evil = ("origin", "https://evil.example.org");
        for (method, headers, expected) in [
            (Method::POST, &[host][..], 200),
            (Method::POST, &[host, evil], 403),
            (Method::GET, &[host, evil], 200),
            (Method::GET, &[host, evil, ("upgrade", "websocket")], 403),
            (Method::POST, &[host, ("origin", "null")], 403),
            (
                Method::POST,
                &[host, ("origin", "http://gateway:8080")],
                200,
            ),
            (Method::POST, &[host, ("origin", SHOP)], 200),
            (Method::POST, &[host, ("sec-fetch-site", "cross-site")], 403),
            (Method::POST, &[host, ("sec-fetch-site", "same-site")], 403),
            (
                Method::POST,
                &[host, evil, ("sec-fetch-site", "same-origin")],
                200,
            ),
        ] {
            let answer = answer(method.clone(), headers, false).await;
            assert_eq!(answer.status(), expected, "{method} {headers:?}");
        }
    }

    #[tokio::test]
    async fn only_allowed_sites_get_a_preflight() {
        let asked = ("access-control-request-method", "POST");
        let allowed = answer(
            Method::OPTIONS,
            &[asked, ("host", "gateway:8080"), ("origin", SHOP)],
            false,
        )
        .await;
        assert_eq!(allowed.status(), 204);
        assert_eq!(allowed.headers()["access-control-allow-origin"], SHOP);
        let extensions: Vec<String> = (1..=15).map(|number| format!("ce-x{number}")).collect();
        let asked_names = format!(
            "ce-id,ce-source,ce-specversion,ce-subject,ce-time,ce-type,ce-tenant, ce-X,ce-a_b,\
             x-other,{}",
            extensions.join(",")
        );
        let asked_headers = ("access-control-request-headers", asked_names.as_str());
        let headers = [
            asked,
            asked_headers,
            ("host", "gateway:8080"),
            ("origin", SHOP),
        ];
        let extended = answer(Method::OPTIONS, &headers, false).await;
        let names = &extended.headers()["access-control-allow-headers"];
        let names: Vec<&str> = names.to_str().expect("names").split(", ").collect();
        for (name, is_allowed) in [
            ("authorization", true),
            ("ce-id", true),
            ("ce-tenant", true),
            // The last of 16 extensions.
            ("ce-x15", true),
            ("ce-X", false),
            ("ce-a_b", false),
            ("x-other", false),
        ] {
            assert_eq!(names.contains(&name), is_allowed, "{name}");
        }
        let other = answer(
            Method::OPTIONS,
            &[asked, ("host", "gateway:8080"), ("origin", "https://evil")],
            false,
        )
        .await;
        assert_eq!(other.status(), 403);
        assert!(!other.headers().contains_key("access-control-allow-origin"));
    }

    /// The buffer from which the head of a request was read: its values are parts of it.
    struct HeadBuffer(Arc<str>);

    impl AsRef<[u8]> for HeadBuffer {
        fn as_ref(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }

    #[tokio::test]
    async fn the_origin_is_not_kept_while_a_request_is_handled() {
        let text: Arc<str> = SHOP.into();
        let buffer = Bytes::from_owner(HeadBuffer(Arc::clone(&text)));
        let origin = HeaderValue::from_maybe_shared(buffer).expect("a header value");
        let request = axum::http::Request::post("/")
            .header(header::HOST, "gateway:8080")
            .header(header::ORIGIN, origin)
            .body(Body::empty());
        let settings = CrossSite {
            allowed_origins: Arc::from([SHOP.to_owned()]),
            local_only: false,
        };
        let handle = async |request: Request| {
            drop(request);
            assert_eq!(Arc::strong_count(&text), 1, "the head is kept");
            StatusCode::OK.into_response()
        };
        let answer = check_site(settings, request.expect("a request"), handle).await;
        assert_eq!(answer.headers()["access-control-allow-origin"], SHOP);
    }

    #[tokio::test]
    async fn without_authentication_only_local_names_are_served() {
        for (host, expected) in [
            ("localhost:8080", 200),
            ("127.0.0.1:8080", 200),
            ("[::1]:8080", 200),
            ("evil.example.org:8080", 403),
        ] {
            let answer = answer(Method::GET, &[("host", host)], true).await;
            assert_eq!(answer.status(), expected, "{host}");
        }
    }
}

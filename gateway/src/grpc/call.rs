//! What every call needs before its method runs: the caller, the context with the deadline, and
//! the `idempotency-key`. Knows no message.

use crate::access::{Authenticator, Principal};
use crate::http::{Problem, ProblemKind, RequestContext};
use crate::post::IdempotencyKey;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

/// The header with the deadline of a call.
const TIMEOUT_HEADER: &str = "grpc-timeout";
/// The content type that the fingerprint of a request includes.
const CONTENT_TYPE: &str = "application/grpc";

/// The methods that only read. Their messages are short.
const READS: [&str; 2] = ["/Get", "/Watch"];
/// The most bytes of such a message, with its frame. A cursor has at most 64 KiB, and the names of
/// the types are not longer.
const READ_BYTES_MAX: usize = 128 << 10;

/// Opens calls: finds their caller and their context.
#[derive(Clone)]
pub(super) struct Calls {
    authenticator: Authenticator,
    worker: Arc<str>,
}

impl Calls {
    pub(super) fn new(authenticator: Authenticator, worker: Arc<str>) -> Self {
        Self {
            authenticator,
            worker,
        }
    }

    /// The context and the caller of a request: those that a middleware found, or else those of
    /// the headers. The deadline is the earlier of `grpc-timeout` and that of the context.
    fn of(&self, request: &Request) -> Result<(RequestContext, Principal), Problem> {
        let (headers, extensions) = (request.headers(), request.extensions());
        let mut context = match extensions.get::<RequestContext>() {
            Some(context) => context.clone(),
            None => RequestContext::from_headers(headers, Arc::clone(&self.worker))?,
        };
        if let Some(timeout) = grpc_timeout(headers)? {
            let deadline = Instant::now() + timeout;
            let earlier = context
                .deadline
                .map_or(deadline, |other| other.min(deadline));
            context.deadline = Some(earlier);
        }
        let principal = match extensions.get::<Principal>() {
            Some(principal) => principal.clone(),
            None => self.authenticator.principal(headers)?,
        };
        Ok((context, principal))
    }
}

/// The middleware before all methods: refuses a call without a valid token before its message is
/// read, bounds the messages of methods that only read, and drops the method at the deadline. The
/// deadline of a stream that has begun is kept by the stream.
pub(super) async fn open(State(calls): State<Calls>, mut request: Request, next: Next) -> Response {
    let (context, principal) = match calls.of(&request) {
        Ok(found) => found,
        Err(problem) => return Status::from(problem).into_http(),
    };
    let deadline = context.deadline;
    request.extensions_mut().insert(context);
    request.extensions_mut().insert(principal);
    let path = request.uri().path();
    if READS.iter().any(|method| path.ends_with(method)) {
        request = request.map(short);
    }
    let Some(deadline) = deadline else {
        return next.run(request).await;
    };
    match timeout_at(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Status::from(deadline_exceeded()).into_http(),
    }
}

/// The body of a call that only reads. Fails with a status above [`READ_BYTES_MAX`].
fn short(body: Body) -> Body {
    let limited = Limited::new(body, READ_BYTES_MAX);
    Body::new(limited.map_err(|error| {
        if !error.is::<LengthLimitError>() {
            return error;
        }
        let detail = format!("a message of this method has at most {READ_BYTES_MAX} bytes");
        let status: Box<dyn Error + Send + Sync> = Box::new(Status::out_of_range(detail));
        status
    }))
}

/// A call of a known caller.
#[derive(Debug)]
pub(super) struct Call {
    /// The caller.
    pub(super) principal: Principal,
    /// The context, whose deadline is that of the call.
    pub(super) context: RequestContext,
    headers: HeaderMap,
}

impl Call {
    /// Splits a request that passed [`open`] into the call and its message.
    ///
    /// # Errors
    /// [`ProblemKind::Internal`] if it did not pass.
    pub(super) fn of<T>(request: tonic::Request<T>) -> Result<(Self, T), Problem> {
        let (metadata, mut extensions, message) = request.into_parts();
        let principal = extensions.remove::<Principal>();
        let context = extensions.remove::<RequestContext>();
        let (Some(principal), Some(context)) = (principal, context) else {
            let detail = "the call has no caller or no context";
            return Err(Problem::new(ProblemKind::Internal, detail));
        };
        let headers = metadata.into_headers();
        Ok((
            Self {
                principal,
                context,
                headers,
            },
            message,
        ))
    }

    /// The `idempotency-key` of the metadata. `request` is the encoded message: another message
    /// with the same key is a reuse.
    ///
    /// # Errors
    /// If the key is malformed.
    pub(super) fn idempotency_key(
        &self,
        path: &str,
        request: &[u8],
    ) -> Result<Option<IdempotencyKey>, Problem> {
        IdempotencyKey::of_request(&self.headers, &Method::POST, path, CONTENT_TYPE, request)
    }
}

/// What a call gets whose deadline passes.
pub(super) fn deadline_exceeded() -> Problem {
    let detail = "the deadline passed; if the call posts, it is not known whether the events were \
                  accepted: repeat it with the same idempotency-key or event id";
    Problem::new(ProblemKind::DeadlineExceeded, detail)
}

/// Reads `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get(TIMEOUT_HEADER) else {
        return Ok(None);
    };
    match value.to_str().ok().and_then(parse_timeout) {
        Some(timeout) => Ok(Some(timeout)),
        None => {
            let detail = "grpc-timeout must be one to eight digits and a unit: H, M, S, m, u or n";
            Err(Problem::new(ProblemKind::Malformed, detail))
        }
    }
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (unit_at, unit) = text.char_indices().next_back()?;
    let digits = text.get(..unit_at)?;
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain || digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    // Eight digits of hours in seconds are far below the limit of a u64, and of an Instant.
    Some(match unit {
        'H' => Duration::from_secs(number * 3_600),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Rights;
    use axum::Router;
    use axum::http::{HeaderName, HeaderValue};
    use axum::middleware::from_fn_with_state;
    use axum::routing::post;
    use tower::ServiceExt;

    fn calls() -> Calls {
        let principal = Principal::new("by-token", Rights::all());
        Calls::new(Authenticator::open(principal), "gateway-1".into())
    }

    fn request(timeout: &'static str) -> Request {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::POST;
        let name = HeaderName::from_static(TIMEOUT_HEADER);
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(timeout));
        request
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("0S", Some(Duration::ZERO)),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("100000000S", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_deadlines_holds() {
        for (timeout, seconds) in [("1S", 1), ("9S", 5)] {
            let mut request = request(timeout);
            let mut context = RequestContext::from_headers(&HeaderMap::new(), "middleware".into())
                .expect("no deadline");
            context.deadline = Some(Instant::now() + Duration::from_secs(5));
            request.extensions_mut().insert(context);
            let (context, _) = calls().of(&request).expect("a call");
            assert_eq!(context.time_left(), Some(Duration::from_secs(seconds)));
            assert_eq!(&*context.worker, "middleware");
        }
    }

    #[test]
    fn a_caller_that_a_middleware_found_is_taken() {
        let mut request = Request::new(Body::empty());
        let (_, principal) = calls().of(&request).expect("a call");
        assert_eq!(&*principal.name, "by-token");
        let found = Principal::new("by-middleware", Rights::default());
        request.extensions_mut().insert(found);
        let (_, principal) = calls().of(&request).expect("a call");
        assert_eq!(&*principal.name, "by-middleware");
    }

    #[tokio::test]
    async fn only_methods_that_post_take_long_messages() {
        async fn read(body: Body) -> String {
            match body.collect().await {
                Ok(_) => "read".to_owned(),
                Err(error) => format!("{:?}", Status::from_error(error.into()).code()),
            }
        }
        for (path, bytes, expected) in [
            ("/a.B/Watch", READ_BYTES_MAX, "read"),
            ("/a.B/Watch", READ_BYTES_MAX + 1, "OutOfRange"),
            ("/a.B/Get", READ_BYTES_MAX + 1, "OutOfRange"),
            ("/a.B/Post", READ_BYTES_MAX + 1, "read"),
        ] {
            let method = post(read).layer(from_fn_with_state(calls(), open));
            let router = Router::new().route(path, method);
            let mut request = request("9S");
            *request.uri_mut() = path.parse().expect("a path");
            *request.body_mut() = Body::from(vec![0; bytes]);
            let response = router.oneshot(request).await.expect("an answer");
            let answer = response.into_body().collect().await.expect("a text");
            assert_eq!(answer.to_bytes(), expected, "{path} {bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_method_is_dropped_at_the_deadline() {
        for (timeout, code) in [("1S", "4"), ("soon", "3")] {
            let method = post(std::future::pending::<()>);
            let method = method.layer(from_fn_with_state(calls(), open));
            let router = Router::new().route("/", method);
            let began = Instant::now();
            let response = router.oneshot(request(timeout)).await.expect("an answer");
            assert_eq!(response.headers()["grpc-status"], code, "{timeout}");
            assert!(began.elapsed() <= Duration::from_secs(1));
        }
    }
}

//! What every call needs before its method runs: the caller, the context with the deadline, the
//! admission of calls that post, and the `idempotency-key`. Knows no message.

use super::timeout::grpc_timeout;
use crate::access::{Authenticator, Principal};
use crate::admission::{Admission, AdmittedRequest, Outcome};
use crate::http::{Problem, ProblemKind, RequestContext};
use crate::post::IdempotencyKey;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE as CONTENT_TYPE_HEADER;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::error::Error;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

/// The content type that the fingerprint of a request includes.
const CONTENT_TYPE: &str = "application/grpc";
/// The content types of calls. gRPC-Web and messages in JSON are others.
const CONTENT_TYPES: [&str; 2] = [CONTENT_TYPE, "application/grpc+proto"];

/// The methods that post. They are admitted by load. The others only read, and have short messages.
const POSTS: [&str; 3] = ["/Post", "/Place", "/Cancel"];
/// The most bytes of a short message, with its frame. A cursor has at most 64 KiB, and the names of
/// the types are not longer.
const READ_BYTES_MAX: usize = 128 << 10;
/// The bytes before a message: whether it is compressed, and its length.
const FRAME_BYTES: usize = 5;

/// Opens calls: finds their caller and their context.
#[derive(Clone)]
pub(super) struct Calls {
    authenticator: Authenticator,
    worker: Arc<str>,
    admission: Admission,
    /// The most bytes of a message that posts, with its frame.
    post_bytes_max: usize,
}

impl Calls {
    /// `message_bytes_max` bounds the messages that post.
    pub(super) fn new(
        authenticator: Authenticator,
        worker: Arc<str>,
        admission: Admission,
        message_bytes_max: usize,
    ) -> Self {
        Self {
            authenticator,
            worker,
            admission,
            post_bytes_max: message_bytes_max.saturating_add(FRAME_BYTES),
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
/// read, admits calls that post before their messages are decoded, bounds the messages of the
/// others, and drops the method at the deadline. The deadline of a stream that has begun is kept by
/// the stream.
pub(super) async fn open(State(calls): State<Calls>, mut request: Request, next: Next) -> Response {
    if !is_grpc(request.headers()) {
        let detail = "this route speaks gRPC; its content type is application/grpc";
        let problem = Problem::new(ProblemKind::UnsupportedMediaType, detail);
        return problem
            .with_member("accepted", CONTENT_TYPES.to_vec())
            .into_response();
    }
    let (context, principal) = match calls.of(&request) {
        Ok(found) => found,
        Err(problem) => return Status::from(problem).into_http(),
    };
    let deadline = context.deadline;
    request.extensions_mut().insert(context);
    request.extensions_mut().insert(principal);
    let path = request.uri().path();
    if POSTS.iter().any(|method| path.ends_with(method)) {
        let (admission, bytes_max) = (&calls.admission, calls.post_bytes_max);
        return match AdmittedRequest::read(admission, request, bytes_max).await {
            Ok(admitted) => {
                let outcome = |response: &Response| outcome(response.headers());
                admitted.serve(next, outcome, timed_out).await
            }
            Err(problem) => Status::from(problem).into_http(),
        };
    }
    let request = request.map(short);
    let Some(deadline) = deadline else {
        return next.run(request).await;
    };
    match timeout_at(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => timed_out(),
    }
}

/// The answer to a call that was given up at its deadline.
fn timed_out() -> Response {
    Status::from(deadline_exceeded()).into_http()
}

/// The outcome of a call that posts. An error is in the head of the answer; without one, the reply
/// follows, which was made before.
fn outcome(headers: &HeaderMap) -> Outcome {
    match Status::from_header_map(headers).map(|status| status.code()) {
        None | Some(Code::Ok) => Outcome::Accepted,
        Some(Code::Unavailable) => Outcome::Refused,
        Some(Code::DeadlineExceeded) => Outcome::TimedOut,
        Some(_) => Outcome::Failed,
    }
}

/// Whether the content type is that of a call. Another is answered with 415, as gRPC asks for.
fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE_HEADER);
    let text = content_type.and_then(|value| value.to_str().ok());
    let essence = text.and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| {
        let mut types = CONTENT_TYPES.iter();
        types.any(|known| essence.trim().eq_ignore_ascii_case(known))
    })
}

/// The body of a call that only reads. Fails with the status of a problem above [`READ_BYTES_MAX`].
fn short(body: Body) -> Body {
    let limited = Limited::new(body, READ_BYTES_MAX);
    Body::new(limited.map_err(|error| {
        if !error.is::<LengthLimitError>() {
            return error;
        }
        let detail = format!("a message of this method has at most {READ_BYTES_MAX} bytes");
        let problem = Problem::new(ProblemKind::TooLarge, detail);
        let status: Box<dyn Error + Send + Sync> = Box::new(Status::from(problem));
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

#[cfg(test)]
mod tests {
    use super::super::timeout::TIMEOUT_HEADER;
    use super::*;
    use crate::access::Rights;
    use crate::admission::AdmissionSettings;
    use crate::store::Backlog;
    use axum::Router;
    use axum::http::{HeaderName, HeaderValue};
    use axum::middleware::from_fn_with_state;
    use axum::routing;
    use futures_util::{StreamExt, stream};
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;
    use tower::ServiceExt;

    /// The most bytes of a message that posts.
    const MESSAGE_BYTES_MAX: usize = 200 << 10;

    fn calls() -> Calls {
        calls_of(Principal::new("by-token", Rights::all()))
    }

    fn calls_of(principal: Principal) -> Calls {
        let settings = AdmissionSettings::outbox().with_concurrency(1, 1, 1);
        let admission = Admission::new(settings, Backlog::default);
        let authenticator = Authenticator::open(principal);
        Calls::new(
            authenticator,
            "gateway-1".into(),
            admission,
            MESSAGE_BYTES_MAX,
        )
    }

    fn request(timeout: &'static str) -> Request {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::POST;
        let name = HeaderName::from_static(TIMEOUT_HEADER);
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(timeout));
        let content_type = HeaderValue::from_static(CONTENT_TYPE);
        request
            .headers_mut()
            .insert(CONTENT_TYPE_HEADER, content_type);
        request
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
            ("/a.B/Watch", READ_BYTES_MAX + 1, "InvalidArgument"),
            ("/a.B/Get", READ_BYTES_MAX + 1, "InvalidArgument"),
            ("/a.B/Other", READ_BYTES_MAX + 1, "InvalidArgument"),
            ("/a.B/Post", READ_BYTES_MAX + 1, "read"),
            ("/a.B/Place", MESSAGE_BYTES_MAX + FRAME_BYTES, "read"),
        ] {
            let method = routing::post(read).layer(from_fn_with_state(calls(), open));
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
            let method = routing::post(std::future::pending::<()>);
            let method = method.layer(from_fn_with_state(calls(), open));
            let router = Router::new().route("/", method);
            let began = Instant::now();
            let response = router.oneshot(request(timeout)).await.expect("an answer");
            assert_eq!(response.headers()["grpc-status"], code, "{timeout}");
            assert!(began.elapsed() <= Duration::from_secs(1));
        }
    }

    /// The code of a call to `/a.B/Post`, and whether its method ran.
    async fn code_of(calls: &Calls, timeout: &'static str, body: Body) -> (String, bool) {
        let ran = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&ran);
        let method = move || async move {
            seen.fetch_add(1, Ordering::Relaxed);
        };
        let method = routing::post(method).layer(from_fn_with_state(calls.clone(), open));
        let router = Router::new().route("/a.B/Post", method);
        let mut request = request(timeout);
        *request.uri_mut() = axum::http::Uri::from_static("/a.B/Post");
        *request.body_mut() = body;
        let response = router.oneshot(request).await.expect("an answer");
        let code = Status::from_header_map(response.headers()).map(|status| status.code());
        let code = format!("{:?}", code.unwrap_or(Code::Ok));
        (code, ran.load(Ordering::Relaxed) > 0)
    }

    #[tokio::test(start_paused = true)]
    async fn posts_are_admitted_before_their_method_runs() {
        let chunk = || stream::once(async { Ok::<_, Infallible>("x") });
        let endless = || Body::from_stream(chunk().chain(stream::pending()));
        let long = vec![0; MESSAGE_BYTES_MAX + FRAME_BYTES + 1];
        for (timeout, body, code) in [
            ("9S", Body::from("x"), "Ok"),
            ("9S", Body::from(long.clone()), "InvalidArgument"),
            (
                "9S",
                Body::from_stream(stream::iter([Ok::<_, Infallible>(long)])),
                "InvalidArgument",
            ),
            ("1S", endless(), "DeadlineExceeded"),
            ("1H", endless(), "DeadlineExceeded"),
        ] {
            let found = code_of(&calls(), timeout, body).await;
            assert_eq!(found, (code.to_owned(), code == "Ok"), "{timeout}");
        }
        let limited = calls_of(Principal::new("limited", Rights::all()).with_rate(1_u32));
        for code in ["Ok", "Ok", "ResourceExhausted"] {
            let found = code_of(&limited, "9S", Body::from("x")).await;
            assert_eq!(found, (code.to_owned(), code == "Ok"));
        }
        // Its body is not read.
        let found = code_of(&limited, "9S", endless()).await;
        assert_eq!(found, ("ResourceExhausted".to_owned(), false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_message_holds_no_place() {
        let calls = calls();
        let stalled = Body::from_stream(stream::pending::<Result<&str, Infallible>>());
        let other = calls.clone();
        let stalled = tokio::spawn(async move { code_of(&other, "1H", stalled).await });
        tokio::task::yield_now().await;
        let found = code_of(&calls, "9S", Body::from("x")).await;
        assert_eq!(found, ("Ok".to_owned(), true));
        let found = stalled.await.expect("no panic");
        assert_eq!(found, ("DeadlineExceeded".to_owned(), false));
        assert_eq!(calls.admission.in_flight(), 0);
    }

    #[test]
    fn only_refusals_by_load_shrink_the_limit() {
        for (kind, expected) in [
            (ProblemKind::Overloaded, Outcome::Refused),
            (ProblemKind::Unavailable, Outcome::Refused),
            (ProblemKind::DeadlineExceeded, Outcome::TimedOut),
            (ProblemKind::InvalidEvent, Outcome::Failed),
            (ProblemKind::Forbidden, Outcome::Failed),
        ] {
            let response: Response = Status::from(Problem::new(kind, "a test")).into_http();
            assert_eq!(outcome(response.headers()), expected, "{kind:?}");
        }
        assert_eq!(outcome(&HeaderMap::new()), Outcome::Accepted);
    }

    #[tokio::test]
    async fn only_calls_of_grpc_are_read_as_such() {
        for (content_type, expected) in [
            ("application/grpc", 200),
            ("application/grpc+proto", 200),
            ("Application/gRPC; charset=utf-8", 200),
            ("application/grpc-web", 415),
            ("application/grpc-web-text", 415),
            ("application/grpc+json", 415),
            ("application/json", 415),
            ("", 415),
        ] {
            let method = routing::post(async || {}).layer(from_fn_with_state(calls(), open));
            let router = Router::new().route("/a.B/Post", method);
            let mut request = request("9S");
            *request.uri_mut() = axum::http::Uri::from_static("/a.B/Post");
            let value = HeaderValue::from_static(content_type);
            request.headers_mut().insert(CONTENT_TYPE_HEADER, value);
            let response = router.oneshot(request).await.expect("an answer");
            assert_eq!(response.status(), expected, "{content_type:?}");
        }
    }
}

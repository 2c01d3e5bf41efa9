//! The context of a request: its trace, its deadline, and the worker that answers.
//!
//! A middleware adds it to the request's extensions, and its headers to every answer.

use super::{Problem, ProblemKind};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use evenkeel::event::{Headers, TraceContext};
use evenkeel::telemetry::current_trace;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The answer's header with the trace id, 32 hexadecimal digits.
pub const TRACE_ID_HEADER: HeaderName = HeaderName::from_static("trace-id");
/// The answer's header with the name of the gateway that answers.
pub const WORKER_HEADER: HeaderName = HeaderName::from_static("worker");
/// The request's header with its deadline: seconds, such as `2` or `0.5`, or with a unit, `500ms`.
const REQUEST_TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-request-timeout");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The context of a request, in its extensions.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RequestContext {
    /// The trace of the request: that of its span while spans are exported, otherwise a child of
    /// the caller's `traceparent`, or a new root. Events get it as theirs.
    pub trace: TraceContext,
    /// The time at which the caller stops waiting, if it said so.
    pub deadline: Option<Instant>,
    /// The name of this gateway.
    pub worker: Arc<str>,
}

impl RequestContext {
    /// Reads the context from a request's headers.
    ///
    /// # Errors
    /// If `X-Request-Timeout` is not a duration.
    pub fn from_headers(headers: &HeaderMap, worker: Arc<str>) -> Result<Self, Problem> {
        Ok(Self {
            trace: trace(headers),
            deadline: timeout(headers)?.map(|timeout| Instant::now() + timeout),
            worker,
        })
    }

    /// The context of a request, and the refusal of one that [`from_headers`](Self::from_headers)
    /// cannot read: its answer has a context, too.
    pub(crate) fn of(headers: &HeaderMap, worker: &Worker) -> (Self, Option<Problem>) {
        let (timeout, refused) = match timeout(headers) {
            Ok(timeout) => (timeout, None),
            Err(problem) => (None, Some(problem)),
        };
        let context = Self {
            trace: trace(headers),
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            worker: Arc::clone(&worker.name),
        };
        (context, refused)
    }

    /// The trace id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.trace.traceparent.get(3..35).unwrap_or_default()
    }

    /// The time that is left, if there is a deadline.
    pub fn time_left(&self) -> Option<Duration> {
        let deadline = self.deadline?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }
}

/// The name of this gateway, and its header, which is made once.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    name: Arc<str>,
    header: Option<HeaderValue>,
}

impl Worker {
    /// The worker of this name.
    pub(crate) fn new(name: Arc<str>) -> Self {
        let header = HeaderValue::from_str(&name).ok();
        Self { name, header }
    }
}

/// The headers of an answer by which its request is found: `traceparent`, `trace-id`, `worker`.
/// They are made before the request is handled, as its handler gets the context.
#[derive(Debug)]
pub(crate) struct AnswerHeaders {
    traceparent: Option<HeaderValue>,
    trace_id: Option<HeaderValue>,
    worker: Option<HeaderValue>,
}

impl AnswerHeaders {
    /// The headers for the answer to a request with this context.
    pub(crate) fn new(context: &RequestContext, worker: &Worker) -> Self {
        Self {
            traceparent: HeaderValue::from_str(&context.trace.traceparent).ok(),
            trace_id: HeaderValue::from_str(context.trace_id()).ok(),
            worker: worker.header.clone(),
        }
    }

    /// The trace id.
    pub(crate) fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_ref()?.to_str().ok()
    }

    /// Adds the headers to the answer.
    pub(crate) fn add_to(self, headers: &mut HeaderMap) {
        let values = [
            (TRACEPARENT, self.traceparent),
            (TRACE_ID_HEADER, self.trace_id),
            (WORKER_HEADER, self.worker),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
    }
}

/// The middleware: adds a [`RequestContext`] to the request, and `traceparent`, `trace-id` and
/// `worker` to the answer.
pub async fn add_context(
    State(worker): State<Arc<str>>,
    mut request: Request,
    next: Next,
) -> Response {
    let worker = Worker::new(worker);
    let (context, refused) = RequestContext::of(request.headers(), &worker);
    let answer_headers = AnswerHeaders::new(&context, &worker);
    let mut response = match refused {
        Some(problem) => problem.into_response(),
        None => {
            request.extensions_mut().insert(context);
            next.run(request).await
        }
    };
    answer_headers.add_to(response.headers_mut());
    response
}

/// The trace of a request. Its span, if it is exported, is in the caller's trace already.
fn trace(headers: &HeaderMap) -> TraceContext {
    current_trace().unwrap_or_else(|| {
        let caller = caller_trace(headers);
        caller.map_or_else(TraceContext::root, |caller| caller.child())
    })
}

/// The trace that the caller of a request is in. `None` without a valid `traceparent`, or with two
/// of them. Several `tracestate` headers are one list, which proxies may divide.
pub(crate) fn caller_trace(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else {
        return None;
    };
    let mut read = Headers::new();
    read.push(TRACEPARENT.as_str(), Some(parent.as_bytes()));
    let states = headers.get_all(TRACESTATE).iter();
    let states = states.map(HeaderValue::as_bytes);
    let states: Vec<&[u8]> = states.filter(|state| !state.is_empty()).collect();
    if !states.is_empty() {
        read.push(TRACESTATE.as_str(), Some(&states.join(&b',')));
    }
    TraceContext::from_headers(read.iter())
}

fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let mut values = headers.get_all(REQUEST_TIMEOUT_HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        let detail = "X-Request-Timeout is there more than once";
        return Err(Problem::new(ProblemKind::Malformed, detail));
    }
    let malformed = || {
        let detail = "X-Request-Timeout must be a number of seconds, such as 2 or 0.5, or of \
                      milliseconds, such as 500ms; at most 3600 seconds";
        Problem::new(ProblemKind::Malformed, detail)
    };
    let text = value.to_str().map_err(|_| malformed())?.trim();
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let is_plain = number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    match number.parse::<f64>() {
        Ok(number) if is_plain && number * unit <= 3_600.0 => {
            Ok(Some(Duration::from_secs_f64(number * unit)))
        }
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value).expect("a header value");
            (HeaderName::from_static(name), value)
        });
        pairs.collect()
    }

    #[test]
    fn request_timeouts_are_read_strictly() {
        for (text, millis) in [
            ("2", Some(2_000)),
            ("2s", Some(2_000)),
            ("0.5", Some(500)),
            ("500ms", Some(500)),
            ("0", Some(0)),
            ("", None),
            ("-1", None),
            ("1e9", None),
            ("inf", None),
            ("NaN", None),
            ("3601", None),
            ("1m", None),
        ] {
            let read = timeout(&headers(&[("x-request-timeout", text)]))
                .ok()
                .flatten();
            assert_eq!(read, millis.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn a_list_of_trace_states_is_read_whole_and_two_parents_are_none() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = headers(&[("traceparent", parent)]);
        for state in ["congo=t61rcWkgMzE", "", "rojo=00f067aa0ba902b7"] {
            headers.append("tracestate", HeaderValue::from_static(state));
        }
        let trace = caller_trace(&headers).expect("a valid parent");
        let expected = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7";
        assert_eq!(trace.tracestate.as_deref(), Some(expected));
        headers.append("traceparent", HeaderValue::from_static(parent));
        assert_eq!(caller_trace(&headers), None);
    }

    #[test]
    fn two_timeouts_are_refused() {
        let mut headers = headers(&[("x-request-timeout", "2")]);
        headers.append("x-request-timeout", HeaderValue::from_static("3"));
        assert_eq!(
            timeout(&headers).map_err(|problem| problem.kind),
            Err(ProblemKind::Malformed)
        );
    }

    #[test]
    fn a_callers_trace_is_continued_and_a_forged_one_replaced() {
        let worker: Arc<str> = "gateway-1".into();
        let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context =
            RequestContext::from_headers(&headers(&[("traceparent", caller)]), worker.clone());
        let context = context.expect("no deadline");
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(context.trace.traceparent, caller);
        for forged in ["", "00-0-0-0", "<script>"] {
            let context =
                RequestContext::from_headers(&headers(&[("traceparent", forged)]), worker.clone());
            let context = context.expect("no deadline");
            assert_eq!(context.trace_id().len(), 32, "{forged:?}");
            assert!(
                context
                    .trace_id()
                    .bytes()
                    .all(|byte| byte.is_ascii_hexdigit())
            );
        }
    }
}

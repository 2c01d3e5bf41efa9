//! A request that carries data, for routes of a team's own.

use super::binding::{self, Mode};
use super::checks;
use super::idempotency::IdempotencyKey;
use super::limits::PostLimits;
use crate::access::Principal;
use crate::http::{FieldError, Problem, ProblemKind, RequestContext};
use axum::extract::Request;
use axum::http::{Extensions, header};
use serde_json::Value;

/// The attribute with the id of the event to publish, in the header `ce-id`.
const EVENT_ID: &str = "id";

/// A request whose body is JSON, read within the limits and with the checks of `POST /events/{type}`:
/// a route of a team's own makes an event of it, and hands it to
/// [`Posting::accept`](super::Posting::accept). The body has at most
/// [`DATA_BYTES_MAX`](Self::DATA_BYTES_MAX).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DataRequest {
    /// The caller.
    pub principal: Principal,
    /// The request's context.
    pub context: RequestContext,
    /// The body, in which no member name is repeated.
    pub data: Value,
    /// The id of the event, if the caller set the header `ce-id`, which is read as in binary mode.
    pub event_id: Option<String>,
    /// The `Idempotency-Key`, if there is one.
    pub idempotency: Option<IdempotencyKey>,
}

impl DataRequest {
    /// The most bytes of a body, 64 KiB, or fewer by [`PostLimits::body_bytes_max`]. A longer one
    /// is refused with 413. A tree can take a hundred times the bytes of its text, and these are
    /// parsed outside of the bound that [`Posting`](super::Posting) has for large trees.
    pub const DATA_BYTES_MAX: usize = 64 << 10;

    /// Reads a request. Expects the [`Principal`] and the [`RequestContext`] in its extensions.
    ///
    /// # Errors
    /// As a request to `POST /events/{type}`: for its content type, its size, its time and its
    /// syntax.
    pub async fn read(request: Request, limits: &PostLimits) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let (principal, context) = caller(&parts.extensions)?;
        if binding::mode(&parts.headers, true)? != Mode::Data {
            let detail = "the content type must be application/json";
            return Err(Problem::new(ProblemKind::UnsupportedMediaType, detail));
        }
        let limits = limits
            .clone()
            .with_body_bytes_max(limits.body_bytes_max.min(Self::DATA_BYTES_MAX));
        let body = binding::read_body(&parts.headers, body, &limits, context.deadline).await?;
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let idempotency = IdempotencyKey::of_request(
            &parts.headers,
            &parts.method,
            parts.uri.path(),
            content_type.unwrap_or_default(),
            &body,
        )?;
        let tree = checks::parse(binding::body_text(&body)?).map_err(|fault| {
            let error = FieldError {
                pointer: fault.pointer,
                detail: fault.detail,
            };
            let detail = "the body cannot be read";
            Problem::new(ProblemKind::Malformed, detail).with_errors(vec![error])
        })?;
        Ok(Self {
            principal: principal.clone(),
            context: context.clone(),
            event_id: binding::attribute(&parts.headers, EVENT_ID)?,
            data: Value::from(&tree),
            idempotency,
        })
    }
}

/// The caller and the context of a request, which middleware adds.
///
/// # Errors
/// If there is none: a defect of the assembly.
pub(super) fn caller(extensions: &Extensions) -> Result<(&Principal, &RequestContext), Problem> {
    extensions.get().zip(extensions.get()).ok_or_else(|| {
        let detail = "the route is not behind authentication and context";
        Problem::new(ProblemKind::Internal, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Rights;
    use axum::body::Body;
    use axum::http::HeaderMap;

    async fn read(ids: &[&str], body: String) -> Result<DataRequest, Problem> {
        let mut request = axum::http::Request::post("/orders");
        request = request.header("content-type", "application/json");
        for id in ids {
            request = request.header("ce-id", *id);
        }
        let mut request = request.body(Body::from(body)).expect("a request");
        let context = RequestContext::from_headers(&HeaderMap::new(), "gateway-1".into());
        let extensions = request.extensions_mut();
        extensions.insert(context.expect("no deadline"));
        extensions.insert(Principal::new("web", Rights::default()));
        DataRequest::read(request, &PostLimits::default()).await
    }

    #[tokio::test]
    async fn a_body_has_64_kib_at_most() {
        let max = DataRequest::DATA_BYTES_MAX;
        for (length, expected) in [(max, None), (max + 1, Some(ProblemKind::TooLarge))] {
            let body = format!("\"{}\"", "x".repeat(length - 2));
            let refused = read(&[], body).await.err().map(|problem| problem.kind);
            assert_eq!(refused, expected, "{length}");
        }
    }

    #[tokio::test]
    async fn an_event_id_is_read_as_in_binary_mode() {
        for (ids, expected) in [
            (vec![], Ok(None)),
            (vec!["e-1"], Ok(Some("e-1"))),
            (vec!["caf%C3%A9"], Ok(Some("café"))),
            (vec!["\"e 1\""], Ok(Some("e 1"))),
            (vec!["\"open"], Err(ProblemKind::Malformed)),
            (vec!["e-1", "e-2"], Err(ProblemKind::Malformed)),
        ] {
            let read = read(&ids, "{}".to_owned()).await;
            let id = read.map(|request| request.event_id);
            let id = id.map_err(|problem| problem.kind);
            let id = id.as_ref().map(Option::as_deref).map_err(|kind| *kind);
            assert_eq!(id, expected, "{ids:?}");
        }
    }
}

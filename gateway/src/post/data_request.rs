//! A request that carries data, for routes of a team's own.

use super::binding::{self, Mode};
use super::checks;
use super::idempotency::IdempotencyKey;
use super::limits::PostLimits;
use crate::access::Principal;
use crate::http::{FieldError, Problem, ProblemKind, RequestContext};
use axum::extract::Request;
use axum::http::{Extensions, HeaderMap, header};
use serde_json::Value;

/// The header with the id of the event to publish.
const EVENT_ID: &str = "ce-id";

/// A request whose body is JSON, read within the limits and with the checks of `POST /events/{type}`:
/// a route of a team's own makes an event of it, and hands it to
/// [`Posting::accept`](super::Posting::accept).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DataRequest {
    /// The caller.
    pub principal: Principal,
    /// The request's context.
    pub context: RequestContext,
    /// The body, in which no member name is repeated.
    pub data: Value,
    /// The id of the event, if the caller set the header `ce-id`.
    pub event_id: Option<String>,
    /// The `Idempotency-Key`, if there is one.
    pub idempotency: Option<IdempotencyKey>,
}

impl DataRequest {
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
        let body = binding::read_body(&parts.headers, body, limits, context.deadline).await?;
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let idempotency = IdempotencyKey::of_request(
            &parts.headers,
            &parts.method,
            parts.uri.path(),
            content_type.unwrap_or_default(),
            &body,
        )?;
        let data = checks::parse(binding::body_text(&body)?).map_err(|fault| {
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
            event_id: event_id(&parts.headers)?,
            data,
            idempotency,
        })
    }
}

fn event_id(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(id) = headers.get(EVENT_ID) else {
        return Ok(None);
    };
    let malformed = |_| Problem::new(ProblemKind::Malformed, "ce-id is not visible ASCII text");
    Ok(Some(id.to_str().map_err(malformed)?.to_owned()))
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

//! `GET /problems/{name}`: what a kind of problem means, and what to do.

use crate::http::{Problem, ProblemKind};
use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use serde_json::{Value, json};

/// Every kind, with what a caller does about it.
const KINDS: [(ProblemKind, &str); 19] = [
    (
        ProblemKind::Malformed,
        "Correct the request: its syntax, an attribute, a header or a cursor is wrong.",
    ),
    (
        ProblemKind::InvalidEvent,
        "Correct the event: `errors` names the parts that violate its schema.",
    ),
    (
        ProblemKind::Unauthenticated,
        "Send a token that is valid now in the header Authorization.",
    ),
    (
        ProblemKind::Forbidden,
        "Ask the gateway's operator for the right, or for the origin of your page.",
    ),
    (
        ProblemKind::NotFound,
        "Check the id or the path; an event is found only by callers that may see it.",
    ),
    (
        ProblemKind::MethodNotAllowed,
        "Use a method that the header Allow names.",
    ),
    (
        ProblemKind::InProgress,
        "Repeat the request after the time in Retry-After: the first one is not finished.",
    ),
    (
        ProblemKind::Reused,
        "Use a new Idempotency-Key or event id: this one belongs to another content.",
    ),
    (
        ProblemKind::Gone,
        "Start the stream anew: the log has deleted the events after the cursor.",
    ),
    (
        ProblemKind::TooLarge,
        "Send smaller or fewer events; nothing was accepted.",
    ),
    (
        ProblemKind::SlowBody,
        "Send the body faster; nothing was accepted.",
    ),
    (ProblemKind::UriTooLong, "Send a shorter URL."),
    (
        ProblemKind::UnsupportedMediaType,
        "Send JSON or a CloudEvent in JSON, with its Content-Type.",
    ),
    (
        ProblemKind::RateLimited,
        "Wait for the time in Retry-After, and send fewer requests per second.",
    ),
    (
        ProblemKind::Overloaded,
        "Repeat the request after the time in Retry-After; nothing was accepted.",
    ),
    (
        ProblemKind::DeadlineExceeded,
        "Repeat the request with the same Idempotency-Key or event id.",
    ),
    (
        ProblemKind::Unavailable,
        "Repeat the request after the time in Retry-After; nothing was accepted.",
    ),
    (
        ProblemKind::Unsupported,
        "Leave out what this gateway is not configured for.",
    ),
    (
        ProblemKind::Internal,
        "Report the trace id to the gateway's operator.",
    ),
];

/// Explains a kind by its name.
pub(super) async fn explain(
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    // A name that is not UTF-8 is the name of no kind.
    let name = name.map(|Path(name)| name).unwrap_or_default();
    let kind = KINDS.iter().find(|(kind, _)| kind.name() == name);
    let (kind, description) = kind.ok_or_else(|| {
        Problem::new(
            ProblemKind::NotFound,
            "there is no kind of problem of this name",
        )
    })?;
    Ok(Json(json!({
        "type": format!("/problems/{}", kind.name()),
        "title": kind.title(),
        "status": kind.status().as_u16(),
        "description": description,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_kind_is_explained_once() {
        let mut names: Vec<_> = KINDS.iter().map(|(kind, _)| kind.name()).collect();
        for name in &names {
            let answer = explain(Ok(Path((*name).to_owned()))).await;
            let Json(answer) = answer.expect("it is explained");
            assert_eq!(answer["type"], format!("/problems/{name}"));
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KINDS.len());
        let unknown = explain(Ok(Path("no-such-kind".to_owned()))).await;
        assert_eq!(unknown.expect_err("unknown").kind, ProblemKind::NotFound);
    }
}

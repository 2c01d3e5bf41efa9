//! Problems as gRPC statuses: the code, `google.rpc` details, and when to retry.
//!
//! | metadata (trailers) | content |
//! |---|---|
//! | `grpc-status-details-bin` | `google.rpc.Status` with `ErrorInfo`, `BadRequest`, `RetryInfo` |
//! | `problem-bin` | the problem's JSON, as an HTTP caller gets it |
//! | `retry-after` | whole seconds, as in HTTP |
//! | `grpc-retry-pushback-ms` | the same in milliseconds, obeyed by clients with a retry policy |
//!
//! Clients limit the size of trailers (8 KiB by default), and fail a call whose trailers exceed
//! it. Therefore the invalid fields are named up to [`VIOLATIONS_BYTES`], and `problem-bin` is
//! omitted above [`PROBLEM_BYTES`].

use super::details::RpcStatus;
use crate::http::{FieldError, Problem, ProblemKind};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// The domain of the reasons in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "evenkeel.gateway";
/// The size up to which invalid fields are named, in bytes of pointers and descriptions, with
/// [`VIOLATION_OVERHEAD`] for each.
const VIOLATIONS_BYTES: usize = 1_024;
/// The size of a violation without its texts, in bytes.
const VIOLATION_OVERHEAD: usize = 16;
/// The size up to which the problem's JSON is sent, in bytes before base64.
const PROBLEM_BYTES: usize = 2_048;
/// The size up to which the problem's detail is sent as `grpc-message`, in bytes.
const MESSAGE_BYTES: usize = 512;

/// The gRPC code of a kind.
pub(super) fn code(kind: ProblemKind) -> Code {
    match kind {
        // TooLarge is not RESOURCE_EXHAUSTED: clients retry that, and the event never gets smaller.
        ProblemKind::Malformed
        | ProblemKind::InvalidEvent
        | ProblemKind::TooLarge
        | ProblemKind::UriTooLong
        | ProblemKind::UnsupportedMediaType => Code::InvalidArgument,
        ProblemKind::Unauthenticated => Code::Unauthenticated,
        ProblemKind::Forbidden => Code::PermissionDenied,
        ProblemKind::NotFound => Code::NotFound,
        // The caller retries the same request later.
        ProblemKind::InProgress => Code::Aborted,
        // Not FAILED_PRECONDITION: there is no state to repair, the key or id belongs to another
        // content for good.
        ProblemKind::Reused => Code::AlreadyExists,
        ProblemKind::Gone => Code::OutOfRange,
        ProblemKind::RateLimited => Code::ResourceExhausted,
        ProblemKind::Overloaded | ProblemKind::Unavailable => Code::Unavailable,
        ProblemKind::DeadlineExceeded | ProblemKind::SlowBody => Code::DeadlineExceeded,
        ProblemKind::MethodNotAllowed | ProblemKind::Unsupported => Code::Unimplemented,
        ProblemKind::Internal => Code::Internal,
    }
}

impl From<Problem> for Status {
    fn from(mut problem: Problem) -> Self {
        keep_first_errors(&mut problem.errors);
        let code = code(problem.kind);
        let message = prefix(&problem.detail, MESSAGE_BYTES);
        let fields = problem.errors.iter();
        let details = RpcStatus::new(code.into(), message)
            .with_error_info(reason(problem.kind), DOMAIN)
            .with_violations(fields.map(|error| (error.pointer.as_str(), error.detail.as_str())))
            .with_retry_delay(problem.retry_after);
        let metadata = metadata(&problem);
        Self::with_details_and_metadata(code, message, details.to_bytes(), metadata)
    }
}

fn metadata(problem: &Problem) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    let json = problem.to_json().to_string();
    if json.len() <= PROBLEM_BYTES {
        metadata.insert_bin("problem-bin", MetadataValue::from_bytes(json.as_bytes()));
    }
    if let Some(retry_after) = problem.retry_after {
        let millis = i64::try_from(retry_after.as_millis()).unwrap_or(i64::MAX);
        // A pushback of 0 would be a retry at once.
        metadata.insert("grpc-retry-pushback-ms", MetadataValue::from(millis.max(1)));
    }
    if let Some(seconds) = problem.retry_after_seconds() {
        metadata.insert("retry-after", MetadataValue::from(seconds));
    }
    metadata
}

/// The kind's name as a reason: `INVALID_EVENT`.
fn reason(kind: ProblemKind) -> String {
    kind.name().to_ascii_uppercase().replace('-', "_")
}

/// Drops the errors that are beyond [`VIOLATIONS_BYTES`].
fn keep_first_errors(errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    errors.retain(|error| {
        bytes += VIOLATION_OVERHEAD + error.pointer.len() + error.detail.len();
        bytes <= VIOLATIONS_BYTES
    });
}

/// The beginning of a text, at most `bytes` long, that ends with a whole character.
fn prefix(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn field(pointer: &str, detail: &str) -> FieldError {
        FieldError {
            pointer: pointer.to_owned(),
            detail: detail.to_owned(),
        }
    }

    #[test]
    fn clients_retry_only_what_can_succeed_later() {
        // What the retry policies of gRPC clients usually name.
        let retried = [Code::Unavailable, Code::ResourceExhausted, Code::Aborted];
        for (kind, expected) in [
            (ProblemKind::Overloaded, true),
            (ProblemKind::Unavailable, true),
            (ProblemKind::RateLimited, true),
            (ProblemKind::InProgress, true),
            (ProblemKind::InvalidEvent, false),
            (ProblemKind::TooLarge, false),
            (ProblemKind::Reused, false),
            (ProblemKind::Gone, false),
            (ProblemKind::Forbidden, false),
            (ProblemKind::Unsupported, false),
        ] {
            assert_eq!(retried.contains(&code(kind)), expected, "{kind:?}");
        }
    }

    #[test]
    fn the_whole_problem_is_in_the_metadata() {
        let problem = Problem::new(ProblemKind::InvalidEvent, "one field is invalid")
            .with_errors(vec![field("/total_cents", "is missing")]);
        let expected = problem.to_json();
        let status = Status::from(problem);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "one field is invalid");
        let json = status
            .metadata()
            .get_bin("problem-bin")
            .expect("the problem is sent");
        let json = json.to_bytes().expect("it is base64");
        let read: serde_json::Value = serde_json::from_slice(&json).expect("it is JSON");
        assert_eq!(read, expected);
    }

    #[test]
    fn retry_times_are_sent_in_both_units() {
        let cases = [(0, "1", "1"), (250, "250", "1"), (1_001, "1001", "2")];
        for (millis, pushback, seconds) in cases {
            let problem = Problem::new(ProblemKind::Overloaded, "busy")
                .with_retry_after(Duration::from_millis(millis));
            let status = Status::from(problem);
            let sent = |name: &str| status.metadata().get(name).expect("it is sent").to_str();
            assert_eq!(sent("grpc-retry-pushback-ms").expect("digits"), pushback);
            assert_eq!(sent("retry-after").expect("digits"), seconds);
        }
        let status = Status::from(Problem::new(ProblemKind::NotFound, "no such event"));
        assert!(status.metadata().get("grpc-retry-pushback-ms").is_none());
    }

    #[test]
    fn trailers_stay_below_the_limit_of_clients() {
        let errors = (0..10_000).map(|index| field(&format!("/lines/{index}"), "is too large"));
        let problem = Problem::new(ProblemKind::InvalidEvent, "ä".repeat(4_000))
            .with_errors(errors.collect());
        let mut headers = axum::http::HeaderMap::new();
        Status::from(problem)
            .add_header(&mut headers)
            .expect("the status is encoded");
        let sizes = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32);
        assert!(sizes.sum::<usize>() < 8_192);
    }
}

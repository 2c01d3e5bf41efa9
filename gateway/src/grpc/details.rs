//! The error details that clients in every language decode: messages of `google.rpc`, by hand,
//! because they are few and frozen. Knows no kind of problem.

use bytes::Bytes;
use prost::Message;
use std::time::Duration;

/// Type URLs of messages in an `Any` begin with this.
const TYPE_URL: &str = "type.googleapis.com/google.rpc.";

/// `google.rpc.Status`, the content of `grpc-status-details-bin`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.ErrorInfo`: which problem it is, for programs.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

/// `google.rpc.BadRequest`: which fields are invalid.
#[derive(Clone, PartialEq, prost::Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

/// `google.rpc.RetryInfo`: when to retry.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, prost::Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl RpcStatus {
    /// A status without details. `code` and `message` repeat those of the call.
    pub(super) fn new(code: i32, message: &str) -> Self {
        let message = message.to_owned();
        Self {
            code,
            message,
            details: Vec::new(),
        }
    }

    /// Names the problem: `reason` in capitals, unique in `domain`.
    pub(super) fn with_error_info(mut self, reason: String, domain: &str) -> Self {
        let info = ErrorInfo {
            reason,
            domain: domain.to_owned(),
        };
        self.add("ErrorInfo", &info);
        self
    }

    /// Names the invalid fields, as pairs of field and description.
    pub(super) fn with_violations<'a>(
        mut self,
        violations: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let violations = violations.map(|(field, description)| FieldViolation {
            field: field.to_owned(),
            description: description.to_owned(),
        });
        let request = BadRequest {
            field_violations: violations.collect(),
        };
        if !request.field_violations.is_empty() {
            self.add("BadRequest", &request);
        }
        self
    }

    /// Sets the time after which a retry makes sense.
    pub(super) fn with_retry_delay(mut self, delay: Option<Duration>) -> Self {
        if let Some(delay) = delay {
            let delay = ProtoDuration {
                seconds: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(delay.subsec_nanos()).unwrap_or(0),
            };
            self.add(
                "RetryInfo",
                &RetryInfo {
                    retry_delay: Some(delay),
                },
            );
        }
        self
    }

    /// Its encoding.
    pub(super) fn to_bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    fn add(&mut self, name: &str, detail: &impl Message) {
        let type_url = format!("{TYPE_URL}{name}");
        self.details.push(Any {
            type_url,
            value: detail.encode_to_vec(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_encoded_as_clients_decode_them() {
        let status = RpcStatus::new(3, "bad")
            .with_violations([("/a", "missing")].into_iter())
            .with_retry_delay(Some(Duration::from_millis(1_500)));
        let read = RpcStatus::decode(status.to_bytes()).expect("it is a google.rpc.Status");
        let urls: Vec<_> = read
            .details
            .iter()
            .map(|any| any.type_url.as_str())
            .collect();
        let expected = [
            "type.googleapis.com/google.rpc.BadRequest",
            "type.googleapis.com/google.rpc.RetryInfo",
        ];
        assert_eq!(urls, expected);
        // RetryInfo { 1: Duration { 1: 1, 2: 500_000_000 } } on the wire.
        let delay = [0x0a, 0x08, 0x08, 0x01, 0x10, 0x80, 0xca, 0xb5, 0xee, 0x01];
        assert_eq!(read.details[1].value, delay);
    }

    #[test]
    fn nothing_to_name_adds_no_detail() {
        let status = RpcStatus::new(13, "")
            .with_violations([].into_iter())
            .with_retry_delay(None);
        assert!(status.details.is_empty());
    }
}

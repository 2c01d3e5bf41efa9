//! Errors of a cluster, with their remedies.
//!
//! Owns the classes that callers act on (and that the tool's exit codes follow), and the mapping of
//! the client's error codes to them. Never contains a secret: addresses are printed without user
//! information.
//!
//! An unknown code becomes [`KafkaError::Client`], so a later version of Kafka or librdkafka adds
//! codes without a change here.

use super::connection_fault::{Fault, LastFault, serve_events, with_remedy};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use std::time::Duration;

/// An error of a request to the cluster, or of the connection to it.
///
/// Each variant is a class with a remedy of its own, and the text states the remedy:
///
/// | variant | cause | retry |
/// |---|---|---|
/// | `Config` | a setting | no: correct it |
/// | `Unreachable`, `Timeout` | the network, or brokers that are down or busy | yes, later |
/// | `Tls`, `Refused` | certificates, credentials, permissions | no: an operator changes them |
/// | `UnknownTopic`, `UnknownPartition` | a name, or a topic that is missing | after its creation |
/// | `UnsafeTopic` | a topic's settings | after the printed command |
/// | `Unsupported` | the version of the brokers | no |
/// | `Unreadable`, `UnreadableBatch` | bytes that cannot be parsed | no |
/// | `Client` | any other error | depends on the code |
///
/// ```
/// use evenkeel::kafka::KafkaError;
///
/// /// Whether a request is worth another try without a change by an operator.
/// fn is_passing(error: &KafkaError) -> bool {
///     matches!(error, KafkaError::Unreachable { .. } | KafkaError::Timeout { .. })
/// }
///
/// let error = KafkaError::Timeout { what: "listing topics".to_owned(), seconds: 10 };
/// assert!(is_passing(&error));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaError {
    /// A setting cannot be used. Nothing was sent. Correct the setting that it names.
    #[error(transparent)]
    Config(#[from] crate::kafka::ConfigError),
    /// No broker answered. A retry succeeds if the brokers were down, and is useless if the address
    /// is wrong: the text has the client's last cause and its remedy.
    #[error(
        "no broker answered at {brokers} within {seconds} s: {}",
        with_remedy(cause, LOOK_AT_THE_ADDRESS)
    )]
    Unreachable {
        /// Bootstrap servers.
        brokers: String,
        /// The timeout in seconds.
        seconds: u64,
        /// The client's message.
        cause: String,
    },
    /// TLS failed with a broker: a rejected certificate, or a missing client certificate. For a
    /// rejected certificate the text states the fault: its expiry, its names or its issuer. A retry
    /// is useless until a certificate or a setting changes.
    #[error(
        "no TLS connection to {brokers}: {}",
        with_remedy(cause, "check security.protocol and the certificates")
    )]
    Tls {
        /// Bootstrap servers.
        brokers: String,
        /// The fault.
        cause: String,
    },
    /// The cluster is reachable, but the answer took too long. The request may have taken effect
    /// nevertheless. Every request of [`Admin`](crate::kafka::admin::Admin) may be repeated.
    #[error("{what} took longer than {seconds} s; try again, or allow more time")]
    Timeout {
        /// The request.
        what: String,
        /// The timeout in seconds.
        seconds: u64,
    },
    /// Authentication or authorisation failed. Do not retry: brokers may lock an account after
    /// repeated attempts. If a permission is missing, the text names the operation and the resource
    /// of the ACL to grant.
    #[error("{what} refused: {}", refusal(cause))]
    Refused {
        /// The request.
        what: String,
        /// The broker's answer.
        cause: String,
    },
    /// A topic does not exist, or its name is one that no topic can have. Create it, or correct the
    /// name. evenkeel never lets brokers create topics on their own.
    #[error("the topic {topic} does not exist; create it with: evenkeel topics create {topic}")]
    UnknownTopic {
        /// The topic.
        topic: String,
    },
    /// A topic has no partition of this number. Numbers begin at 0.
    #[error("{topic} has no partition {partition}, it has {existing}")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The number of the partition.
        partition: i32,
        /// The number of existing partitions.
        existing: usize,
    },
    /// Kafka would delete records from this topic that a group must keep, such as parked records of
    /// a retry topic with a retention. Run the command, which changes the topic's settings.
    #[error("the topic {topic} is not safe to use: {reason}; fix it with: {command}")]
    UnsafeTopic {
        /// The topic.
        topic: String,
        /// The unsafe setting and its consequence.
        reason: String,
        /// The command that mends it.
        command: String,
    },
    /// The brokers do not support the request, for example librdkafka's mock cluster or a very old
    /// Kafka. A retry is useless.
    #[error("{what} is not supported by these brokers: {cause}")]
    Unsupported {
        /// The request.
        what: String,
        /// The client's message.
        cause: String,
    },
    /// The answer cannot be parsed, for example a name that is not UTF-8.
    #[error("{what}: the answer could not be read: {cause}")]
    Unreadable {
        /// The request.
        what: String,
        /// The fault of the answer.
        cause: String,
    },
    /// The client cannot read a batch on the log. A reader continues with its other partitions.
    #[error("{0}")]
    UnreadableBatch(crate::kafka::UnreadableBatch),
    /// Any other error of the client. The code of its source tells whether a retry may succeed.
    #[error("{what}: {source}")]
    Client {
        /// The request.
        what: String,
        /// The client's error.
        source: ClientError,
    },
}

/// The text of a refusal with its remedy, unless it names the required permission.
fn refusal(cause: &str) -> String {
    match cause.contains("it takes an ACL") {
        true => cause.to_owned(),
        false => with_remedy(cause, "check the credentials and the ACLs"),
    }
}

/// The remedy if no better one is known.
const LOOK_AT_THE_ADDRESS: &str =
    "check the address, that Kafka runs and that its advertised listeners can be reached from here";

impl KafkaError {
    /// The error for a topic that the client may not see, whether it exists or not.
    pub(crate) fn hidden_topic(topic: &str) -> Self {
        let refused = Self::Refused {
            what: format!("looking up the topic {topic}"),
            cause: "this client may not see whether it exists".to_owned(),
        };
        refused.requires_permission(&format!("DESCRIBE on the topic {topic}"))
    }

    /// Adds the required permission, an operation and a resource, if the error is a refusal. Other
    /// errors pass unchanged, so a caller may add it without looking at the error.
    pub(crate) fn requires_permission(mut self, right: &str) -> Self {
        if let Self::Refused { cause, .. } = &mut self {
            cause.push_str(&format!("; it takes an ACL for {right}"));
        }
        self
    }

    /// Whether the brokers refuse the name of a topic. Of valid names, they refuse those that
    /// collide with others.
    pub(crate) fn is_name_refused(&self) -> bool {
        let Self::Client { source, .. } = self else {
            return false;
        };
        code_of(source) == Some(Code::InvalidTopic)
    }
}

/// The code of an error. The bindings omit those of admin requests.
pub(crate) fn code_of(error: &ClientError) -> Option<Code> {
    match error {
        ClientError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

/// Classifies the error of a request by its remedy. `what` names the request, such as `listing
/// topics`. For requests that do not need a new connection, or whose caller knows no cause.
pub(crate) fn failed(what: &str, error: ClientError) -> KafkaError {
    if matches!(
        error,
        ClientError::ClientConfig(..) | ClientError::ClientCreation(_)
    ) {
        return crate::kafka::ConfigError::from_client(error).into();
    }
    let what = what.to_owned();
    match code_of(&error) {
        Some(
            code @ (Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication),
        ) => KafkaError::Refused {
            what,
            cause: code.to_string(),
        },
        Some(code @ (Code::UnsupportedFeature | Code::UnsupportedVersion)) => {
            KafkaError::Unsupported {
                what,
                cause: code.to_string(),
            }
        }
        _ => KafkaError::Client {
            what,
            source: error,
        },
    }
}

/// [`failed`] for a request that needs a connection and had `timeout` as its limit.
pub(in crate::kafka) fn unanswered(
    brokers: &str,
    what: &str,
    timeout: Duration,
    error: ClientError,
) -> KafkaError {
    match is_no_answer(&error) {
        true => unreachable(brokers, timeout, &error.to_string()),
        false => failed(what, error),
    }
}

/// [`unanswered`] with the cause that the client itself reported, if it did.
pub(in crate::kafka) fn explained(
    client: &BaseConsumer<LastFault>,
    brokers: &str,
    what: &str,
    timeout: Duration,
    error: ClientError,
) -> KafkaError {
    serve_events(client);
    match (client.context().get(), is_no_answer(&error)) {
        (Some(fault), true) if fault.is_permanent() => broken(brokers, &fault),
        (Some(fault), true) => unreachable(brokers, timeout, &fault.cause),
        _ => unanswered(brokers, what, timeout, error),
    }
}

/// Whether a request failed because no broker answered.
fn is_no_answer(error: &ClientError) -> bool {
    matches!(
        code_of(error),
        Some(
            Code::BrokerTransportFailure
                | Code::OperationTimedOut
                | Code::Resolve
                | Code::AllBrokersDown
        )
    )
}

/// The error of a connection that no retry would establish. Blocks for a few seconds at most, to
/// find the fault of a certificate.
pub(in crate::kafka) fn broken(brokers: &str, fault: &Fault) -> KafkaError {
    let brokers = crate::kafka::config::mask_userinfo(brokers).into_owned();
    if fault.is_refused() {
        return KafkaError::Refused {
            what: format!("connecting to {brokers}"),
            cause: fault.cause.clone(),
        };
    }
    KafkaError::Tls {
        brokers,
        cause: certificate_fault(&fault.cause).unwrap_or_else(|| fault.cause.clone()),
    }
}

/// The fault of a rejected certificate.
#[cfg(feature = "tls")]
fn certificate_fault(cause: &str) -> Option<String> {
    let was_refused = cause.contains("certificate verify failed");
    was_refused
        .then(|| super::certificate::fault(cause))
        .flatten()
}

#[cfg(not(feature = "tls"))]
fn certificate_fault(_: &str) -> Option<String> {
    None
}

/// The error if no broker answered within `timeout`.
pub(in crate::kafka) fn unreachable(brokers: &str, timeout: Duration, cause: &str) -> KafkaError {
    KafkaError::Unreachable {
        brokers: crate::kafka::config::mask_userinfo(brokers).into_owned(),
        seconds: timeout.as_secs(),
        cause: cause.to_owned(),
    }
}

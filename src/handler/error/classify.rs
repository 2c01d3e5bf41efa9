//! The default classifier: the classes of the errors of common libraries.
//!
//! It decides by types and codes, never by text. The first known error of the chain decides, so
//! that a wrapper has the class of the error it wraps.

use crate::failure::causes;
use crate::handler::deadline::TooSlow;
use crate::handler::stores::CLASSIFIERS;
use crate::handler::{Class, Classifier, HttpStatus};
use std::error::Error;
use std::io::ErrorKind;
use std::sync::Arc;

/// The classifier of a consumer that has no other one
/// ([`Consumer::with_classifier`](crate::consumer::Consumer::with_classifier)). It knows the errors
/// of I/O, HTTP, JSON, timeouts and, with their features, of sqlx and reqwest, also inside wrapping
/// errors. An unknown error is [`Class::Transient`].
///
/// | error | class |
/// |---|---|
/// | `serde_json::Error` | permanent |
/// | `Elapsed` of tokio and tower, `handler_timeout` | timeout |
/// | [`HttpStatus`] | by its table |
/// | I/O: connection refused, reset or broken; host, network or disk unavailable | outage |
/// | I/O: timed out, would block | timeout |
/// | I/O: invalid input or data, unsupported | permanent |
/// | reqwest: no connection; no answer; a status | outage; timeout; as [`HttpStatus`] |
/// | sqlx: no connection, a server or file out of order | outage |
/// | sqlx: constraint violated, value that cannot be encoded or decoded | permanent |
/// | PostgreSQL: statement or transaction exceeded its time limit | timeout |
/// | any other | transient |
///
/// A classifier of a service classifies the errors it knows and calls this one for the others:
///
/// ```
/// use evenkeel::handler::{Class, Classifier, default_classifier};
/// use std::sync::Arc;
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("the limit of the account is reached")]
/// struct LimitReached;
///
/// let known = default_classifier();
/// let classifier: Classifier = Arc::new(move |error| match error.downcast_ref::<LimitReached>() {
///     Some(_) => Class::Permanent,
///     None => known(error),
/// });
/// assert_eq!(classifier(&LimitReached), Class::Permanent);
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// assert_eq!(classifier(&refused), Class::Outage);
/// ```
pub fn default_classifier() -> Classifier {
    Arc::new(|error| {
        let known = causes(error).find_map(known);
        known.unwrap_or(Class::Transient)
    })
}

/// The class of one error of a chain. None for a type or a code without a meaning of its own: the
/// next cause decides.
fn known(error: &(dyn Error + 'static)) -> Option<Class> {
    if error.is::<serde_json::Error>() {
        return Some(Class::Permanent);
    }
    if error.is::<TooSlow>()
        || error.is::<tower::timeout::error::Elapsed>()
        || error.is::<tokio::time::error::Elapsed>()
    {
        return Some(Class::Timeout);
    }
    if let Some(status) = error.downcast_ref::<HttpStatus>() {
        return Some(status.class());
    }
    if let Some(error) = error.downcast_ref::<std::io::Error>() {
        return known_io(error);
    }
    #[cfg(feature = "reqwest")]
    if let Some(error) = error.downcast_ref::<reqwest::Error>() {
        return known_reqwest(error);
    }
    CLASSIFIERS.iter().find_map(|class_of| class_of(error))
}

fn known_io(error: &std::io::Error) -> Option<Class> {
    match error.kind() {
        ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::NotConnected
        | ErrorKind::BrokenPipe
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::StorageFull
        | ErrorKind::QuotaExceeded
        | ErrorKind::ReadOnlyFilesystem => Some(Class::Outage),
        // A socket with a timeout of its own returns `WouldBlock`.
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Some(Class::Timeout),
        ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::Unsupported => {
            Some(Class::Permanent)
        }
        // A wrapper without a meaning of its own.
        ErrorKind::Other => None,
        _ => Some(Class::Transient),
    }
}

/// A failed connection attempt is an outage, also when it timed out. A late answer is a timeout,
/// since the next request may be answered in time. Other errors have the class of the error they
/// wrap.
#[cfg(feature = "reqwest")]
fn known_reqwest(error: &reqwest::Error) -> Option<Class> {
    if let Some(status) = error.status() {
        return Some(HttpStatus(status.as_u16()).class());
    }
    if error.is_connect() {
        return Some(Class::Outage);
    }
    if error.is_timeout() {
        return Some(Class::Timeout);
    }
    error.is_builder().then_some(Class::Permanent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::HandlerError;
    use std::io;

    fn class(error: impl Into<HandlerError>) -> Class {
        error.into().class(&default_classifier())
    }

    #[derive(Debug, thiserror::Error)]
    #[error("calling the provider")]
    struct Wrapped(#[source] Box<dyn Error + Send + Sync>);

    #[test]
    fn io_errors_are_known_by_their_kind() {
        for (expected, kinds) in [
            (
                Class::Outage,
                &[
                    ErrorKind::ConnectionRefused,
                    ErrorKind::NetworkUnreachable,
                    ErrorKind::StorageFull,
                    ErrorKind::ReadOnlyFilesystem,
                ][..],
            ),
            (
                Class::Timeout,
                &[ErrorKind::TimedOut, ErrorKind::WouldBlock],
            ),
            (
                Class::Transient,
                &[
                    ErrorKind::UnexpectedEof,
                    ErrorKind::Interrupted,
                    ErrorKind::Other,
                ],
            ),
            (
                Class::Permanent,
                &[ErrorKind::InvalidInput, ErrorKind::InvalidData],
            ),
        ] {
            for kind in kinds {
                assert_eq!(class(io::Error::from(*kind)), expected, "{kind:?}");
            }
        }
    }

    #[test]
    fn the_wrapped_error_decides_the_class() {
        let wrapped = |error: Box<dyn Error + Send + Sync>| class(Wrapped(error));
        assert_eq!(wrapped(HttpStatus(503).into()), Class::Outage);
        assert_eq!(
            wrapped(io::Error::other(HttpStatus(404)).into()),
            Class::Permanent
        );
        assert_eq!(wrapped("anything".into()), Class::Transient);
        let json = serde_json::from_str::<u8>("x").expect_err("no number");
        assert_eq!(wrapped(json.into()), Class::Permanent);
    }

    #[tokio::test(start_paused = true)]
    async fn an_exceeded_time_limit_is_a_timeout() {
        let elapsed = tokio::time::timeout(std::time::Duration::ZERO, std::future::pending::<()>());
        assert_eq!(class(elapsed.await.expect_err("too late")), Class::Timeout);
        assert_eq!(class(tower::timeout::error::Elapsed::new()), Class::Timeout);
    }

    #[test]
    fn a_handlers_own_word_counts_more() {
        let error = HandlerError::permanent(HttpStatus(503));
        assert_eq!(error.class(&default_classifier()), Class::Permanent);
    }

    #[cfg(feature = "reqwest")]
    #[tokio::test]
    async fn reqwest_errors_are_classified_by_kind() {
        use std::time::Duration;
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        use tokio::net::TcpListener;

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        // Each request opens a connection, because each answer in this test closes it.
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build();
        let client = client.expect("a client");
        let get = async |path: &str, within: Duration| {
            let asked = client
                .get(format!("http://{address}{path}"))
                .timeout(within);
            asked
                .send()
                .await
                .and_then(|answer| answer.error_for_status())
        };
        let serve = async |answer: &[u8]| {
            let (mut peer, _) = listener.accept().await.expect("a client");
            let mut request = [0; 1024];
            let _ = peer.read(&mut request).await.expect("a request");
            peer.write_all(answer).await.expect("answered");
            peer
        };
        let minute = Duration::from_secs(60);
        let unavailable = b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n";
        let (error, _) = tokio::join!(get("/", minute), serve(unavailable));
        assert_eq!(class(error.expect_err("503")), Class::Outage);
        let refused = b"HTTP/1.1 422 x\r\ncontent-length: 0\r\n\r\n";
        let (error, _) = tokio::join!(get("/", minute), serve(refused));
        assert_eq!(class(error.expect_err("422")), Class::Permanent);
        let (error, _) = tokio::join!(get("/", Duration::from_millis(50)), serve(b""));
        assert_eq!(class(error.expect_err("silence")), Class::Timeout);
        drop(listener);
        let error = get("/", minute).await.expect_err("nobody listens");
        assert_eq!(class(error), Class::Outage);
        let error = client.get("no address").send().await.expect_err("no URL");
        assert_eq!(class(error), Class::Permanent);
    }
}

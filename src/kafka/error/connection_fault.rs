//! The cause of a failed connection, and its remedy.
//!
//! The client reports causes in errors that belong to no request, and some only in its log. The
//! last of them is kept, so that the error of the request that timed out can state it. Callers act
//! on the error's code. The text only selects the advice.
//!
//! The texts in `ADVICE` are those of librdkafka and OpenSSL. If a new version rewords one, the
//! advice falls back to a general one, and the class of the error stays.

use crate::kafka::log;
use crate::kafka::native::queued_events;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A connection that ends within this time failed because of its setup.
const SETUP_FAILURE_MS: u64 = 2000;

/// The facility of the client's log lines about failed connections.
const FACILITY: &str = "FAIL";

/// How long a cause is reported: later the client has connected, or would have logged a newer one.
pub(super) const FAULT_VALID_FOR: Duration = Duration::from_secs(60);

/// A connection that failed, as the client reported it last. It explains the error of a request
/// that found no broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The client's code. None for a cause that is only logged.
    pub(crate) code: Option<Code>,
    /// The client's text.
    pub(crate) cause: String,
}

impl Fault {
    /// Whether a retry with the same settings is useless: wrong credentials, for which brokers may
    /// lock the account, or TLS.
    pub(crate) fn is_permanent(&self) -> bool {
        self.is_refused() || self.code == Some(Code::SSL)
    }

    /// Whether the broker, or the source of tokens, rejects the credentials of this client.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(
            self.code,
            Some(Code::Authentication | Code::SaslAuthenticationFailed)
        )
    }
}

/// The last failed connection of a client. Also a client context that keeps it and logs.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastFault {
    last: Arc<Mutex<Option<(Instant, Fault)>>>,
}

impl LastFault {
    /// Notes an error that belongs to no request.
    pub(crate) fn note_error(&self, error: &ClientError, reason: &str) {
        match error.rdkafka_error_code() {
            // It follows the errors of the single brokers, which are more specific.
            Some(Code::AllBrokersDown) => {}
            // The client looked for the coordinator of its own group. The connection is in order.
            Some(Code::GroupAuthorizationFailed) => {}
            code => self.set(code, reason),
        }
    }

    /// Notes a line of the client's log: only there it reports that a listener expects TLS or a
    /// login.
    pub(crate) fn note_line(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let is_error = matches!(level, RDKafkaLogLevel::Error | RDKafkaLogLevel::Critical);
        if facility == FACILITY && !is_error {
            let message = message.split_once("]: ").map_or(message, |(_, told)| told);
            self.set(None, message);
        }
    }

    fn set(&self, code: Option<Code>, reason: &str) {
        let cause = without_internals(reason);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((Instant::now(), Fault { code, cause }));
    }

    /// Forgets the last failure. Returns whether there was one.
    fn forget(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.take().is_some()
    }

    /// The last failure, unless it is long ago.
    pub(crate) fn get(&self) -> Option<Fault> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, fault) = last.as_ref()?;
        (at.elapsed() < FAULT_VALID_FOR).then(|| fault.clone())
    }
}

impl ClientContext for LastFault {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
        self.note_line(level, facility, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        self.note_error(&error, reason);
    }
}

impl ConsumerContext for LastFault {}

/// How long events are awaited after a failed request.
const EVENTS_WAIT: Duration = Duration::from_millis(5);

/// Lets a client report errors and log lines, which it does only when polled. Blocks for a few
/// milliseconds after the last event.
pub(crate) fn serve_events(client: &BaseConsumer<LastFault>) {
    // A poll without a wait would end at the first log line.
    while client.poll(EVENTS_WAIT).is_some() {}
}

/// As [`serve_events`], for the events that the client has already, however many. Does not block,
/// and leaves those that arrive meanwhile to the next call. A client that is never polled keeps its
/// log lines and errors for ever.
pub(super) fn serve_queued_events(client: &BaseConsumer<LastFault>) {
    for _ in 0..queued_events(client.client()) {
        // A poll serves one. An error is noted by the context, so the result is not needed.
        let _ = client.poll(Duration::ZERO);
    }
}

/// Discards the causes that a client has kept since it was polled last, [`FAULT_VALID_FOR`] ago: a
/// poll would note them as new, but they explain no request of now. Blocks for a few milliseconds.
pub(super) fn discard_old_events(client: &BaseConsumer<LastFault>) {
    // Many events take longer than one poll waits.
    loop {
        serve_events(client);
        if !client.context().forget() {
            return;
        }
    }
}

/// A cause without the client's internals, such as the time that it spent in a state, but with the
/// hint that they contain.
fn without_internals(reason: &str) -> String {
    let (reason, state) = match reason.rfind(" (after ") {
        Some(at) if reason.contains(" in state ") => reason.split_at(at),
        _ => (reason, ""),
    };
    let installs = " (install ca-certificates package)";
    let reason = reason.strip_suffix(installs).unwrap_or(reason);
    let hint = hint(reason, state).unwrap_or_default();
    crate::kafka::config::mask_userinfo(&format!("{reason}{hint}")).into_owned()
}

/// A hint for a connection that the broker closed, by its state: that of its first request, or
/// shortly after.
///
/// librdkafka has these hints too but loses them: it searches for the signs in its format and not
/// in the message.
fn hint(reason: &str, state: &str) -> Option<&'static str> {
    let was_closed = ["closed by peer", "reset by peer", "Disconnected"];
    if !was_closed.iter().any(|sign| reason.contains(sign)) || reason.contains("listener?") {
        return None;
    }
    let (after, state) = state.strip_prefix(" (after ")?.split_once("ms in state ")?;
    let was_soon = after.parse::<u64>().is_ok_and(|ms| ms < SETUP_FAILURE_MS);
    let (has_tls, has_login) = (reason.contains("ssl://"), reason.contains("sasl_"));
    if state.starts_with("APIVERSION_QUERY") && !has_tls {
        return Some(" (connecting to a SSL listener?)");
    }
    let asks_for_login = state.starts_with("UP") && was_soon && !has_login;
    asks_for_login.then_some(" (broker might require SASL authentication)")
}

/// Texts of the client, and the remedies. The first entry that matches counts, so specific texts
/// come before general ones.
const ADVICE: &[(&[&str], &str)] = &[
    (
        &["is not trusted", "certificate verify failed"],
        "set ssl.ca.location to a PEM file with the authority that issued the broker's certificate",
    ),
    (
        &["has expired", "is not valid before"],
        "have the broker's certificate renewed",
    ),
    (
        &["is for other names"],
        "connect by a name that the broker's certificate is for, and have it advertise that name",
    ),
    (
        &[
            "alert bad certificate",
            "alert certificate required",
            "alert handshake failure",
            "certificate required",
        ],
        "the broker asks for a client certificate that it accepts: set ssl.certificate.location \
         and ssl.key.location, in PEM",
    ),
    (
        &[
            "alert unknown ca",
            "alert certificate unknown",
            "alert certificate expired",
        ],
        "the broker does not accept the client certificate: check ssl.certificate.location, the \
         issuer and the expiry",
    ),
    (
        &["connecting to a SSL listener?"],
        "the listener seems to expect TLS: set security.protocol to SSL or SASL_SSL",
    ),
    (
        &[
            "connecting to a PLAINTEXT broker listener?",
            "wrong version number",
            "unexpected eof",
            "packet length too long",
        ],
        "the listener seems to speak no TLS: set security.protocol to PLAINTEXT or \
         SASL_PLAINTEXT, or use the port for TLS",
    ),
    (
        &["might require SASL authentication"],
        "the listener seems to expect a login: set security.protocol to SASL_SSL or \
         SASL_PLAINTEXT, and sasl.mechanism",
    ),
    (
        &["OAUTHBEARER token"],
        "check the file that sasl.oauthbearer.config names, or the program's own source of tokens",
    ),
    (
        &["not valid in current SASL state"],
        "the listener seems to expect no login: set security.protocol to PLAINTEXT or SSL",
    ),
    (
        &["Unsupported SASL mechanism", "mechanism handshake failed"],
        "set sasl.mechanism to one that the broker offers",
    ),
    (
        &["invalid_token"],
        "the broker does not accept the token: check its issuer, audience and times, and the \
         broker's log",
    ),
    (
        &[
            "SASL authentication error",
            "Authentication failed",
            "SASL Authentication failed",
        ],
        "check sasl.username, sasl.password and sasl.mechanism",
    ),
    (&["Failed to resolve"], "check the host name"),
];

/// The remedy for a cause. None if the text is unknown.
pub(crate) fn advice(cause: &str) -> Option<&'static str> {
    let is_said =
        |(signs, _): &&(&[&str], &'static str)| signs.iter().any(|sign| cause.contains(sign));
    ADVICE.iter().find(is_said).map(|(_, advice)| *advice)
}

/// A cause with its remedy, or with `otherwise`.
pub(crate) fn with_remedy(cause: &str, otherwise: &str) -> String {
    format!("{cause}; {}", advice(cause).unwrap_or(otherwise))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cause_is_kept_without_the_clients_own_matters() {
        let last = LastFault::default();
        let error = |code| ClientError::Global(code);
        let reason = "ssl://a:1/bootstrap: SSL handshake failed: x (after 5ms in state SSL_HANDSHAKE, 1 identical error(s) suppressed)";
        last.note_error(&error(Code::SSL), reason);
        last.note_error(&error(Code::AllBrokersDown), "1/1 brokers are down");
        last.note_error(
            &error(Code::GroupAuthorizationFailed),
            "FindCoordinator response error: Group authorization failed",
        );
        let fault = last.get().expect("a fault");
        assert_eq!(fault.cause, "ssl://a:1/bootstrap: SSL handshake failed: x");
        assert!(fault.is_permanent() && !fault.is_refused());
        last.note_line(
            RDKafkaLogLevel::Info,
            "FAIL",
            "[thrd:a:1/bootstrap]: a:1/bootstrap: Disconnected",
        );
        assert_eq!(
            last.get().expect("a fault").cause,
            "a:1/bootstrap: Disconnected"
        );
        last.note_line(RDKafkaLogLevel::Info, "OTHER", "[thrd:main]: other");
        assert_eq!(last.get().expect("a fault").code, None);
    }

    #[test]
    fn the_connection_state_of_a_hangup_shows_what_was_expected() {
        let closed =
            "a:1/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN";
        let of = |prefix: &str, state: &str| {
            let shortened = without_internals(&format!("{prefix}{closed} (after {state})"));
            advice(&shortened).map(|advice| advice.split(':').next().unwrap_or_default().to_owned())
        };
        let tls = Some("the listener seems to expect TLS".to_owned());
        let login = Some("the listener seems to expect a login".to_owned());
        assert_eq!(of("", "4ms in state APIVERSION_QUERY"), tls);
        assert_eq!(of("ssl://", "4ms in state APIVERSION_QUERY"), None);
        assert_eq!(
            of("", "4ms in state UP, 1 identical error(s) suppressed"),
            login
        );
        assert_eq!(of("ssl://", "4ms in state UP"), login);
        assert_eq!(of("sasl_ssl://", "4ms in state UP"), None);
        assert_eq!(of("", "600000ms in state UP"), None);
    }

    #[test]
    fn each_cause_has_its_own_advice() {
        for (cause, says) in [
            ("the certificate of a:1 is not trusted", "ssl.ca.location"),
            ("the certificate of a:1 has expired on x", "renewed"),
            (
                "the certificate of a:1 is for other names: DNS:b",
                "by a name",
            ),
            (
                "error:0A000412:SSL routines::sslv3 alert bad certificate",
                "ssl.certificate.location",
            ),
            (
                "might be caused by incorrect (connecting to a SSL listener?)",
                "SASL_SSL",
            ),
            (
                "error:0A000126:SSL routines::unexpected eof while reading",
                "no TLS",
            ),
            (
                "SASL X mechanism handshake failed: Broker: Unsupported SASL mechanism",
                "offers",
            ),
            (
                "SASL authentication error: Authentication failed",
                "sasl.password",
            ),
            (
                "Failed to acquire SASL OAUTHBEARER token: /t is empty",
                "sasl.oauthbearer.config",
            ),
            (
                "SASL authentication error: {\"status\":\"invalid_token\"}",
                "audience",
            ),
        ] {
            let advice = advice(cause).expect(cause);
            assert!(advice.contains(says), "{cause}: {advice}");
        }
        assert_eq!(advice("Connection refused"), None);
    }
}

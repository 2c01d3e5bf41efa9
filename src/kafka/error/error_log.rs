//! Logs the errors of all clients of this process, with a rate limit.
//!
//! A process has several clients, and each repeats an error several times a second for each broker.
//! An outage of the brokers is logged once for the process: when it begins, once a minute while it
//! lasts, and when the brokers answer again. Other errors are logged once a minute for each code.
//!
//! The state is one per process and not per client, because the clients of a process talk to the
//! same cluster. `native/reconnect.rs`, which checks all clients, reports when they are connected.
//! Clients call this module from their polling threads and from librdkafka's own. No lock is held
//! while a line is written.

use crate::durations::in_words;
use crate::telemetry::LogLimiter;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The shortest interval between two lines about the same trouble.
pub(crate) const LINE_EVERY: Duration = Duration::from_secs(60);
/// If no client has reported an error for this long, the brokers count as available.
const QUIET_FOR: Duration = Duration::from_secs(3);
/// The most kinds of errors that are distinguished. librdkafka has a few hundred codes, of which
/// few occur.
const KINDS_MAX: usize = 64;

static OUTAGE: Mutex<Outage> = Mutex::new(Outage::NONE);
static OTHERS: Mutex<BTreeMap<String, LogLimiter>> = Mutex::new(BTreeMap::new());

/// Handles a client's error that belongs to no record. Never blocks.
pub(crate) fn report_client_error(error: &KafkaError, reason: &str) {
    let code = error.rdkafka_error_code();
    if code.is_some_and(is_of_connection) {
        // It follows the errors of single brokers, which are more specific, and also occurs when
        // the bootstrap connection is replaced by a better one.
        let reason = (code != Some(Code::AllBrokersDown)).then_some(reason);
        connection_failed(reason);
        return;
    }
    if let Some(unsaid) = is_due(&format!("{code:?}")) {
        tracing::warn!(target: "librdkafka", %error, unsaid, "{reason}");
    }
}

/// Whether a line of this kind is due. If so, returns how many of the kind were suppressed.
pub(in crate::kafka) fn is_due(kind: &str) -> Option<u64> {
    let mut others = lock(&OTHERS);
    if others.len() >= KINDS_MAX && !others.contains_key(kind) {
        others.clear();
    }
    others.entry(kind.to_owned()).or_default().due(LINE_EVERY)
}

/// Notes that a connection failed. The reason is none if the error has no further detail.
pub(in crate::kafka) fn connection_failed(reason: Option<&str>) {
    let told = lock(&OUTAGE).failed(Instant::now(), reason);
    match told {
        Some(Notice::Begins { reason }) => {
            tracing::warn!(reason, "a connection to Kafka failed; retrying");
        }
        Some(Notice::Lasts {
            since,
            reason,
            unsaid,
        }) => {
            let since = in_words(since);
            tracing::warn!(
                reason,
                unsaid,
                "connections to Kafka have been failing for {since}"
            );
        }
        None => {}
    }
}

/// Whether connections have failed recently, so that a check of the connections makes sense.
pub(in crate::kafka) fn has_recent_failure() -> bool {
    lock(&OUTAGE).since.is_some()
}

/// Notes that all watched clients have a broker.
pub(in crate::kafka) fn all_connected() {
    if let Some(lasted) = lock(&OUTAGE).ended(Instant::now()) {
        tracing::info!("Kafka answers again after {}", in_words(lasted));
    }
}

/// Whether the code means that a broker cannot be reached, as opposed to an answer of a broker.
fn is_of_connection(code: Code) -> bool {
    matches!(
        code,
        Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::NetworkException
    )
}

/// An outage of the brokers, as logged by this process.
struct Outage {
    since: Option<Instant>,
    last: Option<Instant>,
    line_at: Option<Instant>,
    is_told: bool,
    unsaid: u64,
    /// The latest reason with detail.
    reason: String,
}

/// A line that is due. `unsaid` counts the errors since the last line that were not logged.
#[derive(Debug, PartialEq, Eq)]
enum Notice {
    Begins {
        reason: String,
    },
    Lasts {
        since: Duration,
        reason: String,
        unsaid: u64,
    },
}

impl Outage {
    const NONE: Self = Self {
        since: None,
        last: None,
        line_at: None,
        is_told: false,
        unsaid: 0,
        reason: String::new(),
    };

    /// Notes a failed connection. Returns the line that is due, if one is. The first line waits for
    /// a reason, as a line without one would help nobody.
    fn failed(&mut self, now: Instant, reason: Option<&str>) -> Option<Notice> {
        self.last = Some(now);
        let since = *self.since.get_or_insert(now);
        if let Some(reason) = reason {
            self.reason = reason.to_owned();
        }
        let is_early = self.line_at.is_some_and(|at| now - at < LINE_EVERY);
        if is_early || self.reason.is_empty() {
            self.unsaid += 1;
            return None;
        }
        self.line_at = Some(now);
        let (reason, unsaid) = (self.reason.clone(), std::mem::take(&mut self.unsaid));
        Some(match std::mem::replace(&mut self.is_told, true) {
            false => Notice::Begins { reason },
            true => Notice::Lasts {
                since: now - since,
                reason,
                unsaid,
            },
        })
    }

    /// Ends the outage. Returns how long it lasted, if it was logged.
    fn ended(&mut self, now: Instant) -> Option<Duration> {
        if self.last.is_none_or(|last| now - last < QUIET_FOR) {
            return None;
        }
        let since = self.since.take()?;
        self.reason.clear();
        let is_told = std::mem::take(&mut self.is_told);
        is_told.then(|| now - since)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_at_start_each_minute_and_end() {
        let (mut outage, start) = (Outage::NONE, Instant::now());
        let mut told = Vec::new();
        // Eight errors a second, of several clients, for 130 s.
        for eighth in 0..130 * 8_u32 {
            let now = start + Duration::from_millis(125) * eighth;
            let reason = (eighth % 2 == 1).then_some("refused");
            told.extend(outage.failed(now, reason));
            assert_eq!(outage.ended(now), None);
        }
        let lasts = |since: f64, unsaid| Notice::Lasts {
            since: Duration::from_secs_f64(since),
            reason: "refused".to_owned(),
            unsaid,
        };
        let reason = "refused".to_owned();
        let expected = [
            Notice::Begins { reason },
            lasts(60.125, 479),
            lasts(120.125, 479),
        ];
        assert_eq!(told, expected);
        let end = start + Duration::from_secs(133);
        assert_eq!(outage.ended(end), Some(Duration::from_secs(133)));
        assert_eq!(outage.ended(end), None);
    }

    #[test]
    fn brokers_that_come_and_go_have_a_line_a_minute() {
        let (mut outage, start) = (Outage::NONE, Instant::now());
        let (mut begun, mut ended) = (0, 0);
        for second in 0..300_u64 {
            let now = start + Duration::from_secs(second);
            match second % 10 {
                0 => begun += usize::from(outage.failed(now, Some("reset")).is_some()),
                9 => ended += usize::from(outage.ended(now).is_some()),
                _ => {}
            }
        }
        assert_eq!((begun, ended), (5, 5));
    }
}

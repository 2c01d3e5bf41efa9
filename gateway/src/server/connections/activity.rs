//! What one connection does: requests, the head that is being read, the answer that is not read.
//!
//! Pure but for a lock: the clock comes in as an argument. Decides when a connection is closed.

use super::limits::ConnectionLimits;
use super::message_end::MessageEnd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// The first bytes of an HTTP/2 connection. What deviates from them is a head of HTTP/1.1.
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The metric of open connections.
pub(super) const OPEN: &str = "gateway_connections";
/// The metric of connections that the gateway closed.
pub(super) const CLOSED_TOTAL: &str = "gateway_connections_closed_total";

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// No request for too long.
    Idle,
    /// The head of a request did not arrive in time.
    SlowHead,
    /// The client reads nothing of its answer.
    SlowReader,
}

impl CloseReason {
    /// Its name in logs and metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::SlowHead => "slow-head",
            Self::SlowReader => "slow-reader",
        }
    }
}

/// The activity of a connection, shared by its socket, its requests and the sweep.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    /// The bytes of the preface that have arrived. All of them: it is HTTP/2.
    preface_len: usize,
    is_h1: bool,
    /// The end of the request of HTTP/1.1 among the bytes that have arrived.
    message: MessageEnd,
    /// Requests whose answers are not completely written.
    requests: usize,
    /// Whether the socket belongs to a WebSocket, which has its own limits.
    upgraded: bool,
    idle_since: Instant,
    head_since: Option<Instant>,
    write_stalled_since: Option<Instant>,
    /// Answers of which a part waits to be written.
    waiting: usize,
    /// Since when no part was written, from a moment on at which one of every answer waited: the
    /// client gives HTTP/2 no room for any. A new request does not end it.
    unread_since: Option<Instant>,
    /// Whether it is closed without regard for its requests.
    is_cut: bool,
    /// Whether the body of the last request was not read to its end.
    is_unread: bool,
}

impl Activity {
    /// The activity of a connection that was accepted now.
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(State {
            preface_len: 0,
            is_h1: false,
            message: MessageEnd::default(),
            requests: 0,
            upgraded: false,
            idle_since: now,
            head_since: None,
            write_stalled_since: None,
            waiting: 0,
            unread_since: None,
            is_cut: false,
            is_unread: false,
        }))
    }

    /// Notes bytes from the client.
    pub(super) fn received(&self, bytes: &[u8], now: Instant) {
        if bytes.is_empty() {
            return;
        }
        let mut this = self.lock();
        if !this.is_h1 {
            let rest = H2_PREFACE.get(this.preface_len..).unwrap_or_default();
            let equal = rest
                .iter()
                .zip(bytes)
                .take_while(|(one, other)| one == other);
            let equal = equal.count();
            this.preface_len += equal;
            this.is_h1 = equal < rest.len().min(bytes.len());
        }
        if this.is_h1 && !this.upgraded {
            this.message.received(bytes);
        }
        // The empty line that some clients send behind a body may arrive after the answer.
        let is_head = !this.is_h1 || this.message.has_begun();
        if is_head && this.requests == 0 && !this.upgraded && !this.is_unread {
            this.head_since.get_or_insert(now);
        }
    }

    /// Notes whether the socket took bytes of an answer.
    pub(super) fn wrote(&self, progress: bool, now: Instant) {
        let mut this = self.lock();
        if progress {
            this.write_stalled_since = None;
        } else {
            this.write_stalled_since.get_or_insert(now);
        }
    }

    /// Notes a request whose head was read. Without `body_len` its body is sent in chunks.
    pub(super) fn request_started(&self, body_len: Option<u64>) {
        let mut this = self.lock();
        this.requests += 1;
        this.head_since = None;
        this.is_unread = false;
        this.message.begun(body_len);
    }

    /// Notes the end of a request's answer. Bytes behind the request are the head of the next one.
    pub(super) fn request_ended(&self, now: Instant) {
        let mut this = self.lock();
        this.requests = this.requests.saturating_sub(1);
        this.idle_since = now;
        if this.is_h1 && this.message.is_followed() && !this.is_unread {
            this.head_since.get_or_insert(now);
        }
        this.note_waiting(now);
    }

    /// Notes that a part of an answer waits to be written.
    pub(super) fn part_waits(&self, now: Instant) {
        let mut this = self.lock();
        this.waiting += 1;
        this.note_waiting(now);
    }

    /// Notes that the part was written.
    pub(super) fn part_written(&self) {
        let mut this = self.lock();
        this.waiting = this.waiting.saturating_sub(1);
        this.unread_since = None;
    }

    /// Notes that the part no longer waits, which says nothing of the client: it reset its request,
    /// or the part needed no room.
    pub(super) fn part_given_up(&self) {
        let mut this = self.lock();
        this.waiting = this.waiting.saturating_sub(1);
        if this.waiting == 0 {
            this.unread_since = None;
        }
    }

    /// Notes that the body of a request was given up before its end.
    pub(super) fn left_unread(&self) {
        self.lock().is_unread = true;
    }

    /// Whether the client may still send a request that was answered early: then a close at once
    /// would be a reset, which can destroy the answer. HTTP/2 ends such a request by a frame.
    pub(super) fn may_still_send(&self) -> bool {
        let this = self.lock();
        this.is_h1 && !this.upgraded && (this.is_unread || this.head_since.is_some())
    }

    /// Notes that the connection is closed without regard for its requests.
    pub(super) fn cut(&self) {
        self.lock().is_cut = true;
    }

    /// Whether the connection is closed without regard for its requests.
    pub(super) fn is_cut(&self) -> bool {
        self.lock().is_cut
    }

    /// Notes that the connection is no longer one of HTTP.
    pub(super) fn upgraded(&self) {
        self.lock().upgraded = true;
    }

    /// The number of requests under way. A WebSocket counts as one.
    pub(super) fn requests(&self) -> usize {
        let this = self.lock();
        this.requests + usize::from(this.upgraded)
    }

    /// Since when it has no request. None if it has one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let this = self.lock();
        (this.requests == 0 && !this.upgraded).then_some(this.idle_since)
    }

    /// Whether the connection is to be closed.
    pub(super) fn verdict(&self, limits: &ConnectionLimits, now: Instant) -> Option<CloseReason> {
        let this = self.lock();
        if this.upgraded {
            return None;
        }
        let is_over = |since: Option<Instant>, max| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= max)
        };
        // A request that is not answered yet may belong to a client that reads. It puts off the end
        // once, and not for ever.
        let unread_max = match this.all_wait() {
            true => limits.write_stalled_max,
            false => limits.write_stalled_max.saturating_mul(2),
        };
        if is_over(this.write_stalled_since, limits.write_stalled_max)
            || is_over(this.unread_since, unread_max)
        {
            return Some(CloseReason::SlowReader);
        }
        if this.requests > 0 {
            return None;
        }
        // The frames of an idle HTTP/2 connection, such as pings, begin no head.
        let is_h2 = this.preface_len == H2_PREFACE.len();
        if !is_h2 && is_over(this.head_since, limits.head_within) {
            return Some(CloseReason::SlowHead);
        }
        is_over(Some(this.idle_since), limits.idle_max).then_some(CloseReason::Idle)
    }

    /// No invariant can be half written, so a panic elsewhere does no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a part of every answer waits to be written.
    fn all_wait(&self) -> bool {
        self.requests > 0 && self.waiting >= self.requests
    }

    fn note_waiting(&mut self, now: Instant) {
        if self.all_wait() {
            self.unread_since.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    type Step = fn(&Activity, Instant);

    /// The verdict `after` the steps, which all happen at the start.
    fn check(steps: &[Step], after: u64, expected: Option<CloseReason>) {
        let start = Instant::now();
        let activity = Activity::new(start);
        for step in steps {
            step(&activity, start);
        }
        let limits = ConnectionLimits::default();
        let now = start + Duration::from_secs(after);
        assert_eq!(activity.verdict(&limits, now), expected, "after {after} s");
    }

    #[test]
    fn silent_slow_and_stalled_connections_are_closed_in_time() {
        let part: Step = |activity, now| activity.received(b"GET / HT", now);
        let head: Step = |activity, now| activity.received(b"GET / HTTP/1.1\r\n\r\n", now);
        let h2: Step = |activity, now| {
            let (first, rest) = H2_PREFACE.split_at(10);
            activity.received(first, now);
            activity.received(rest, now);
            activity.received(b"frames", now);
        };
        let part_of_h2: Step = |activity, now| activity.received(b"PRI * HTTP/2", now);
        let like_h2: Step = |activity, now| activity.received(b"PRIVATE / HTTP/1.1", now);
        let started: Step = |activity, _| activity.request_started(Some(0));
        let ended: Step = |activity, now| activity.request_ended(now);
        let stalled: Step = |activity, now| activity.wrote(false, now);
        let resumed: Step = |activity, now| activity.wrote(true, now);
        let upgraded: Step = |activity, _| activity.upgraded();
        let waits: Step = |activity, now| activity.part_waits(now);
        let written: Step = |activity, _| activity.part_written();
        check(&[], 59, None);
        check(&[], 60, Some(CloseReason::Idle));
        check(&[part], 7, None);
        check(&[part], 8, Some(CloseReason::SlowHead));
        check(&[part_of_h2], 8, Some(CloseReason::SlowHead));
        check(&[like_h2], 8, Some(CloseReason::SlowHead));
        check(&[h2], 8, None);
        check(&[h2], 60, Some(CloseReason::Idle));
        check(&[head, started], 3_600, None);
        check(&[head, started, ended], 59, None);
        check(&[head, started, ended], 60, Some(CloseReason::Idle));
        check(
            &[head, started, ended, part],
            8,
            Some(CloseReason::SlowHead),
        );
        check(&[head, started, stalled], 60, Some(CloseReason::SlowReader));
        check(&[head, started, stalled, resumed], 60, None);
        check(&[head, started, ended, upgraded], 3_600, None);
        let slow = Some(CloseReason::SlowReader);
        check(&[h2, started, waits], 59, None);
        check(&[h2, started, waits], 60, slow);
        check(&[h2, started, waits, written], 3_600, None);
        // The client reads another answer, or waits for it.
        check(&[h2, started, started, waits], 3_600, None);
        check(&[h2, started, started, waits, waits], 60, slow);
        check(&[h2, started, started, waits, ended], 60, slow);
    }

    #[test]
    fn an_empty_line_after_the_answer_begins_no_head() {
        let post: Step = |activity, now| {
            activity.received(b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nabcd", now);
            activity.request_started(Some(4));
            activity.request_ended(now);
        };
        let empty_line: Step = |activity, now| activity.received(b"\r\n", now);
        let part: Step = |activity, now| activity.received(b"G", now);
        let line_and_part: Step = |activity, now| activity.received(b"\r\nG", now);
        let slow = Some(CloseReason::SlowHead);
        check(&[post, empty_line], 8, None);
        check(&[post, empty_line], 60, Some(CloseReason::Idle));
        check(&[post, empty_line, part], 8, slow);
        check(&[post, line_and_part], 8, slow);
        check(&[post, empty_line, post], 8, None);
        check(&[empty_line], 8, None);
        check(&[empty_line, part], 8, slow);
    }

    #[test]
    fn requests_that_read_nothing_do_not_put_off_the_end() {
        let limits = ConnectionLimits::default();
        let start = Instant::now();
        let activity = Activity::new(start);
        let check = |after, expected| {
            let now = start + Duration::from_secs(after);
            assert_eq!(activity.verdict(&limits, now), expected, "after {after} s");
        };
        activity.received(H2_PREFACE, start);
        activity.request_started(Some(0));
        activity.part_waits(start);
        // Another one is not answered yet.
        activity.request_started(Some(0));
        check(119, None);
        check(120, Some(CloseReason::SlowReader));
        // Its answer waits, too.
        activity.part_waits(start + Duration::from_secs(50));
        check(59, None);
        check(60, Some(CloseReason::SlowReader));
        // One of them is reset.
        activity.part_given_up();
        activity.request_ended(start + Duration::from_secs(50));
        check(60, Some(CloseReason::SlowReader));
        // Another one is read.
        activity.request_started(Some(0));
        activity.part_waits(start + Duration::from_secs(55));
        activity.part_written();
        activity.request_ended(start + Duration::from_secs(55));
        check(114, None);
        check(115, Some(CloseReason::SlowReader));
        // Nothing waits any more.
        activity.part_given_up();
        activity.request_ended(start + Duration::from_secs(60));
        check(119, None);
        check(120, Some(CloseReason::Idle));
    }

    #[test]
    fn a_head_behind_a_request_has_its_time_from_the_answer_on() {
        let head: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
        let posted: &[u8] = b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nabcd";
        let next: &[u8] = b"GET / HT";
        let limits = ConnectionLimits::default();
        for (first, later, body_len, expected) in [
            (head.to_vec(), &b""[..], Some(0), None),
            (posted.to_vec(), b"", Some(4), None),
            (
                [head, next].concat(),
                b"",
                Some(0),
                Some(CloseReason::SlowHead),
            ),
            (
                [posted, next].concat(),
                b"",
                Some(4),
                Some(CloseReason::SlowHead),
            ),
            (head.to_vec(), next, Some(0), Some(CloseReason::SlowHead)),
            (posted.to_vec(), next, Some(4), Some(CloseReason::SlowHead)),
        ] {
            let start = Instant::now();
            let activity = Activity::new(start);
            activity.received(&first, start);
            activity.request_started(body_len);
            activity.received(later, start);
            let ended = start + Duration::from_secs(30);
            activity.request_ended(ended);
            let name = String::from_utf8_lossy(&first);
            let before = ended + Duration::from_secs(7);
            assert_eq!(activity.verdict(&limits, before), None, "{name} {later:?}");
            let after = ended + limits.head_within;
            let found = activity.verdict(&limits, after);
            assert_eq!(found, expected, "{name} {later:?}");
        }
    }

    #[test]
    fn only_what_is_still_sent_delays_a_close() {
        let bytes: Step = |activity, now| activity.received(b"POST / HTTP/1.1\r\n\r\n", now);
        let h2: Step = |activity, now| activity.received(H2_PREFACE, now);
        let started: Step = |activity, _| activity.request_started(Some(0));
        let unread: Step = |activity, _| activity.left_unread();
        let ended: Step = |activity, now| activity.request_ended(now);
        let upgraded: Step = |activity, _| activity.upgraded();
        for (steps, expected) in [
            (&[][..], false),
            (&[bytes, started, ended], false),
            (&[bytes, started, unread, ended], true),
            (
                &[bytes, started, unread, ended, bytes, started, ended],
                false,
            ),
            (&[bytes], true),
            (&[bytes, started, unread, upgraded], false),
            (&[h2, started, unread, ended], false),
        ] {
            let now = Instant::now();
            let activity = Activity::new(now);
            for step in steps {
                step(&activity, now);
            }
            assert_eq!(activity.may_still_send(), expected, "{} steps", steps.len());
        }
    }
}

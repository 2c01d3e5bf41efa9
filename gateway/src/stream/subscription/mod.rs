//! One stream of one client: its places in the topics, and the order of its frames.
//!
//! Knows rings and turns of catching up. Knows no protocol and no rights.
//!
//! All waiting is done by polling, so that [`Subscription::next`] is cancel-safe: nothing is taken
//! from a ring or a channel before a frame is returned.

use super::catch_up::{self, CaughtUp};
use super::cursor::{TopicIdentity, cursor_text};
use super::frame::{Filter, Frame, StreamedEvent};
use super::ring::{Joined, LogGap, Place, RingItem, Taken};
use super::telemetry::{self, OpenStream};
use super::topic_log::{LogHandle, TopicLogs};
use crate::http::{Problem, ProblemKind};
use futures_util::{Stream, StreamExt};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep};
use tokio_stream::wrappers::WatchStream;

/// How often one poll looks into a ring before it lets other tasks run.
const LOOKS_MAX: usize = 8;

/// An open stream. Ends after a frame that [is the last](Frame::is_last).
///
/// It holds its filter, its position in each partition of its topics, and, while it catches up, at
/// most two chunks of 256 KiB that were read for it. It buffers no events of the ring: these are
/// shared.
///
/// Frames have to be taken in time. If more than the
/// [`slow_client_timeout`](super::StreamSettings::slow_client_timeout) passes between a frame and
/// the next call, the stream ends with [`Frame::Slow`].
#[must_use = "a stream delivers only while it is polled"]
pub struct Subscription {
    parts: Vec<Part>,
    filter: Arc<Filter>,
    logs: Arc<TopicLogs>,
    /// The part that is looked at first, so that no topic is starved.
    turn: usize,
    heartbeats: Interval,
    draining: WatchStream<bool>,
    /// When the caller's token expires.
    expiry: Option<Pin<Box<Sleep>>>,
    slow_after: Duration,
    /// When the last frame was returned, if nothing was asked for since.
    returned: Option<Instant>,
    is_new: bool,
    is_over: bool,
    _client: (OwnedSemaphorePermit, OpenStream),
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("types", &self.filter.types)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

/// A topic of a stream.
pub(super) struct Part {
    log: LogHandle,
    identity: Option<TopicIdentity>,
    place: Place,
    source: Source,
    changes: WatchStream<u64>,
    /// Gaps that are reported before anything else: the log began anew or was cut.
    gaps: VecDeque<LogGap>,
    /// The id of the topic that the place is in. Until the gaps are reported, cursors have the id
    /// and the positions of before, so that a client that resumes there learns of them.
    joined: Option<TopicIdentity>,
}

/// Where the events of a part come from.
enum Source {
    /// To be decided.
    Undecided,
    Ring,
    CatchUp {
        turn: mpsc::Receiver<CaughtUp>,
        chunk: VecDeque<RingItem>,
        /// The positions after the chunk.
        reached: Vec<i64>,
    },
}

/// What a part delivers.
enum Delivered {
    Event(Arc<StreamedEvent>),
    Gap(LogGap),
}

impl Part {
    /// A part that begins at these positions, which were found in this generation of the log.
    pub(super) fn new(
        log: LogHandle,
        identity: Option<TopicIdentity>,
        positions: Vec<i64>,
        generation: u64,
    ) -> Self {
        Self {
            changes: WatchStream::from_changes(log.changes()),
            log,
            identity,
            place: Place::of_generation(positions, generation),
            source: Source::Undecided,
            gaps: VecDeque::new(),
            joined: identity,
        }
    }

    /// The positions of a cursor.
    fn positions(&self) -> Cow<'_, [i64]> {
        let mut positions = Cow::Borrowed(self.place.positions());
        for gap in &self.gaps {
            let at = usize::try_from(gap.partition).unwrap_or_default();
            if let Some(position) = positions.to_mut().get_mut(at) {
                *position = gap.from;
            }
        }
        positions
    }

    fn next_gap(&mut self) -> Option<LogGap> {
        let gap = self.gaps.pop_front()?;
        if self.gaps.is_empty() {
            self.identity = self.joined;
        }
        Some(gap)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        logs: &Arc<TopicLogs>,
        filter: &Arc<Filter>,
    ) -> Poll<Result<Delivered, Problem>> {
        for _ in 0..LOOKS_MAX {
            if let Some(gap) = self.next_gap() {
                return Poll::Ready(Ok(Delivered::Gap(gap)));
            }
            let delivered = match &mut self.source {
                Source::Undecided => {
                    self.decide(logs, filter)?;
                    None
                }
                Source::Ring => ready!(self.poll_ring(cx, filter))?,
                Source::CatchUp { .. } => ready!(self.poll_catch_up(cx))?,
            };
            if let Some(delivered) = delivered {
                return Poll::Ready(Ok(delivered));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Continues in the ring, or begins to catch up.
    fn decide(&mut self, logs: &Arc<TopicLogs>, filter: &Arc<Filter>) -> Result<(), Problem> {
        // Under one lock: the id belongs to the positions.
        let (identity, joined) = self.log.join(&mut self.place)?;
        let (gaps, source) = match joined {
            Joined::Ring(gaps) => (gaps, Source::Ring),
            Joined::Behind { gaps, end } => {
                let from = self.place.positions().to_vec();
                let source = Source::CatchUp {
                    turn: catch_up::start(logs, &self.log, filter, from, end),
                    chunk: VecDeque::new(),
                    reached: Vec::new(),
                };
                (gaps, source)
            }
        };
        self.joined = identity;
        self.gaps.extend(gaps);
        if self.gaps.is_empty() {
            self.identity = identity;
        }
        self.source = source;
        Ok(())
    }

    /// None if there is a reason to look again.
    fn poll_ring(
        &mut self,
        cx: &mut Context<'_>,
        filter: &Filter,
    ) -> Poll<Result<Option<Delivered>, Problem>> {
        let taken = self
            .log
            .take(&mut self.place, |event| filter.matches(event))?;
        Poll::Ready(Ok(match taken {
            Taken::Event(event) => Some(Delivered::Event(event)),
            Taken::Gap(gap) => Some(Delivered::Gap(gap)),
            Taken::More => None,
            Taken::Lost => {
                self.source = Source::Undecided;
                None
            }
            Taken::Nothing => match ready!(self.changes.poll_next_unpin(cx)) {
                Some(_) => None,
                None => return Poll::Ready(Err(closed())),
            },
        }))
    }

    /// None if there is a reason to look again.
    fn poll_catch_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivered>, Problem>> {
        let Source::CatchUp {
            turn,
            chunk,
            reached,
        } = &mut self.source
        else {
            return Poll::Ready(Ok(None));
        };
        while let Some(item) = chunk.pop_front() {
            match item {
                RingItem::Event(event) => {
                    if self.place.pass(event.partition, event.offset) {
                        return Poll::Ready(Ok(Some(Delivered::Event(event))));
                    }
                }
                RingItem::Gap(gap) => {
                    if let Some(gap) = self.place.pass_gap(gap) {
                        return Poll::Ready(Ok(Some(Delivered::Gap(gap))));
                    }
                }
            }
        }
        self.place.advance_all(&std::mem::take(reached));
        match ready!(turn.poll_recv(cx)) {
            Some(CaughtUp::Chunk(items, positions)) => (*chunk, *reached) = (items, positions),
            Some(CaughtUp::Failed(problem)) => return Poll::Ready(Err(problem)),
            None => self.source = Source::Undecided,
        }
        Poll::Ready(Ok(None))
    }
}

/// The error if a log is dropped under a stream.
fn closed() -> Problem {
    Problem::new(
        ProblemKind::Unavailable,
        "the reading of the topic ended; reconnect",
    )
}

/// What all parts of a stream share.
pub(super) struct Terms {
    pub(super) logs: Arc<TopicLogs>,
    pub(super) filter: Filter,
    pub(super) draining: watch::Receiver<bool>,
    /// The time until the caller's token expires. None: never.
    pub(super) expires_in: Option<Duration>,
    pub(super) client: (OwnedSemaphorePermit, OpenStream),
}

impl Subscription {
    /// A stream of these parts, which are sorted by topic.
    pub(super) fn new(parts: Vec<Part>, terms: Terms) -> Self {
        let Terms {
            logs,
            filter,
            draining,
            expires_in,
            client,
        } = terms;
        let interval = logs.settings.heartbeat.max(Duration::from_millis(100));
        let mut heartbeats = interval_at(Instant::now() + interval, interval);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            parts,
            filter: Arc::new(filter),
            slow_after: logs.settings.slow_client_timeout,
            logs,
            turn: 0,
            heartbeats,
            draining: WatchStream::new(draining),
            expiry: expires_in.map(|left| Box::pin(sleep(left))),
            returned: None,
            is_new: true,
            is_over: false,
            _client: client,
        }
    }

    /// The next frame. None after the last one. Cancel-safe.
    pub async fn next(&mut self) -> Option<Frame> {
        std::future::poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// The present position.
    pub fn cursor(&self) -> String {
        let positions: Vec<_> = self.parts.iter().map(Part::positions).collect();
        let parts = self.parts.iter().zip(&positions);
        cursor_text(parts.map(|(part, next)| {
            let next: &[i64] = next;
            (&*part.log.topic, part.identity.as_ref(), next)
        }))
    }

    /// How long a client may take to accept what was sent.
    pub(crate) fn slow_after(&self) -> Duration {
        self.slow_after
    }

    /// Ends the stream, whose client did not accept the frames that were taken. Returns the last
    /// frame.
    pub(crate) fn cut_slow(&mut self) -> Frame {
        self.is_over = true;
        telemetry::slow_client_cut();
        Frame::Slow {
            cursor: self.cursor(),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let late = self
            .returned
            .take()
            .is_some_and(|at| at.elapsed() > self.slow_after);
        let frame = if late {
            self.cut_slow()
        } else {
            ready!(self.poll_open(cx))
        };
        self.is_over = frame.is_last();
        self.returned = Some(Instant::now());
        Poll::Ready(Some(frame))
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Frame> {
        while let Poll::Ready(is_draining) = self.draining.poll_next_unpin(cx) {
            // The gateway drains, or is gone.
            if is_draining != Some(false) {
                return Poll::Ready(Frame::Reconnect {
                    cursor: self.cursor(),
                });
            }
        }
        // The client reconnects with a new token, or is refused.
        let is_expired = |expiry: &mut Pin<Box<Sleep>>| expiry.as_mut().poll(cx).is_ready();
        if self.expiry.as_mut().is_some_and(is_expired) {
            return Poll::Ready(Frame::Reconnect {
                cursor: self.cursor(),
            });
        }
        if std::mem::take(&mut self.is_new) {
            return Poll::Ready(Frame::Heartbeat {
                cursor: self.cursor(),
            });
        }
        let with_gap = self.parts.iter().position(|part| !part.gaps.is_empty());
        if let Some(at) = with_gap
            && let Some(gap) = self.parts[at].next_gap()
        {
            return Poll::Ready(self.frame(at, Ok(Delivered::Gap(gap))));
        }
        // Before the events: the cursor of an idle topic moves even if another is busy.
        if self.heartbeats.poll_tick(cx).is_ready() {
            return Poll::Ready(Frame::Heartbeat {
                cursor: self.cursor(),
            });
        }
        let count = self.parts.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            if let Poll::Ready(result) = self.parts[at].poll(cx, &self.logs, &self.filter) {
                self.turn = at + 1;
                return Poll::Ready(self.frame(at, result));
            }
        }
        Poll::Pending
    }

    fn frame(&self, part: usize, result: Result<Delivered, Problem>) -> Frame {
        let cursor = self.cursor();
        match result {
            Ok(Delivered::Event(event)) => {
                telemetry::event_sent();
                Frame::Event { cursor, event }
            }
            Ok(Delivered::Gap(LogGap {
                partition,
                from,
                to,
            })) => {
                let topic = Arc::clone(&self.parts[part].log.topic);
                telemetry::gap_sent(&topic);
                Frame::Gap {
                    cursor,
                    topic,
                    partition,
                    from,
                    to,
                }
            }
            Err(problem) => Frame::Failed { cursor, problem },
        }
    }
}

/// [`Subscription::next`] as a stream.
impl Stream for Subscription {
    type Item = Frame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        self.get_mut().poll_frame(cx)
    }
}

#[cfg(test)]
mod tests;

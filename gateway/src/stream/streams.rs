//! Opens streams: rights, bounds, and where a stream begins.
//!
//! Knows callers and the allow list. Knows no protocol.

use super::cursor::{Cursor, CursorError, TopicIdentity, TopicPosition};
use super::frame::Filter;
use super::settings::StreamSettings;
use super::source::{LogSource, TopicFacts, problem_of};
use super::subscription::{Part, Subscription, Terms};
use super::telemetry::{self, OpenStream};
use super::topic_log::{LogEnd, LogHandle, TopicLogs};
use crate::access::{AllowList, Principal};
use crate::http::{Problem, ProblemKind};
use evenkeel::kafka::KafkaConfig;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// The age up to which a topic's first offsets count as known.
const FACTS_AGE_MAX: Duration = Duration::from_secs(2);
/// The longest filter.
const TYPES_MAX: usize = 256;

/// Where a stream begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StreamStart {
    /// With the next event.
    #[default]
    Now,
    /// With the first event that the topics have.
    Earliest,
    /// After the position of this cursor.
    After(String),
}

/// The streams of this gateway. Clones share everything.
///
/// No connection is made before the first subscription. Must be used within a tokio runtime.
///
/// ```no_run
/// use evenkeel::kafka::KafkaConfig;
/// use evenkeel_gateway::access::{AllowList, Principal};
/// use evenkeel_gateway::http::Problem;
/// use evenkeel_gateway::stream::{Filter, Frame, StreamSettings, StreamStart, Streams};
/// use std::sync::Arc;
///
/// # async fn example(allow_list: Arc<AllowList>, caller: Principal) -> Result<(), Problem> {
/// let kafka = KafkaConfig::new("localhost:9092");
/// let streams = Streams::new(kafka, allow_list, StreamSettings::default());
/// let filter = Filter::new(["shop.order-placed.v1"]);
/// let mut orders = streams.subscribe(&caller, filter, StreamStart::Now).await?;
/// while let Some(frame) = orders.next().await {
///     if let Frame::Event { cursor, event } = frame {
///         println!("{event:?}, resume after {cursor}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Streams {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    logs: Arc<TopicLogs>,
    allow_list: Arc<AllowList>,
    clients: Arc<Semaphore>,
    draining: watch::Sender<bool>,
}

impl Streams {
    /// Streams of the types on the allow list.
    pub fn new(kafka: KafkaConfig, allow_list: Arc<AllowList>, settings: StreamSettings) -> Self {
        let source = LogSource::new(kafka, Arc::clone(&allow_list), settings.broker_timeout);
        let clients_max = settings.clients_max.min(Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared {
                logs: Arc::new(TopicLogs::new(source, settings)),
                allow_list,
                clients: Arc::new(Semaphore::new(clients_max)),
                draining: watch::Sender::new(false),
            }),
        }
    }

    /// The settings.
    pub fn settings(&self) -> &StreamSettings {
        &self.shared.logs.settings
    }

    /// The number of open streams.
    pub fn clients(&self) -> usize {
        let shared = &self.shared;
        let max = shared.logs.settings.clients_max.min(Semaphore::MAX_PERMITS);
        max.saturating_sub(shared.clients.available_permits())
    }

    /// Ends all streams with [`Frame::Reconnect`](super::Frame::Reconnect), and refuses new ones.
    /// For good.
    pub fn drain(&self) {
        self.shared.draining.send_replace(true);
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// [`Malformed`](ProblemKind::Malformed) for a filter without types and for a cursor that is
    /// damaged or of other topics, [`Forbidden`](ProblemKind::Forbidden) for a type that the caller
    /// may not stream, [`NotFound`](ProblemKind::NotFound) for one that nobody may, and for a topic
    /// that does not exist, [`Gone`](ProblemKind::Gone) for a cursor whose position is no longer on
    /// the log, with the member `earliest`, [`Overloaded`](ProblemKind::Overloaded) while the
    /// gateway drains or if there are too many streams, and
    /// [`Unavailable`](ProblemKind::Unavailable) if the brokers do not answer, and for a moment
    /// after a topic was created anew.
    pub async fn subscribe(
        &self,
        principal: &Principal,
        filter: Filter,
        start: StreamStart,
    ) -> Result<Subscription, Problem> {
        if *self.shared.draining.borrow() {
            telemetry::stream_refused("draining");
            let problem = Problem::new(ProblemKind::Overloaded, "this gateway stops");
            return Err(problem.with_retry_after(Duration::from_secs(1)));
        }
        let topics = self.topics(principal, &filter)?;
        let begin = Begin::new(start, &topics)?;
        let permit = Arc::clone(&self.shared.clients).try_acquire_owned();
        let permit = permit.map_err(|_| too_many_clients())?;
        let client = (permit, OpenStream::new());
        let mut logs = Vec::with_capacity(topics.len());
        for topic in &topics {
            logs.push(self.shared.logs.open(topic).await?);
        }
        let mut parts = Vec::with_capacity(logs.len());
        let mut positions = Vec::with_capacity(logs.len());
        let mut is_gone = false;
        for log in logs {
            let end = log.end()?;
            match self.begin(&log, &end, &begin).await? {
                Some(next) => {
                    let topic = Arc::clone(&log.topic);
                    positions.push(TopicPosition::new(topic, end.identity, &*next));
                    parts.push(Part::new(log, end.identity, next, end.generation));
                }
                None => is_gone = true,
            }
        }
        if is_gone {
            telemetry::stream_refused("gone");
            return Err(self.gone(&topics).await);
        }
        Cursor::new(positions).and_then(|cursor| check_size(&cursor))?;
        let terms = Terms {
            logs: Arc::clone(&self.shared.logs),
            filter,
            draining: self.shared.draining.subscribe(),
            expires_in: principal.time_left(),
            client,
        };
        Ok(Subscription::new(parts, terms))
    }

    /// The topics of a filter that the caller may stream.
    fn topics(&self, principal: &Principal, filter: &Filter) -> Result<BTreeSet<String>, Problem> {
        if !(1..=TYPES_MAX).contains(&filter.types.len()) {
            let detail = format!("name 1 to {TYPES_MAX} event types");
            return Err(Problem::new(ProblemKind::Malformed, detail));
        }
        let mut topics = BTreeSet::new();
        for ty in &filter.types {
            // First the right: a caller does not learn which other types there are.
            if !principal.rights.may_stream(ty) {
                let detail = "this caller may not stream all of these event types";
                return Err(Problem::new(ProblemKind::Forbidden, detail));
            }
            let Some(route) = self.shared.allow_list.stream(ty) else {
                let detail = "one of these event types does not exist, or is not streamed";
                return Err(Problem::new(ProblemKind::NotFound, detail));
            };
            topics.insert(route.topic.clone());
        }
        if topics.len() > Cursor::TOPICS_MAX {
            let detail = format!("these types have more than {} topics", Cursor::TOPICS_MAX);
            return Err(Problem::new(ProblemKind::Malformed, detail));
        }
        Ok(topics)
    }

    /// The positions at which a stream begins in a topic. None if the cursor's are not on the log.
    async fn begin(
        &self,
        log: &LogHandle,
        end: &LogEnd,
        begin: &Begin,
    ) -> Result<Option<Vec<i64>>, Problem> {
        let cursor = match begin {
            Begin::Now => return Ok(Some(end.next.clone())),
            Begin::Earliest => {
                let facts = self.facts(log, FACTS_AGE_MAX).await?;
                if is_other(facts.identity, end.identity) {
                    return Err(recreated());
                }
                return Ok(Some(facts.lows()));
            }
            Begin::After(cursor) => cursor,
        };
        let Some(position) = cursor
            .topics()
            .iter()
            .find(|position| *position.topic == *log.topic)
        else {
            return Ok(None);
        };
        if is_other(end.identity, position.identity) {
            // Another gateway may have noticed first that the topic was created anew.
            let facts = self.facts(log, Duration::ZERO).await?;
            if facts.identity == position.identity {
                return Err(recreated());
            }
            return Ok(None);
        }
        let mut next = position.next.clone();
        if next.len() > end.next.len() {
            // Another gateway has seen new partitions first, or the topic was created anew.
            let facts = self.facts(log, Duration::ZERO).await?;
            if next.len() > facts.partitions.len() {
                return Ok(None);
            }
        }
        // A position at the shared reader's end is the usual case: a client that was cut off.
        if next == end.next {
            return Ok(Some(next));
        }
        let known = self.facts(log, FACTS_AGE_MAX).await?;
        let mut is_on_log =
            check_bounds(&mut next, &known) && !is_other(known.identity, position.identity);
        if !is_on_log {
            // The end may have moved since.
            next.clone_from(&position.next);
            let known = self.facts(log, Duration::ZERO).await?;
            is_on_log =
                check_bounds(&mut next, &known) && !is_other(known.identity, position.identity);
        }
        Ok(is_on_log.then_some(next))
    }

    async fn facts(&self, log: &LogHandle, age_max: Duration) -> Result<Arc<TopicFacts>, Problem> {
        // Also for the wait behind the requests of others.
        let limit = self.shared.logs.settings.broker_timeout;
        match timeout(limit, self.shared.logs.facts(log, age_max)).await {
            Ok(facts) => facts.map_err(|error| problem_of(&log.topic, &error)),
            Err(_) => Err(
                Problem::new(ProblemKind::Unavailable, "the brokers do not answer")
                    .with_retry_after(Duration::from_secs(2)),
            ),
        }
    }

    /// The problem of a position that is no longer on the log.
    async fn gone(&self, topics: &BTreeSet<String>) -> Problem {
        let detail = "events after this cursor were deleted, or the topic was created anew; read \
                      the state elsewhere, and continue with the cursor `earliest`";
        let problem = Problem::new(ProblemKind::Gone, detail);
        match self.earliest(topics).await {
            Ok(cursor) => problem.with_member("earliest", cursor.to_string()),
            Err(unavailable) => unavailable,
        }
    }

    async fn earliest(&self, topics: &BTreeSet<String>) -> Result<Cursor, Problem> {
        let mut positions = Vec::with_capacity(topics.len());
        for topic in topics {
            let log = self.shared.logs.open(topic).await?;
            let facts = self.facts(&log, FACTS_AGE_MAX).await?;
            let position = TopicPosition::new(topic.as_str(), facts.identity, facts.lows());
            positions.push(position);
        }
        Ok(Cursor::new(positions)?)
    }
}

/// [`StreamStart`] with its cursor decoded.
enum Begin {
    Now,
    Earliest,
    After(Cursor),
}

impl Begin {
    fn new(start: StreamStart, topics: &BTreeSet<String>) -> Result<Self, Problem> {
        let text = match start {
            StreamStart::Now => return Ok(Self::Now),
            StreamStart::Earliest => return Ok(Self::Earliest),
            StreamStart::After(text) => text,
        };
        let cursor: Cursor = text.parse()?;
        let of_cursor = cursor.topics().iter().map(|position| &*position.topic);
        if !of_cursor.eq(topics.iter().map(String::as_str)) {
            let detail = "the cursor belongs to a stream of other topics; use it with the same \
                          event types as before";
            return Err(Problem::new(ProblemKind::Malformed, detail));
        }
        Ok(Self::After(cursor))
    }
}

/// Whether these are ids of different topics.
fn is_other(one: Option<TopicIdentity>, other: Option<TopicIdentity>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

/// The answer until the shared reader has noticed that the topic was created anew.
fn recreated() -> Problem {
    let detail = "the topic was created anew a moment ago; try again";
    Problem::new(ProblemKind::Unavailable, detail).with_retry_after(Duration::from_secs(1))
}

/// Whether the positions are on the log. Adds those of partitions that are newer than the cursor:
/// 0, so that what was deleted of them meanwhile is a gap.
fn check_bounds(next: &mut Vec<i64>, facts: &TopicFacts) -> bool {
    let is_on_log = next.iter().zip(&facts.partitions).all(|(next, bounds)| {
        bounds.low.is_none_or(|low| low <= *next) && bounds.high.is_none_or(|high| *next <= high)
    });
    if next.len() < facts.partitions.len() {
        next.resize(facts.partitions.len(), 0);
    }
    is_on_log
}

/// A cursor grows with its offsets, so that some room is left.
fn check_size(cursor: &Cursor) -> Result<(), CursorError> {
    match cursor.to_string().len() <= Cursor::TEXT_MAX / 4 * 3 {
        true => Ok(()),
        false => Err(CursorError::TooLong),
    }
}

fn too_many_clients() -> Problem {
    telemetry::stream_refused("clients");
    // Not all of them at once.
    let millis = 1_000 + u64::from(rand::random::<u16>()) % 4_000;
    Problem::new(
        ProblemKind::Overloaded,
        "this gateway has as many streams as it may have",
    )
    .with_retry_after(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::super::source::LogBounds;
    use super::*;
    use crate::access::{EventRoute, Rights};
    use evenkeel::schema::Catalogue;

    fn streams() -> Streams {
        let schemas = [
            ("test.a.v1", "{}"),
            ("test.b.v1", "{}"),
            ("test.posted.v1", "{}"),
        ];
        let catalogue = Catalogue::from_texts(schemas).expect("valid schemas");
        let routes = vec![
            EventRoute::new("test.a.v1", "a", "key").with_stream(true),
            EventRoute::new("test.b.v1", "b", "key").with_stream(true),
            EventRoute::new("test.posted.v1", "a", "key").with_post(true),
        ];
        let allow_list = AllowList::new(routes, Arc::new(catalogue)).expect("a valid list");
        // Nothing listens on the discard port: no test gets that far.
        let kafka = KafkaConfig::new("127.0.0.1:9");
        Streams::new(
            kafka,
            Arc::new(allow_list),
            StreamSettings::default().with_clients_max(0),
        )
    }

    async fn refusal(caller: &Principal, types: &[&str], start: StreamStart) -> ProblemKind {
        let filter = Filter::new(types.iter().copied());
        let opened = streams().subscribe(caller, filter, start).await;
        opened
            .map(drop)
            .expect_err("there is room for no stream")
            .kind
    }

    fn cursor(topics: &[&str]) -> StreamStart {
        let topics = topics
            .iter()
            .map(|topic| TopicPosition::new(*topic, None, [0]));
        StreamStart::After(Cursor::new(topics).expect("a valid cursor").to_string())
    }

    #[tokio::test]
    async fn a_stream_is_refused_before_any_request() {
        let all = Principal::new("test", Rights::all());
        let mut rights = Rights::default();
        rights.stream.push("test.b.*".to_owned());
        let some = Principal::new("some", rights);
        let now = || StreamStart::Now;
        let damaged = StreamStart::After("damaged".to_owned());
        for (caller, types, start, kind) in [
            (&all, &["test.a.v1"][..], now(), ProblemKind::Overloaded),
            (&all, &[][..], now(), ProblemKind::Malformed),
            (&all, &["test.posted.v1"][..], now(), ProblemKind::NotFound),
            (&all, &["test.unknown.v1"][..], now(), ProblemKind::NotFound),
            (&some, &["test.b.v1"][..], now(), ProblemKind::Overloaded),
            (
                &some,
                &["test.b.v1", "test.a.v1"][..],
                now(),
                ProblemKind::Forbidden,
            ),
            (
                &some,
                &["test.unknown.v1"][..],
                now(),
                ProblemKind::Forbidden,
            ),
            (&all, &["test.a.v1"][..], damaged, ProblemKind::Malformed),
            (
                &all,
                &["test.a.v1"][..],
                cursor(&["a", "b"]),
                ProblemKind::Malformed,
            ),
            (
                &all,
                &["test.a.v1"][..],
                cursor(&["b"]),
                ProblemKind::Malformed,
            ),
            (
                &all,
                &["test.b.v1", "test.a.v1"][..],
                cursor(&["b", "a"]),
                ProblemKind::Overloaded,
            ),
        ] {
            assert_eq!(
                refusal(caller, types, start.clone()).await,
                kind,
                "{types:?} {start:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_draining_gateway_refuses_new_streams() {
        let streams = streams();
        streams.drain();
        let filter = Filter::new(["test.a.v1"]);
        let all = Principal::new("test", Rights::all());
        let refused = streams
            .subscribe(&all, filter, StreamStart::Now)
            .await
            .map(drop);
        let refused = refused.expect_err("it drains");
        assert_eq!(refused.retry_after, Some(Duration::from_secs(1)));
    }

    #[test]
    fn positions_must_be_on_the_log_and_new_partitions_begin() {
        let bounds = |low, high| LogBounds {
            low: Some(low),
            high: Some(high),
        };
        let facts = TopicFacts {
            identity: None,
            partitions: vec![bounds(5, 10), bounds(3, 9)],
        };
        for (next, is_on_log) in [(5, true), (10, true), (4, false), (11, false)] {
            let mut positions = vec![next];
            assert_eq!(check_bounds(&mut positions, &facts), is_on_log, "{next}");
            assert_eq!(positions, [next, 0]);
        }
    }
}

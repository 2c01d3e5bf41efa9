//! Finds an event and composes its status.
//!
//! The order of the sources: the store, which knows the events that this gateway accepted; the
//! positions that were found before; a search of the log.

mod viewer;

use self::viewer::Viewer;
use super::answer::{EventState, EventStatus, GroupStatus, LogPlace, OutboxPlace};
use super::brokers::Brokers;
use super::event_id::{
    StatusQuery, check, not_found, not_found_without_hints, search_start, uuid_v7_ms,
};
use super::group_facts::{EventIdentity, Groups, written};
use super::log_search::{self, Earlier, Hit, Searched, Since, Wanted};
use super::positions::{FoundEvent, Positions};
use super::settings::StatusSettings;
use super::shared_cache::SharedCache;
use super::verdict::unknown;
use crate::access::{AllowList, Principal};
use crate::http::{Problem, ProblemKind, RequestContext};
use crate::store::{AcceptError, AcceptStore, EventPlace};
use evenkeel::kafka::reader::TimestampKind;
use evenkeel::kafka::{KafkaConfig, RecordPosition};
use futures_util::StreamExt;
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// An accepted event is searched from this long before its acceptance, in milliseconds: the clocks
/// of gateway and brokers differ.
const ACCEPTED_SKEW_MS: i64 = 5_000;
/// The most searches whose results are kept.
const SEARCHES_KEPT_MAX: usize = 256;

/// How long before its deadline a request stops to wait for the facts of groups.
const ANSWER_MARGIN: Duration = Duration::from_millis(100);
/// How long a request waits for the first list of the groups of a topic.
const FIRST_LIST_WAIT: Duration = Duration::from_secs(1);

/// Topics, start, and the event of a search.
type SearchKey = (Vec<String>, Since, Wanted);

/// Answers where events are. Cheap to clone: clones share the caches and the clients.
///
/// It connects with the first request, and keeps no connection but an admin client: each search of
/// a log opens a client of its own, and at most [`StatusSettings::searches_max`] run at a time.
#[derive(Clone)]
pub struct StatusReader {
    shared: Arc<Shared>,
}

struct Shared {
    allow_list: Arc<AllowList>,
    store: Arc<dyn AcceptStore>,
    answer_timeout: Duration,
    searches_max: usize,
    brokers: Arc<Brokers>,
    groups: Groups,
    positions: Positions,
    searches: SharedCache<SearchKey, Arc<Searched>>,
}

impl fmt::Debug for StatusReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusReader")
            .field("store", &self.shared.store.name())
            .field("groups", &self.shared.groups)
            .finish_non_exhaustive()
    }
}

impl StatusReader {
    /// Creates the reader. It connects with its first request.
    pub fn new(
        kafka: KafkaConfig,
        allow_list: Arc<AllowList>,
        store: Arc<dyn AcceptStore>,
        settings: StatusSettings,
    ) -> Self {
        let settings = Arc::new(settings);
        let brokers = Arc::new(Brokers::new(kafka, &settings));
        let shared = Shared {
            allow_list,
            store,
            answer_timeout: settings.answer_timeout,
            searches_max: settings.searches_max.max(1),
            groups: Groups::new(Arc::clone(&brokers), Arc::clone(&settings)),
            brokers,
            positions: Positions::new(settings.positions_max),
            searches: SharedCache::new(settings.snapshot_ttl, SEARCHES_KEPT_MAX),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The status of an event, if `principal` may see it. Routes call this.
    ///
    /// # Errors
    /// [`ProblemKind::Forbidden`] without the right `status`. [`ProblemKind::NotFound`] if there is
    /// no such event, or the caller may not see it; the detail names missing hints.
    /// [`ProblemKind::DeadlineExceeded`] at the deadline of the request or after
    /// [`StatusSettings::answer_timeout`], [`ProblemKind::Overloaded`] if too many searches run,
    /// and [`ProblemKind::Unavailable`] if store or brokers do not answer.
    pub async fn event_for(
        &self,
        principal: &Principal,
        context: &RequestContext,
        id: &str,
        query: &StatusQuery,
    ) -> Result<EventStatus, Problem> {
        if !principal.rights.status {
            let detail = "this caller may not read the status of events";
            return Err(Problem::new(ProblemKind::Forbidden, detail));
        }
        let viewer = Viewer {
            allow_list: &self.shared.allow_list,
            principal: Some(principal),
        };
        let latest = Instant::now() + self.shared.answer_timeout;
        let deadline = context
            .deadline
            .map_or(latest, |deadline| deadline.min(latest));
        self.within(deadline, viewer, id, query).await
    }

    /// The status of an event, whoever asks. `None` if it is not found: see
    /// [`event_for`](Self::event_for), which checks the rights of a caller.
    ///
    /// # Errors
    /// As for [`event_for`](Self::event_for), without `Forbidden` and `NotFound`.
    pub async fn event(
        &self,
        id: &str,
        source: Option<&str>,
    ) -> Result<Option<EventStatus>, Problem> {
        let viewer = Viewer {
            allow_list: &self.shared.allow_list,
            principal: None,
        };
        let query = StatusQuery {
            source: source.map(str::to_owned),
            ..StatusQuery::default()
        };
        let deadline = Instant::now() + self.shared.answer_timeout;
        match self.within(deadline, viewer, id, &query).await {
            Ok(status) => Ok(Some(status)),
            Err(problem) if problem.kind == ProblemKind::NotFound => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    async fn within(
        &self,
        deadline: Instant,
        viewer: Viewer<'_>,
        id: &str,
        query: &StatusQuery,
    ) -> Result<EventStatus, Problem> {
        check(id, query.source.as_deref())?;
        let find = Box::pin(self.shared.find(viewer, id, query, deadline));
        match tokio::time::timeout_at(deadline, find).await {
            Ok(found) => found,
            Err(_) => {
                let detail = "the status could not be read within the deadline";
                Err(Problem::new(ProblemKind::DeadlineExceeded, detail))
            }
        }
    }
}

impl Shared {
    async fn find(
        &self,
        viewer: Viewer<'_>,
        id: &str,
        query: &StatusQuery,
        deadline: Instant,
    ) -> Result<EventStatus, Problem> {
        let source = query.source.as_deref();
        let places = self.store.find(id, source).await;
        let mut places = places
            .map_err(|error| unreadable_store(&error))?
            .into_iter();
        match places.find(|place| viewer.sees(&place.ty, &place.source)) {
            Some(place) => self.accepted(place, deadline).await,
            None => self.not_accepted(viewer, id, query, deadline).await,
        }
    }

    /// An event that this gateway, or another one with the same store, accepted.
    async fn accepted(&self, place: EventPlace, deadline: Instant) -> Result<EventStatus, Problem> {
        let mut status = EventStatus::new(&*place.id, &*place.source, &*place.ty);
        if place.in_outbox {
            status.state = EventState::Accepted;
            let since = Timestamp::from_millisecond(place.accepted_ms);
            status.outbox = since.ok().map(OutboxPlace::waiting_since);
            return Ok(status);
        }
        let known = self.positions.get(&place.id, Some(&place.source));
        // A broker that recognises a repeated batch returns no offset, but -1.
        let position = place.position.filter(|(_, offset)| *offset >= 0);
        let found = match (known, position) {
            (Some(found), _) => Some(found),
            (None, Some(position)) => Some(self.at_position(&place, position).await),
            (None, None) => {
                let topics = vec![place.topic.clone()];
                let since = Since::Known(place.accepted_ms).before(ACCEPTED_SKEW_MS);
                let wanted = Wanted {
                    id: place.id.clone(),
                    source: Some(place.source.clone()),
                    visible: None,
                };
                let searched = self.search(topics, since, wanted).await?;
                status.note = Some(note(&searched, since));
                self.remember(&place.id, searched.hits.iter())
            }
        };
        match found {
            Some(found) => Ok(self
                .published(&place.id, found, Some(place.accepted_ms), deadline)
                .await),
            None => Ok(status),
        }
    }

    /// An event at a position that the store knows. Its time is read once.
    async fn at_position(&self, place: &EventPlace, (partition, offset): (i32, i64)) -> FoundEvent {
        let at = RecordPosition {
            topic: place.topic.clone(),
            partition,
            offset,
        };
        let read = move |kafka: &KafkaConfig, limits| log_search::timestamp_ms(kafka, &at, limits);
        let read = self.brokers.read(read).await;
        let mut found = FoundEvent {
            source: place.source.clone(),
            ty: place.ty.clone(),
            place: LogPlace::new(&*place.topic, partition, offset),
            // The time of the acceptance is known, which is better.
            has_append_time: false,
        };
        // Without it the answer is as good: the next one tries again.
        if let Ok(timestamp_ms) = read {
            let time = timestamp_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
            found.place.timestamp = time;
            self.positions.add(&place.id, found.clone());
        }
        found
    }

    /// An event that another program published, or that the store has forgotten.
    async fn not_accepted(
        &self,
        viewer: Viewer<'_>,
        id: &str,
        query: &StatusQuery,
        deadline: Instant,
    ) -> Result<EventStatus, Problem> {
        let known = self.positions.get(id, query.source.as_deref());
        if let Some(found) = known.filter(|found| viewer.sees(&found.ty, &found.source)) {
            return Ok(self.published(id, found, None, deadline).await);
        }
        let id_ms = uuid_v7_ms(id);
        let now = Timestamp::now();
        let since = search_start(query, id_ms, now.as_millisecond());
        let since = since.ok_or_else(not_found_without_hints)?;
        if query.ty.is_none() && id_ms.is_none() {
            return Err(not_found_without_hints());
        }
        let topics = viewer.topics(query.ty.as_deref());
        let is_future = query.since.is_some_and(|since| since > now);
        if topics.is_empty() || is_future {
            return Err(not_found());
        }
        let wanted = Wanted {
            id: id.to_owned(),
            source: query.source.clone(),
            visible: viewer.visible(),
        };
        let searched = self.search(topics, since, wanted).await?;
        match self.remember(id, searched.hits.iter()) {
            Some(found) => Ok(self.published(id, found, None, deadline).await),
            None => {
                let why = note(&searched, since);
                let detail = format!(
                    "no event with this id was found: {why}; ?type= and ?since= (RFC 3339) name \
                     where to search"
                );
                Err(Problem::new(ProblemKind::NotFound, detail))
            }
        }
    }

    /// Searches topics. Concurrent requests for one event share a search.
    async fn search(
        &self,
        topics: Vec<String>,
        since: Since,
        wanted: Wanted,
    ) -> Result<Arc<Searched>, Problem> {
        let key = (topics.clone(), since, wanted.clone());
        let read = self.brokers.read(move |kafka, limits| {
            log_search::event(kafka, &topics, since, &wanted, limits).map(Arc::new)
        });
        self.searches.get(key, read).await
    }

    /// Keeps the first of these records of an event as its position, and the others of the same
    /// source as its duplicates.
    fn remember<'a>(
        &self,
        id: &str,
        mut hits: impl Iterator<Item = &'a Hit>,
    ) -> Option<FoundEvent> {
        let first = hits.next()?;
        let mut place = LogPlace::new(&*first.at.topic, first.at.partition, first.at.offset);
        let timestamp_ms = first.timestamp_ms;
        place.timestamp = timestamp_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let same = hits.filter(|hit| hit.source == first.source);
        place.duplicates = same.map(|hit| hit.at.clone()).collect();
        let found = FoundEvent {
            source: first.source.clone(),
            ty: first.ty.clone(),
            place,
            has_append_time: first.timestamp_kind == TimestampKind::LogAppend,
        };
        self.positions.add(id, found.clone());
        Some(found)
    }

    /// The status of an event on the log, with its state in each group.
    async fn published(
        &self,
        id: &str,
        found: FoundEvent,
        accepted_ms: Option<i64>,
        deadline: Instant,
    ) -> EventStatus {
        let FoundEvent {
            source,
            ty,
            place,
            has_append_time,
        } = found;
        let mut status = EventStatus::new(id, &*source, &*ty);
        status.state = EventState::Published;
        let timestamp_ms = place.timestamp.map(Timestamp::as_millisecond);
        let now_ms = Timestamp::now().as_millisecond();
        let event = EventIdentity {
            id: id.to_owned(),
            source,
            ty,
            at: RecordPosition {
                topic: place.topic.clone(),
                partition: place.partition,
                offset: place.offset,
            },
            written: written(accepted_ms, timestamp_ms, has_append_time, now_ms),
        };
        status.log = Some(place);
        let until = deadline.checked_sub(ANSWER_MARGIN).unwrap_or(deadline);
        let first_list = until.min(Instant::now() + FIRST_LIST_WAIT);
        let list = match self.groups.of_topic(&event.at.topic, first_list).await {
            Ok(list) => list,
            Err(why) => {
                status.note = Some(why);
                return status;
            }
        };
        if list.unread > 0 {
            let unread = list.unread;
            let note = format!("{unread} groups could not be read: some may read the topic");
            status.note = Some(note);
        }
        let mut states = Vec::with_capacity(list.names.len());
        for group in &list.names {
            states.push(self.group_status(group, &event, until));
        }
        let states = futures_util::stream::iter(states).buffered(self.searches_max);
        status.groups = states.collect().await;
        status
    }

    /// The state of an event in a group, which is unknown if it is not read in time.
    async fn group_status(
        &self,
        group: &str,
        event: &EventIdentity,
        until: Instant,
    ) -> GroupStatus {
        match timeout_at(until, self.groups.status(group, event)).await {
            Ok(status) => status,
            Err(_) => unknown(group, "it could not be read within the deadline"),
        }
    }
}

/// Why a search from `since` on found nothing, for people.
fn note(searched: &Searched, since: Since) -> String {
    if !searched.is_complete {
        return "the search of the log ended at its limit".to_owned();
    }
    let older = match searched.earlier {
        Earlier::RuledOut => None,
        Earlier::Limited => Some("older records were searched up to a limit"),
        Earlier::Unread => Some("older records were not searched"),
    };
    let mut note = "it is not on the log".to_owned();
    if let Some(older) = older {
        let time = Timestamp::from_millisecond(since.ms());
        // An id can have a time that no calendar has.
        let time = time.map_or_else(|_| "the time in its id".to_owned(), |time| time.to_string());
        note += &format!(" since {time}; {older}");
    }
    if searched.may_be_deleted {
        note += "; the topic has deleted its first records, perhaps this one too (retention)";
    }
    note
}

/// The answer for a store that cannot be read. The cause is logged.
fn unreadable_store(error: &AcceptError) -> Problem {
    tracing::warn!(%error, "the store of accepted events could not be read");
    let detail = "the store of accepted events does not answer; ask again later";
    Problem::new(ProblemKind::Unavailable, detail).with_retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_is_stated_of_the_records_that_were_searched() {
        let cut_off = "the search of the log ended at its limit";
        let absent = "it is not on the log";
        let deleted = "it is not on the log; the topic has deleted its first records, perhaps \
                       this one too (retention)";
        let limited = "it is not on the log since 1970-01-01T00:00:05Z; older records were \
                       searched up to a limit";
        let unread = "it is not on the log since 1970-01-01T00:00:05Z; older records were not \
                      searched";
        for (is_complete, earlier, may_be_deleted, expected) in [
            (false, Earlier::Unread, true, cut_off),
            (true, Earlier::RuledOut, false, absent),
            (true, Earlier::RuledOut, true, deleted),
            (true, Earlier::Limited, false, limited),
            (true, Earlier::Unread, false, unread),
        ] {
            let searched = Searched {
                hits: Vec::new(),
                is_complete,
                earlier,
                may_be_deleted,
            };
            assert_eq!(note(&searched, Since::Claimed(5_000)), expected);
        }
        let searched = Searched {
            hits: Vec::new(),
            is_complete: true,
            earlier: Earlier::Limited,
            may_be_deleted: true,
        };
        let note = note(&searched, Since::Claimed(i64::MAX));
        assert!(note.contains("since the time in its id"), "{note}");
        assert!(note.contains("retention"), "{note}");
    }
}

//! The core of posting: decides, completes, validates, encodes, and asks the store. Knows no
//! protocol, and no store but by its port.

use super::answer::{AnswerForm, HttpAnswer, PostAnswer, PostedEvent, WrittenAnswer};
use super::checks::{self, Payload, PayloadFault};
use super::idempotency::IdempotencyKey;
use super::limits::PostLimits;
use super::new_event::NewEvent;
use crate::access::{AllowList, EventRoute, Principal};
use crate::http::{FieldError, Problem, ProblemKind, RequestContext};
use crate::store::{
    AcceptError, AcceptRequest, AcceptStore, Accepted, AcceptedEvent, IdempotencyClaim,
};
use evenkeel::event::{Attributes, JsonEvent, TraceContext};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::Semaphore;

/// The most faults that an answer names.
const FAULTS_MAX: usize = 50;
/// Data up to this size in a request is parsed on the task's own thread, without waiting.
const INLINE_BYTES: usize = 32 << 10;
/// The most KiB of all trees of larger data. A larger tree is alone.
const TREES_KIB: u32 = 64 << 10;

/// Accepts events: the part of posting that all protocols share. A cheap clone shares everything.
///
/// Memory: data is parsed into a tree for its validation, one event of a request at a time. A tree
/// can take a hundred times the bytes of its text, so requests with more than 32 KiB of data take
/// turns for 64 MiB of estimated trees, and are parsed on a blocking thread.
#[derive(Clone)]
pub struct Posting {
    shared: Arc<Shared>,
    trees: Arc<Semaphore>,
}

struct Shared {
    allow_list: Arc<AllowList>,
    store: Arc<dyn AcceptStore>,
    /// Whether the store needs the fingerprints of events.
    needs_fingerprints: bool,
    limits: PostLimits,
    started: Instant,
    /// The second, counted from 1, in which a failure of the store was last logged.
    failure_logged: AtomicU64,
}

/// An event whose attributes are checked, and whose data is not.
struct Draft {
    /// The event without its attributes.
    event: NewEvent,
    attributes: Attributes,
}

impl Posting {
    /// Creates the core for these event types, this store and these limits.
    pub fn new(
        allow_list: Arc<AllowList>,
        store: Arc<dyn AcceptStore>,
        limits: PostLimits,
    ) -> Self {
        let shared = Shared {
            allow_list,
            needs_fingerprints: store.keeps_identities(),
            store,
            limits,
            started: Instant::now(),
            failure_logged: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
            trees: Arc::new(Semaphore::new(TREES_KIB as usize)),
        }
    }

    /// The event types that callers may post and stream.
    pub fn allow_list(&self) -> &Arc<AllowList> {
        &self.shared.allow_list
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn AcceptStore> {
        &self.shared.store
    }

    /// The limits of a request.
    pub fn limits(&self) -> &PostLimits {
        &self.shared.limits
    }

    /// Accepts events, all or none: the answer means that they are durable.
    ///
    /// Each type must be on the allow list, and the caller must have the right to post it. The
    /// source is the caller's. Missing ids and times are set. The data must follow the schema of
    /// its type. The events get the trace of the request. The answer to one event describes it
    /// alone; see [`accept_batch`](Self::accept_batch).
    ///
    /// Cancel-safe in the sense of [`AcceptStore`]: if the future is dropped, the events may have
    /// been accepted, and a repetition with the same key or ids finds out. Do not hold it unpolled:
    /// in a stream of many, spawn each.
    ///
    /// # Errors
    /// - [`ProblemKind::NotFound`]: a type is not on the allow list
    /// - [`ProblemKind::Forbidden`]: the right is missing, or a source is not the caller's
    /// - [`ProblemKind::Malformed`]: an attribute is invalid, data is not JSON or repeats a member
    ///   name, there is no event, or two have the same id. Up to 50 faults are named.
    /// - [`ProblemKind::TooLarge`]: there are more events than
    ///   [`PostLimits::batch_max`](super::PostLimits::batch_max)
    /// - [`ProblemKind::InvalidEvent`]: data violates its schema. Up to 50 violations are named,
    ///   up to 16 of each event; of data above 32 KiB the first alone.
    /// - the problems of [`AcceptError`]
    pub async fn accept(
        &self,
        principal: &Principal,
        context: &RequestContext,
        events: Vec<NewEvent>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<PostAnswer, Problem> {
        let form = if events.len() == 1 {
            AnswerForm::One
        } else {
            AnswerForm::List
        };
        self.accept_as(form, principal, context, events, idempotency)
            .await
    }

    /// [`accept`](Self::accept) with an answer that is a list, even for one event.
    ///
    /// # Errors
    /// As for [`accept`](Self::accept).
    pub async fn accept_batch(
        &self,
        principal: &Principal,
        context: &RequestContext,
        events: Vec<NewEvent>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<PostAnswer, Problem> {
        self.accept_as(AnswerForm::List, principal, context, events, idempotency)
            .await
    }

    /// [`accept`](Self::accept), or for a list [`accept_batch`](Self::accept_batch), with the
    /// answer over HTTP alone: it needs no copies of the events' attributes.
    ///
    /// # Errors
    /// As for [`accept`](Self::accept).
    pub(super) async fn accept_over_http(
        &self,
        form: AnswerForm,
        caller: (&Principal, &RequestContext),
        events: Vec<NewEvent>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<HttpAnswer, Problem> {
        let noted = |_: &[AcceptedEvent]| ();
        let stored = self
            .make_durable(form, caller, events, idempotency, noted)
            .await;
        match stored? {
            // Read, as it may be damaged.
            (HttpAnswer::Repeated(stored), ()) => {
                Ok(PostAnswer::of_repetition(stored)?.into_http())
            }
            (answer, ()) => Ok(answer),
        }
    }

    async fn accept_as(
        &self,
        form: AnswerForm,
        principal: &Principal,
        context: &RequestContext,
        events: Vec<NewEvent>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<PostAnswer, Problem> {
        let posted = |events: &[AcceptedEvent]| {
            let posted = events.iter().map(PostedEvent::from);
            posted.collect::<Vec<_>>()
        };
        let caller = (principal, context);
        let stored = self
            .make_durable(form, caller, events, idempotency, posted)
            .await;
        let (http, posted) = stored?;
        PostAnswer::new(posted, http, context)
    }

    /// Makes the events durable, and returns the answer, with what `noted` made of the events.
    async fn make_durable<T>(
        &self,
        form: AnswerForm,
        (principal, context): (&Principal, &RequestContext),
        events: Vec<NewEvent>,
        idempotency: Option<IdempotencyKey>,
        noted: impl FnOnce(&[AcceptedEvent]) -> T,
    ) -> Result<(HttpAnswer, T), Problem> {
        let drafts = self.shared.drafts(principal, events)?;
        let events = self.encode(context, drafts).await?;
        let written = WrittenAnswer::new(&events, form, context)?;
        let noted = noted(&events);
        let idempotency = idempotency.map(|key| IdempotencyClaim {
            principal: principal.name.to_string(),
            key: key.key,
            fingerprint: key.fingerprint,
        });
        let kept = idempotency.as_ref().map(|_| written.to_stored());
        let request = AcceptRequest {
            events,
            idempotency,
            answer: kept.unwrap_or_default(),
            deadline: context.deadline,
        };
        match self.shared.store.accept(request).await {
            Ok(Accepted::New) => Ok((HttpAnswer::New(written), noted)),
            Ok(Accepted::Repeated(stored)) => Ok((HttpAnswer::Repeated(stored), noted)),
            Err(error) => {
                self.shared.log(&error, context);
                Err(error.into())
            }
        }
    }

    /// Validates and encodes the drafts: small ones here, others on a blocking thread when there is
    /// room for their trees.
    async fn encode(
        &self,
        context: &RequestContext,
        drafts: Vec<Draft>,
    ) -> Result<Vec<AcceptedEvent>, Problem> {
        let texts = || drafts.iter().map(|draft| draft.event.data.get());
        if texts().map(str::len).sum::<usize>() <= INLINE_BYTES {
            return self.shared.encode(&context.trace, drafts);
        }
        let kib = texts().map(tree_kib).max().unwrap_or(1);
        let trees = Arc::clone(&self.trees);
        let room = trees.acquire_many_owned(kib).await.map_err(|_| defect())?;
        let (shared, trace) = (Arc::clone(&self.shared), context.trace.clone());
        let encode = move || {
            let encoded = shared.encode(&trace, drafts);
            drop(room);
            encoded
        };
        tokio::task::spawn_blocking(encode)
            .await
            .map_err(|_| defect())?
    }
}

impl std::fmt::Debug for Posting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Posting")
            .field("store", &self.shared.store.name())
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Checks everything but the data.
    fn drafts(&self, principal: &Principal, events: Vec<NewEvent>) -> Result<Vec<Draft>, Problem> {
        if events.is_empty() {
            return Err(Problem::new(ProblemKind::Malformed, "there is no event"));
        }
        if events.len() > self.limits.batch_max {
            let detail = format!("at most {} events in a request", self.limits.batch_max);
            return Err(Problem::new(ProblemKind::TooLarge, detail));
        }
        for event in &events {
            self.check_rights(principal, event)?;
        }
        let now = jiff::Timestamp::now();
        let (mut drafts, mut faults) = (Vec::with_capacity(events.len()), Vec::new());
        for mut event in events {
            match checks::complete(&mut event, &principal.source, now) {
                Ok(attributes) => drafts.push(Draft { event, attributes }),
                Err(found) => faults.extend(found),
            }
        }
        faults.extend(repeated_ids(&drafts));
        if faults.is_empty() {
            Ok(drafts)
        } else {
            Err(problem(
                ProblemKind::Malformed,
                "the attributes are invalid",
                faults,
            ))
        }
    }

    fn check_rights(&self, principal: &Principal, event: &NewEvent) -> Result<(), Problem> {
        self.route(event)?;
        if !principal.rights.may_post(&event.ty) {
            let fault = event.attribute_error("type", "may not be posted by this caller");
            let detail = "the caller may not post events of this type";
            return Err(problem(ProblemKind::Forbidden, detail, vec![fault]));
        }
        if event
            .source
            .as_deref()
            .is_some_and(|source| *source != *principal.source)
        {
            let fault = event.attribute_error("source", "is not that of this caller; omit it");
            let detail = "no caller writes the source of another";
            return Err(problem(ProblemKind::Forbidden, detail, vec![fault]));
        }
        Ok(())
    }

    fn route(&self, event: &NewEvent) -> Result<&EventRoute, Problem> {
        self.allow_list.post(&event.ty).ok_or_else(|| {
            let fault = event.attribute_error("type", "is none that callers may post");
            problem(
                ProblemKind::NotFound,
                "there is no such event type",
                vec![fault],
            )
        })
    }

    fn encode(
        &self,
        trace: &TraceContext,
        drafts: Vec<Draft>,
    ) -> Result<Vec<AcceptedEvent>, Problem> {
        let mut encoded = Vec::with_capacity(drafts.len());
        let (mut unreadable, mut invalid) = (Vec::new(), Vec::new());
        for draft in drafts {
            // Its type was looked up before.
            let route = self.allow_list.post(&draft.attributes.ty);
            let route = route.ok_or_else(defect)?;
            let catalogue = self.allow_list.catalogue();
            match checks::check(catalogue, route, &draft.event, self.needs_fingerprints) {
                Ok(payload) => encoded.push(record(route, draft, payload, trace)?),
                Err(PayloadFault::Unreadable(fault)) => unreadable.push(fault),
                Err(PayloadFault::Invalid(faults)) => invalid.extend(faults),
                Err(PayloadFault::UnknownType) => return Err(defect()),
            }
        }
        if !unreadable.is_empty() {
            let detail = "the data cannot be read";
            return Err(problem(ProblemKind::Malformed, detail, unreadable));
        }
        if !invalid.is_empty() {
            let detail = "the data violates the schema of its type";
            return Err(problem(ProblemKind::InvalidEvent, detail, invalid));
        }
        Ok(encoded)
    }

    /// Logs why the store failed, at most once a second: in an outage every request fails.
    fn log(&self, error: &AcceptError, context: &RequestContext) {
        let (AcceptError::Unavailable { source, .. } | AcceptError::Unknown { source }) = error
        else {
            return;
        };
        let second = self.started.elapsed().as_secs() + 1;
        if self.failure_logged.swap(second, Ordering::Relaxed) == second {
            return;
        }
        tracing::warn!(
            store = self.store.name(),
            trace_id = context.trace_id(),
            %error,
            cause = %source,
            "events were not accepted"
        );
    }
}

/// The faults of events with the id of an earlier one. All have the same source.
fn repeated_ids(drafts: &[Draft]) -> Vec<FieldError> {
    let (mut ids, mut faults) = (BTreeSet::new(), Vec::new());
    if drafts.len() < 2 {
        return faults;
    }
    for draft in drafts {
        if !ids.insert(draft.attributes.id.as_str()) {
            let detail = "is that of an earlier event in the request";
            faults.push(draft.event.attribute_error("id", detail));
        }
    }
    faults
}

fn record(
    route: &EventRoute,
    draft: Draft,
    payload: Payload,
    trace: &TraceContext,
) -> Result<AcceptedEvent, Problem> {
    let event = JsonEvent::new(draft.attributes, route.topic.as_str(), draft.event.data)
        .with_key(payload.key);
    let (record, attributes) = event.into_record(Some(trace)).map_err(|_| defect())?;
    Ok(AcceptedEvent {
        source: attributes.source,
        id: attributes.id,
        ty: attributes.ty,
        fingerprint: payload.fingerprint.unwrap_or_default(),
        record,
    })
}

fn problem(kind: ProblemKind, detail: &'static str, mut faults: Vec<FieldError>) -> Problem {
    faults.truncate(FAULTS_MAX);
    Problem::new(kind, detail).with_errors(faults)
}

/// What cannot happen with checked attributes, a complete catalogue and code that does not panic.
fn defect() -> Problem {
    Problem::new(
        ProblemKind::Internal,
        "the event could not be encoded; nothing was accepted",
    )
}

/// The estimated KiB of the tree of this JSON, at most [`TREES_KIB`]. Counts characters inside of
/// strings too: an estimate that is too high only waits longer.
fn tree_kib(json: &str) -> u32 {
    let weight = |byte: u8| match byte {
        b'{' => 640,
        b':' => 144,
        b'[' => 128,
        b',' => 64,
        b'"' => 16,
        _ => 0,
    };
    let bytes: usize = json.len() + json.bytes().map(weight).sum::<usize>();
    u32::try_from(bytes / 1_024 + 1)
        .unwrap_or(TREES_KIB)
        .min(TREES_KIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_objects_weigh_many_times_their_bytes() {
        let of = |part: &str| tree_kib(&format!("[{}0]", part.repeat(10_000)));
        assert!(of(r#"{"":0},"#) > 8_000);
        assert!(of("[],") > 1_500);
        assert!(of("0,") > 600);
        assert!(of("xxxxxxxx") < 100);
        assert_eq!(tree_kib(&"{".repeat(1 << 20)), TREES_KIB);
        assert_eq!(tree_kib(""), 1);
    }
}

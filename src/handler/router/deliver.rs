//! Processes one delivery: read the record, claim it in the inbox, call its handler, commit,
//! publish.
//!
//! Without an inbox and a span, the future of the handler is returned as it is, so that a handler
//! that is ready at its first poll costs one allocation. With an inbox, a delivery may be handled
//! several times here, after collisions of its transaction with others; the consumer sees one
//! attempt.

use super::checked_payload::{Payload, dead};
use super::publish::{OutcomeFuture, publish};
use super::table::{OwnRoutes, Routes};
use crate::event::{Attributes, ContentDigest, DecodeError, Decoded, Record, decode_for};
use crate::handler::context::{ContextSource, RouteId, identity_of};
use crate::handler::deadline::outside_handler_time;
use crate::handler::error::store_error;
use crate::handler::{Context, Delivery, HandlerError, Outcome, Stage, dedup};
use crate::inbox::{Claim, Claimed, Inbox, InboxError};
use crate::recovery::is_edited;
use crate::telemetry::mark_failed;
use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tracing::{Instrument, Span};

/// A record as its handler receives it.
#[allow(
    clippy::large_enum_variant,
    reason = "on the stack, and gone when the handler is called"
)]
enum Input<'a> {
    Event {
        route: usize,
        attributes: Attributes,
        payload: Payload<'a>,
        /// The digest of the event's content, where an inbox compares it.
        content: Option<ContentDigest>,
    },
    /// For the raw or the fallback handler.
    Raw(RouteId),
}

impl<'a> Input<'a> {
    /// Reads the record and finds its handler. Returns the outcome of a record that no handler
    /// receives.
    fn read(routes: &Routes, delivery: &'a Delivery) -> Result<Self, Outcome> {
        if let Some(conflict) = &routes.conflict {
            // The router was not validated. An outage, so that no record is lost while two handlers
            // compete for it.
            return Err(Outcome::Retry(
                HandlerError::outage(conflict.clone()).dependency("router"),
            ));
        }
        if let Some(route) = routes.only_route() {
            return Ok(Self::Raw(route));
        }
        let record = &delivery.record;
        let find = |ty: &str| {
            let route = routes.by_type.get(ty).copied();
            if route.is_none() && routes.fallback.is_none() {
                routes.unhandled.log_once(ty, &delivery.scope.group, record);
            }
            route
        };
        let (route, envelope) = match decode_for(record.headers(), record.value(), find) {
            Ok(Decoded::Asked(route, envelope)) => (route, envelope),
            Ok(Decoded::Other { is_whole: false }) if routes.raw.is_some() => {
                return Ok(Self::Raw(RouteId::Raw));
            }
            Ok(Decoded::Other { .. }) if routes.fallback.is_some() => {
                return Ok(Self::Raw(RouteId::Fallback));
            }
            Ok(Decoded::Other { .. }) => return Err(Outcome::Ignored),
            Err(DecodeError::NotAnEvent) => {
                return routes
                    .raw_route_id()
                    .map(Self::Raw)
                    .ok_or_else(|| not_an_event(record));
            }
            // It cannot be of a type that has a handler.
            Err(_) if routes.typed.is_empty() && routes.fallback.is_some() => {
                return Ok(Self::Raw(RouteId::Fallback));
            }
            Err(error) => return Err(dead(Stage::Decode, error)),
        };
        let attributes = envelope.attributes;
        let data = envelope.data.unwrap_or(Cow::Borrowed(b"null"));
        let inbox = routes.inbox.as_ref();
        // An edited replay takes the place of the failed event, whatever its content.
        let content = inbox.filter(|_| !is_edited(record.headers()));
        let content = content.map(|_| ContentDigest::of_event(&attributes.ty, &data));
        let payload = Payload::checked(routes.catalogue.as_deref(), &attributes.ty, data)?;
        Ok(Self::Event {
            route,
            attributes,
            payload,
            content,
        })
    }

    fn route(&self) -> RouteId {
        match self {
            Self::Event { route, .. } => RouteId::Typed(*route),
            Self::Raw(route) => *route,
        }
    }

    /// The record's identity as source and id, equal in every delivery.
    fn identity(&self, record: &Record) -> (String, String) {
        match self {
            Self::Event { attributes, .. } => (attributes.source.clone(), attributes.id.clone()),
            Self::Raw(_) => identity_of(record),
        }
    }

    /// The digest of an event's content. A record that is no event has its content in its identity.
    fn content(&self) -> Option<ContentDigest> {
        match self {
            Self::Event { content, .. } => *content,
            Self::Raw(_) => None,
        }
    }

    /// Calls the handler. Returns the outcome of a payload that is not of the handler's type.
    fn call(self, routes: &Routes, source: ContextSource<'_>) -> Result<OutcomeFuture, Outcome> {
        match self {
            Self::Event {
                route,
                attributes,
                payload,
                ..
            } => {
                let route = &routes.typed[route];
                (route.call)(attributes, payload, source)
            }
            Self::Raw(route) => {
                let record = &source.delivery().record;
                let raw = routes.raw_route(route);
                let raw = raw.ok_or_else(|| not_an_event(record))?;
                Ok((raw.call)(record.clone(), source))
            }
        }
    }
}

/// The dead letter of a record that is no CloudEvent and has no handler. Its message names the
/// handlers that would accept it, because a topic full of such records stops the member.
fn not_an_event(record: &Record) -> Outcome {
    let what = match record.value() {
        Some(_) => "the record is not a CloudEvent",
        None => {
            "the record is not a CloudEvent and has no value (a tombstone of a compacted topic)"
        }
    };
    dead(
        Stage::Decode,
        format!("{what}; Router::raw or Router::fallback would take it"),
    )
}

/// Handles one delivery inside of its span. Reads the record at once, in the caller's poll, if there
/// is no inbox.
pub(super) fn deliver(routes: &Arc<OwnRoutes>, delivery: Delivery, span: Span) -> OutcomeFuture {
    let has_span = !span.is_none();
    if let Some(inbox) = &routes.inbox {
        let (routes, inbox) = (Arc::clone(routes), Arc::clone(inbox));
        let delivered = async move {
            let outcome = with_inbox(&routes, inbox.as_ref(), delivery).await;
            mark_if_failed(has_span, &outcome);
            Ok(outcome)
        };
        return Box::pin(delivered.instrument(span));
    }
    let delivered = span.in_scope(|| without_inbox(routes, delivery));
    if !has_span {
        return delivered;
    }
    let observed = async move {
        let Ok(outcome) = delivered.await;
        mark_if_failed(has_span, &outcome);
        Ok(outcome)
    };
    Box::pin(observed.instrument(span))
}

/// Marks the current span, which is the delivery's if it has one, after a failure.
fn mark_if_failed(has_span: bool, outcome: &Outcome) {
    if let Some(kind) = outcome.error_type().filter(|_| has_span) {
        mark_failed(&Span::current(), kind);
    }
}

fn without_inbox(routes: &Arc<OwnRoutes>, delivery: Delivery) -> OutcomeFuture {
    let called = Input::read(routes, &delivery).and_then(|input| {
        let source = ContextSource::new(&delivery, routes, input.route(), None);
        input.call(routes, source)
    });
    called.unwrap_or_else(|outcome| Box::pin(std::future::ready(Ok(outcome))))
}

/// How often a delivery is handled again at once after collisions with other transactions. After
/// that many it has been alone in its transaction, so the other transactions belong to other
/// programs.
const COLLISIONS_MAX: u32 = 10;

/// Handles one delivery, and again after a collision of its transaction, which does not count as an
/// attempt.
async fn with_inbox(routes: &Arc<OwnRoutes>, inbox: &dyn Inbox, delivery: Delivery) -> Outcome {
    for collisions in 0..COLLISIONS_MAX {
        match deliver_once(routes, inbox, &delivery).await {
            Outcome::Retry(error) if error.is_collision() => wait_after_collision(collisions).await,
            outcome => return outcome,
        }
    }
    deliver_once(routes, inbox, &delivery).await
}

/// Waits longer with each collision: not at all after the first, half a second in all. The wait is
/// random, so that two deliveries that collided do not collide again.
async fn wait_after_collision(collisions: u32) {
    if collisions > 0 {
        let most = Duration::from_millis(1 << collisions);
        tokio::time::sleep(most.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}

/// Handles one delivery: claim, call, complete, publish. The transaction is offered only while the
/// handler runs, and withdrawn before the claim ends, also if the handler keeps its context.
async fn deliver_once(routes: &Arc<OwnRoutes>, inbox: &dyn Inbox, delivery: &Delivery) -> Outcome {
    let input = match Input::read(routes, delivery) {
        Ok(input) => input,
        Err(outcome) => return outcome,
    };
    let route = input.route();
    let context = Context::new(delivery, routes, route, input.content());
    if matches!(route, RouteId::Typed(route) if routes.typed[route].batch.is_some()) {
        // The delivery is claimed with its batch.
        let source = ContextSource::new(delivery, routes, route, Some(context));
        return match input.call(routes, source) {
            Ok(answered) => match answered.await {
                Ok(outcome) => outcome,
            },
            Err(outcome) => outcome,
        };
    }
    let (source, id) = input.identity(&delivery.record);
    let key = context.identified(source, id);
    let claiming = match routes.names_transaction(route) {
        true => inbox.claim(key),
        false => inbox.claim_without_transaction(key),
    };
    let mut claim = match outside_handler_time(claiming).await {
        Ok(Claimed::Fresh(claim)) => claim,
        // Published with the same ids: the process that published them first may have ended before
        // the acknowledgement.
        Ok(Claimed::Duplicate { unsent }) => {
            dedup::suppressed(&context);
            return publish(&context, unsent, Outcome::Duplicate).await;
        }
        Err(InboxError::Reused) => return dedup::reused(&context),
        Err(error) => return Outcome::Retry(store_error(error)),
    };
    let offered = claim.transaction();
    let offered = offered.map(|transaction| context.offer_transaction(transaction));
    let source = ContextSource::new(delivery, routes, route, Some(context.clone()));
    let outcome = match input.call(routes, source) {
        Ok(handled) => match unless_recalled(handled, claim.as_mut()).await {
            Ok(outcome) => outcome,
            Err(error) => return Outcome::Retry(store_error(error)),
        },
        Err(outcome) => outcome,
    };
    drop(offered);
    if !outcome.is_success() {
        return failed(claim, outcome, &key.handler).await;
    }
    match outside_handler_time(claim.complete(context.take_staged())).await {
        Ok(unsent) => {
            dedup::completed(&context);
            publish(&context, unsent, outcome).await
        }
        Err(error) => Outcome::Retry(store_error(error)),
    }
}

/// Abandons the claim of a handler that did not succeed. A claim that cannot be released at once is
/// only logged: it expires or ends with its connection, and the outcome is not changed.
async fn failed(claim: Box<dyn Claim>, outcome: Outcome, handler: &str) -> Outcome {
    let (abandoned, outcome) = match outcome {
        Outcome::Retry(error) => match outside_handler_time(claim.fail(error.cause())).await {
            Ok(true) => return Outcome::Retry(error.collided()),
            abandoned => (abandoned.map(drop), Outcome::Retry(error)),
        },
        outcome => (outside_handler_time(claim.abandon()).await, outcome),
    };
    if let Err(error) = abandoned {
        tracing::warn!(%error, handler, "failed to release the claim of a failed handler at once");
    }
    outcome
}

/// Returns how the handler ended; drops the handler if its store stopped answering.
async fn unless_recalled(
    mut handled: OutcomeFuture,
    claim: &mut dyn Claim,
) -> Result<Outcome, InboxError> {
    poll_fn(|cx| match handled.as_mut().poll(cx) {
        Poll::Ready(Ok(outcome)) => Poll::Ready(Ok(outcome)),
        Poll::Pending => claim.poll_recalled(cx).map(Err),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RecordBatchBuilder;
    use crate::handler::DeliveryScope;
    use crate::handler::{Router, State};
    use crate::inbox::SqliteInbox;
    use sqlx::SqlitePool;
    use std::time::Duration;
    use tower::Service;

    fn delivery() -> Delivery {
        let mut batch = RecordBatchBuilder::new();
        let source = batch.source("orders".into(), 0);
        batch.push(source, 7, 0, None, Some(b"an order"), std::iter::empty());
        let record = batch.build(None).record(0).expect("pushed");
        Delivery::new(record, 1, Arc::new(DeliveryScope::new("group")))
    }

    async fn write(_: Record, State(pool): State<SqlitePool>) -> Result<(), HandlerError> {
        let insert = sqlx::query("INSERT INTO effects DEFAULT VALUES");
        insert.execute(&pool).await?;
        Ok(())
    }

    #[tokio::test]
    async fn a_handler_without_transaction_may_write_by_another_connection() {
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        let path = folder.path().join("store.db");
        let schema = "CREATE TABLE IF NOT EXISTS effects (id INTEGER PRIMARY KEY)";
        let inbox = SqliteInbox::open(&path, "group", schema).await;
        let pool = SqlitePool::connect(&format!("sqlite:{}", path.display())).await;
        let pool = pool.expect("a second connection");
        let mut router = Router::new()
            .with_state(pool.clone())
            .raw(write)
            .with_inbox(inbox.expect("a store"));
        let Ok(first) = router.call(delivery()).await;
        assert!(matches!(first, Outcome::Done), "{first:?}");
        let Ok(again) = router.call(delivery()).await;
        assert!(matches!(again, Outcome::Duplicate), "{again:?}");
        let effects = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM effects");
        assert_eq!(
            effects
                .fetch_one(&pool)
                .await
                .expect("the query returns a row"),
            1
        );
    }

    /// 30 deliveries of one store; each holds the only transaction for 50 ms.
    #[tokio::test(flavor = "multi_thread")]
    async fn waiting_for_a_turn_does_not_use_a_handlers_time() {
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        let path = folder.path().join("store.db");
        let inbox = SqliteInbox::open(&path, "group", "").await;
        let slow = async |_: Record, _: crate::inbox::SqliteTx| {
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let router = Router::new().raw(slow).with_inbox(inbox.expect("a store"));
        let limit = Some(Duration::from_millis(400));
        let deliver = |offset| {
            let mut handler = crate::handler::Limited::new(router.clone(), limit);
            let mut delivery = delivery();
            let mut batch = RecordBatchBuilder::new();
            let source = batch.source("orders".into(), 0);
            batch.push(source, offset, 0, None, None, std::iter::empty());
            delivery.record = batch.build(None).record(0).expect("pushed");
            async move { handler.call(delivery).await }
        };
        let began = std::time::Instant::now();
        let all = futures_util::future::join_all((0..30).map(deliver)).await;
        assert!(began.elapsed() > Duration::from_secs(1), "they took turns");
        for outcome in all {
            assert!(matches!(outcome, Ok(Outcome::Done)), "{outcome:?}");
        }
    }
}

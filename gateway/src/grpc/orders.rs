//! The service `shop.v1.Orders`: messages to the shop's core and back. Decides nothing.

use super::call::Call;
use super::proto::shop as proto;
use super::watch::{Elements, Step, reconnect, too_slow, watch};
use crate::access::{AllowList, Principal};
use crate::http::{Problem, ProblemKind};
use crate::post::{IdempotencyKey, NewEvent, Posting};
use crate::shop::{OrderAnswer, OrderReader, OrderView, ReadModelLag, cancellation, placement};
use crate::stream::{Filter, Frame, StreamStart, Streams};
use evenkeel::event::EventType;
use prost::Message;
use proto::order_update::Content;
use proto::watch_request::Start;
use serde_json::{Map, Value, json};
use shop_schemas::OrderPlaced;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// The paths of the methods that post, which the fingerprint of a request includes.
const PLACE: &str = "/shop.v1.Orders/Place";
const CANCEL: &str = "/shop.v1.Orders/Cancel";
/// The longest wait for a newer state.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// The longest version that is passed on to the read model, in bytes.
const VERSION_BYTES_MAX: usize = 128;

/// The service.
pub(super) struct OrdersService {
    pub(super) posting: Posting,
    pub(super) reader: OrderReader,
    pub(super) lag: ReadModelLag,
    pub(super) streams: Streams,
}

#[tonic::async_trait]
impl proto::orders_server::Orders for OrdersService {
    async fn place(
        &self,
        request: Request<proto::PlaceRequest>,
    ) -> Result<Response<proto::PlaceReply>, Status> {
        let (call, message) = Call::of(request)?;
        let key = call.idempotency_key(PLACE, &message.encode_to_vec())?;
        let posted = self.post(&call, placed(message)?, key).await?;
        Ok(Response::new(proto::PlaceReply {
            order_id: posted.order_id,
            event_id: posted.event_id,
            event_source: posted.event_source,
            replayed: posted.replayed,
        }))
    }

    async fn cancel(
        &self,
        request: Request<proto::CancelRequest>,
    ) -> Result<Response<proto::CancelReply>, Status> {
        let (call, message) = Call::of(request)?;
        let key = call.idempotency_key(CANCEL, &message.encode_to_vec())?;
        let proto::CancelRequest {
            order_id,
            reason,
            event_id,
        } = message;
        let event = cancellation(&order_id, json!({ "reason": reason }), event_id)?;
        let posted = self.post(&call, event, key).await?;
        Ok(Response::new(proto::CancelReply {
            order_id: posted.order_id,
            event_id: posted.event_id,
            event_source: posted.event_source,
            replayed: posted.replayed,
        }))
    }

    async fn get(
        &self,
        request: Request<proto::GetRequest>,
    ) -> Result<Response<proto::GetReply>, Status> {
        let (call, message) = Call::of(request)?;
        if !call.principal.rights.status {
            let detail = "this caller may not read orders; its token needs the right `status`";
            return Err(Problem::new(ProblemKind::Forbidden, detail).into());
        }
        let known = message.known_version.as_deref();
        check_version(known)?;
        let mut wait = Duration::from_millis(message.wait_ms.into()).min(WAIT_MAX);
        if let Some(left) = call.context.time_left() {
            wait = wait.min(left);
        }
        let wait = (!wait.is_zero()).then_some(wait);
        let order = match self.reader.order(&message.order_id, wait, known).await? {
            OrderAnswer::Found(order) => Some(order_message(order)),
            OrderAnswer::Unchanged { .. } => None,
            OrderAnswer::Unknown => {
                let detail = "no event about this order was handled yet; if it was just placed, \
                              ask again with wait_ms";
                return Err(Problem::new(ProblemKind::NotFound, detail).into());
            }
        };
        let lag = self.lag.current();
        let lag_ms = lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX));
        Ok(Response::new(proto::GetReply { order, lag_ms }))
    }

    type WatchStream = Elements<proto::OrderUpdate>;

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (call, message) = Call::of(request)?;
        let start = match message.start {
            None | Some(Start::Earliest(false)) => StreamStart::Now,
            Some(Start::Earliest(true)) => StreamStart::Earliest,
            Some(Start::After(cursor)) => StreamStart::After(cursor),
        };
        let types = order_types(self.posting.allow_list(), &call.principal)?;
        let filter = Filter {
            types,
            key: Some(message.order_id),
        };
        watch(&self.streams, &call, filter, start, update).await
    }
}

/// The event that places the order.
fn placed(message: proto::PlaceRequest) -> Result<NewEvent, Problem> {
    let proto::PlaceRequest {
        order_id,
        customer_id,
        lines,
        total_cents,
        placed_at,
        event_id,
    } = message;
    let lines = lines.into_iter().map(|line| {
        json!({
            "article": line.article,
            "quantity": line.quantity,
            "price_cents": line.price_cents,
        })
    });
    let mut order = Map::new();
    order.insert("customer_id".to_owned(), customer_id.into());
    order.insert("lines".to_owned(), lines.collect());
    for (member, value) in [
        ("order_id", order_id.map(Value::from)),
        ("total_cents", total_cents.map(Value::from)),
        ("placed_at", placed_at.map(Value::from)),
    ] {
        if let Some(value) = value {
            order.insert(member.to_owned(), value);
        }
    }
    placement(order.into(), event_id, jiff::Timestamp::now())
}

/// What a reply says of the event of an order.
struct Posted {
    order_id: String,
    event_id: String,
    event_source: String,
    /// Whether the answer is that of an earlier request.
    replayed: bool,
}

impl OrdersService {
    /// Posts the event of an order.
    async fn post(
        &self,
        call: &Call,
        event: NewEvent,
        key: Option<IdempotencyKey>,
    ) -> Result<Posted, Problem> {
        let (principal, context) = (&call.principal, &call.context);
        let accepted = self
            .posting
            .accept(principal, context, vec![event], key)
            .await?;
        let replayed = accepted.repeated.is_some();
        let event = accepted.events.into_iter().next();
        let event = event.expect("the answer to one event has one event");
        Ok(Posted {
            order_id: event.key,
            event_id: event.id,
            event_source: event.source,
            replayed,
        })
    }
}

/// The version goes into a header of another request.
fn check_version(version: Option<&str>) -> Result<(), Problem> {
    let is_sound = |version: &str| {
        version.len() <= VERSION_BYTES_MAX && version.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match version.is_none_or(is_sound) {
        true => Ok(()),
        false => {
            let detail = "known_version must be that of an earlier reply";
            Err(Problem::new(ProblemKind::Malformed, detail))
        }
    }
}

fn order_message(order: OrderView) -> proto::Order {
    let facts = order.facts.into_iter().map(|fact| proto::OrderFact {
        fact: fact.fact,
        at: fact.at,
        detail: fact.detail,
    });
    proto::Order {
        order_id: order.order_id,
        state: order.state,
        facts: facts.collect(),
        version: order.version,
    }
}

/// The types that are keyed as orders are, and that the caller may stream.
fn order_types(list: &AllowList, principal: &Principal) -> Result<Vec<String>, Problem> {
    let Some(placed) = list.stream(OrderPlaced::TYPE) else {
        let detail = "this gateway streams no orders";
        return Err(Problem::new(ProblemKind::Unsupported, detail));
    };
    let types = list.routes().filter(|route| {
        route.stream && route.key == placed.key && principal.rights.may_stream(&route.ty)
    });
    let types: Vec<String> = types.map(|route| route.ty.clone()).collect();
    if types.is_empty() {
        let detail = "this caller may stream no event of orders";
        return Err(Problem::new(ProblemKind::Forbidden, detail));
    }
    Ok(types)
}

/// The message of a frame.
fn update(frame: Frame) -> Step<proto::OrderUpdate> {
    let next = |cursor, content| {
        Step::Next(proto::OrderUpdate {
            cursor,
            content: Some(content),
        })
    };
    match frame {
        Frame::Event { cursor, event } => {
            let event = proto::OrderEvent {
                r#type: event.ty.clone(),
                event_json: event.json.clone(),
            };
            next(cursor, Content::Event(event))
        }
        Frame::Heartbeat { cursor } => next(cursor, Content::Heartbeat(proto::OrderHeartbeat {})),
        Frame::Gap {
            cursor,
            topic,
            partition,
            from,
            to,
        } => {
            let gap = proto::OrderGap {
                topic: topic.to_string(),
                partition,
                from_offset: from,
                to_offset: to,
            };
            next(cursor, Content::Gap(gap))
        }
        Frame::Slow { .. } => Step::Last(None, too_slow()),
        Frame::Reconnect { .. } => Step::Last(None, reconnect()),
        Frame::Failed { problem, .. } => Step::Last(None, problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Rights;
    use std::collections::BTreeSet;

    fn request() -> proto::PlaceRequest {
        let line = proto::OrderLine {
            article: "tea".to_owned(),
            quantity: 2,
            price_cents: 150,
        };
        proto::PlaceRequest {
            order_id: Some("o-7".to_owned()),
            customer_id: "c-1".to_owned(),
            lines: vec![line],
            ..proto::PlaceRequest::default()
        }
    }

    #[test]
    fn a_placed_order_passes_its_schema() {
        let event = placed(request()).expect("an order");
        let data: Value = serde_json::from_str(event.data.get()).expect("it is JSON");
        assert_eq!(data["order_id"], "o-7");
        assert_eq!(data["total_cents"], 300);
        let catalogue = shop_schemas::catalogue().expect("the schemas compile");
        catalogue
            .validate(&event.ty, &data)
            .expect("the order is valid");
    }

    #[test]
    fn a_version_fits_into_a_header() {
        let long = "1".repeat(VERSION_BYTES_MAX + 1);
        for (version, is_sound) in [
            (None, true),
            (Some("\"17\""), true),
            (Some("a\r\nb"), false),
            (Some("ä"), false),
            (Some(long.as_str()), false),
        ] {
            assert_eq!(check_version(version).is_ok(), is_sound, "{version:?}");
        }
    }

    #[test]
    fn only_streamable_events_of_orders_are_watched() {
        let list = crate::shop::allow_list().expect("the shop's list");
        let mut rights = Rights::default();
        let refused = order_types(&list, &Principal::new("web", rights.clone()));
        assert_eq!(
            refused.expect_err("it has no right").kind,
            ProblemKind::Forbidden
        );
        rights.stream = vec!["shop.order-*".to_owned()];
        let types = order_types(&list, &Principal::new("web", rights)).expect("two types");
        let types: BTreeSet<&str> = types.iter().map(String::as_str).collect();
        assert_eq!(
            types,
            BTreeSet::from(["shop.order-cancelled.v1", OrderPlaced::TYPE])
        );
    }
}

//! The services as routes. Knows no message.

use super::call::{Calls, open};
use super::events::EventsService;
use super::health::{HealthHandle, health};
#[cfg(feature = "shop")]
use super::orders::OrdersService;
use super::proto::gateway::events_server::EventsServer;
#[cfg(feature = "shop")]
use super::proto::shop::orders_server::OrdersServer;
use crate::access::Authenticator;
use crate::admission::Admission;
use crate::post::Posting;
#[cfg(feature = "shop")]
use crate::shop::{OrderReader, ReadModelLag};
use crate::status::StatusReader;
use crate::stream::Streams;
use axum::Router;
use axum::middleware::from_fn_with_state;
use std::sync::Arc;
use tonic::server::NamedService;
use tonic::service::Routes;

/// The gRPC services of a gateway.
#[must_use]
pub struct Grpc {
    posting: Posting,
    streams: Streams,
    status: StatusReader,
    calls: Calls,
    #[cfg(feature = "shop")]
    orders: Option<(OrderReader, ReadModelLag)>,
}

impl std::fmt::Debug for Grpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grpc").finish_non_exhaustive()
    }
}

impl Grpc {
    /// The service `Events` over these parts. `worker` is the name of this gateway.
    ///
    /// A [`Principal`](crate::access::Principal) or a
    /// [`RequestContext`](crate::http::RequestContext) that a middleware put into the request's
    /// extensions is taken; without, both are made here.
    pub fn new(
        posting: Posting,
        admission: Admission,
        status: StatusReader,
        streams: Streams,
        authenticator: Authenticator,
        worker: Arc<str>,
    ) -> Self {
        let bytes_max = posting.limits().body_bytes_max;
        Self {
            posting,
            streams,
            status,
            calls: Calls::new(authenticator, worker, admission, bytes_max),
            #[cfg(feature = "shop")]
            orders: None,
        }
    }

    /// Adds the service `Orders`.
    #[cfg(feature = "shop")]
    pub fn with_orders(mut self, reader: OrderReader, lag: ReadModelLag) -> Self {
        self.orders = Some((reader, lag));
        self
    }

    /// The routes of all services, and the handle of their health. They serve from now on.
    ///
    /// The router has no fallback, so that it can be merged with others. A call of an unknown
    /// service gets what the merged router answers: for gRPC clients, HTTP's 404 is
    /// `UNIMPLEMENTED`. It admits posts itself: wrap it in no other admission.
    pub async fn routes(self) -> (Router, HealthHandle) {
        let bytes_max = self.posting.limits().body_bytes_max;
        let events = EventsServer::new(EventsService {
            posting: self.posting.clone(),
            status: self.status,
            streams: self.streams.clone(),
        })
        .max_decoding_message_size(bytes_max);
        let names = vec![name_of(&events)];
        let routes = Routes::from(Router::new()).add_service(events);
        #[cfg(feature = "shop")]
        let (routes, names) = match self.orders {
            Some((reader, lag)) => {
                let (posting, streams) = (self.posting, self.streams);
                let orders = OrdersService {
                    posting,
                    reader,
                    lag,
                    streams,
                };
                let orders = OrdersServer::new(orders).max_decoding_message_size(bytes_max);
                let names = [names, vec![name_of(&orders)]].concat();
                (routes.add_service(orders), names)
            }
            None => (routes, names),
        };
        let calls = routes
            .into_axum_router()
            .route_layer(from_fn_with_state(self.calls, open));
        let (health, handle) = health(&names).await;
        (calls.merge(health), handle)
    }
}

fn name_of<S: NamedService>(_service: &S) -> &'static str {
    S::NAME
}

//! `grpc.health.v1.Health`: whether the services serve. Needs no token.
//!
//! Without `Watch`: such a stream never ends and sends nothing, so that anybody could hold
//! connections, and a stop, with it.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tonic::Status;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The longest message: a service name.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// The name that stands for the whole server.
const SERVER: &str = "";

/// Sets what the health service answers, for all services of this gateway at once.
#[derive(Debug, Clone)]
pub struct HealthHandle {
    reporter: HealthReporter,
    services: Vec<&'static str>,
}

impl HealthHandle {
    /// Sets whether the services serve: `SERVING` or `NOT_SERVING`. A gateway that stops calls it
    /// with `false` first, so that clients and load balancers move on before calls are refused.
    pub async fn set_serving(&self, serving: bool) {
        let status = match serving {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        for service in &self.services {
            self.reporter.set_service_status(*service, status).await;
        }
    }
}

/// The route of the health service, and its handle. These services, and the server as a whole,
/// serve from now on.
pub(super) async fn health(services: &[&'static str]) -> (Router, HealthHandle) {
    let (reporter, server) = tonic_health::server::health_reporter();
    let mut all = vec![SERVER];
    all.extend_from_slice(services);
    let handle = HealthHandle {
        reporter,
        services: all,
    };
    handle.set_serving(true).await;
    // Anybody may call it, and what it reads is in memory.
    let server = server.max_decoding_message_size(MESSAGE_BYTES_MAX);
    let routes = Routes::from(Router::new()).add_service(server);
    let routes = routes.into_axum_router();
    (routes.route_layer(from_fn(refuse_watch)), handle)
}

/// The middleware: answers `Watch` with `UNIMPLEMENTED`, upon which clients use `Check`, or count
/// the server as healthy.
async fn refuse_watch(request: Request, next: Next) -> Response {
    if request.uri().path().ends_with("/Watch") {
        return Status::unimplemented("use Check").into_http();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus as Answer;
    use tonic_health::pb::health_client::HealthClient;

    #[tokio::test]
    async fn a_stop_is_seen_for_every_service() {
        let (router, handle) = health(&["shop.v1.Orders"]).await;
        let mut client = HealthClient::new(router);
        for (serving, expected) in [(true, Answer::Serving), (false, Answer::NotServing)] {
            handle.set_serving(serving).await;
            for service in ["", "shop.v1.Orders"] {
                let request = HealthCheckRequest {
                    service: service.to_owned(),
                };
                let answer = client.check(request).await.expect("the service is known");
                assert_eq!(answer.into_inner().status, expected as i32, "{service:?}");
            }
        }
        let request = HealthCheckRequest {
            service: "unknown".to_owned(),
        };
        let status = client
            .check(request)
            .await
            .expect_err("there is no such service");
        assert_eq!(status.code(), Code::NotFound);
    }

    #[tokio::test]
    async fn nobody_watches_for_ever() {
        let (router, _handle) = health(&[]).await;
        let watched = HealthClient::new(router)
            .watch(HealthCheckRequest::default())
            .await;
        let status = watched.expect_err("it is refused");
        assert_eq!(status.code(), Code::Unimplemented);
    }
}

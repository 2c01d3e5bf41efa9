//! The metrics of requests.
//!
//! Owns their names, and their handles: each is looked up in the recorder at the first request with
//! its labels, as a look-up makes a key of all of them. There are as many as routes, methods and
//! statuses.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `gateway_requests_total` | counter | `route`, `method`, `status` |
//! | `gateway_request_seconds` | histogram, up to the head of the answer | `route` |

use axum::http::StatusCode;
use metrics::{Counter, Histogram};
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// The metric of requests.
const REQUESTS_TOTAL: &str = "gateway_requests_total";
/// The histogram of the time up to the head of an answer.
const REQUEST_SECONDS: &str = "gateway_request_seconds";

/// The handles of the metrics, by route. A recorder must be installed before the first request.
#[derive(Debug, Default)]
pub(in crate::server) struct RequestMetrics(RwLock<HashMap<String, Vec<Handles>>>);

/// The handles for the requests of one route with this method and this status.
#[derive(Debug)]
struct Handles {
    method: &'static str,
    status: StatusCode,
    requests: Counter,
    seconds: Histogram,
}

impl RequestMetrics {
    /// Counts a request whose answer begins.
    pub(super) fn count(
        &self,
        route: &str,
        method: &'static str,
        status: StatusCode,
        took: Duration,
    ) {
        let by_route = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = by_route
            .get(route)
            .and_then(|all| find(all, method, status));
        if let Some(handles) = known {
            return handles.count(took);
        }
        drop(by_route);
        let handles = Handles::new(route, method, status);
        handles.count(took);
        let mut by_route = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let all = by_route.entry(route.to_owned()).or_default();
        // Another request may have been faster.
        if find(all, method, status).is_none() {
            all.push(handles);
        }
    }
}

fn find<'a>(all: &'a [Handles], method: &str, status: StatusCode) -> Option<&'a Handles> {
    all.iter()
        .find(|handles| handles.method == method && handles.status == status)
}

impl Handles {
    fn new(route: &str, method: &'static str, status: StatusCode) -> Self {
        let (route, code) = (route.to_owned(), status.as_str().to_owned());
        let seconds = metrics::histogram!(REQUEST_SECONDS, "route" => route.clone());
        let requests = metrics::counter!(
            REQUESTS_TOTAL,
            "route" => route,
            "method" => method,
            "status" => code
        );
        Self {
            method,
            status,
            requests,
            seconds,
        }
    }

    fn count(&self, took: Duration) {
        self.seconds.record(took.as_secs_f64());
        self.requests.increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_combination_of_labels_has_one_handle() {
        let metrics = RequestMetrics::default();
        let (ok, refused) = (StatusCode::OK, StatusCode::FORBIDDEN);
        for (route, method, status) in [
            ("/a", "GET", ok),
            ("/a", "POST", ok),
            ("/a", "GET", refused),
            ("/a", "GET", ok),
            ("/b", "GET", ok),
        ] {
            metrics.count(route, method, status, Duration::ZERO);
        }
        let by_route = metrics.0.read().expect("not poisoned");
        assert_eq!((by_route["/a"].len(), by_route["/b"].len()), (3, 1));
    }
}

//! The responses of the admin server: probes with the names of Kubernetes, and the metrics.
//!
//! Owns paths and formats. Knows only [`Health`] and the renderer of the metrics. Read only.
//!
//! | path | status | body |
//! |---|---|---|
//! | `/livez`, `/healthz` | 503 if a loop is late, otherwise 200 | the loops |
//! | `/readyz` | 503 if a component is not ready, otherwise 200 | the components |
//! | `/metrics` | 200 | all metrics; only with a renderer |
//!
//! A probe answers `ok`, or a line `[-]name: reason` for each failed check. With `?verbose`, all
//! checks are listed with their notes. With `Accept: application/json` the body is JSON.

use crate::telemetry::{Health, visible};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::fmt::Write;
use std::sync::Arc;

/// Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/healthz` is an alias of `/livez`, not of `/readyz`: old probes use it to decide on restarts,
/// and an unavailable store or broker is no reason for a restart.
pub(super) fn router(health: Health, metrics: Option<Render>) -> Router {
    let probes = Router::new()
        .route("/livez", get(livez))
        .route("/healthz", get(livez))
        .route("/readyz", get(readyz))
        .with_state(health);
    match metrics {
        Some(metrics) => probes.merge(
            Router::new()
                .route("/metrics", get(render))
                .with_state(metrics),
        ),
        None => probes,
    }
}

/// Renders all metrics in Prometheus' text format.
pub(super) type Render = Arc<dyn Fn() -> String + Send + Sync>;

async fn livez(State(health): State<Health>, query: RawQuery, headers: HeaderMap) -> Response {
    let failing = health
        .not_alive()
        .into_iter()
        .map(|(name, seconds)| (name, format!("no progress for {seconds} s")))
        .collect();
    Report::new(health.loops(), failing, health.notes()).respond(query, &headers)
}

async fn readyz(State(health): State<Health>, query: RawQuery, headers: HeaderMap) -> Response {
    Report::new(health.components(), health.not_ready(), health.notes()).respond(query, &headers)
}

async fn render(State(metrics): State<Render>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics()).into_response()
}

/// The response to a probe.
#[derive(serde::Serialize)]
struct Report {
    status: &'static str,
    checks: Vec<Check>,
}

/// A component or a loop in the answer. The field names are a contract: the tool reads them.
#[derive(serde::Serialize)]
struct Check {
    name: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Report {
    fn new(
        names: Vec<String>,
        mut failing: Vec<(String, String)>,
        mut notes: Vec<(String, String)>,
    ) -> Self {
        let status = if failing.is_empty() { "ok" } else { "failed" };
        let mut checks: Vec<Check> = names
            .into_iter()
            .map(|name| {
                let at = failing.iter().position(|(failed, _)| *failed == name);
                let reason = at.map(|at| failing.swap_remove(at).1);
                let noted = notes.iter().position(|(noted, _)| *noted == name);
                Check {
                    note: noted.map(|at| notes.swap_remove(at).1),
                    ok: reason.is_none(),
                    name,
                    reason,
                }
            })
            .collect();
        // A check that failed and disappeared between the two readings is still reported.
        checks.extend(failing.into_iter().map(|(name, reason)| Check {
            name,
            ok: false,
            reason: Some(reason),
            note: None,
        }));
        Self { status, checks }
    }

    fn respond(&self, RawQuery(query): RawQuery, headers: &HeaderMap) -> Response {
        let code = match self.status {
            "ok" => StatusCode::OK,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let accepts_json = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("application/json"));
        if accepts_json {
            return (code, axum::Json(self)).into_response();
        }
        let verbose = query.is_some_and(|query| {
            query
                .split('&')
                .any(|part| part == "verbose" || part.starts_with("verbose="))
        });
        (code, self.text(verbose)).into_response()
    }

    /// `ok` alone, or a line for each check: all of them if verbose, otherwise the failed ones.
    fn text(&self, verbose: bool) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let name = visible(&check.name);
            let note = check.note.as_deref().map(visible);
            let written = match (&check.reason, note) {
                (Some(reason), _) => writeln!(text, "[-]{name}: {}", visible(reason)),
                (None, Some(note)) if verbose => writeln!(text, "[+]{name} ok; {note}"),
                (None, None) if verbose => writeln!(text, "[+]{name} ok"),
                (None, _) => Ok(()),
            };
            written.expect("writing to a string does not fail");
        }
        if text.is_empty() || verbose {
            text.push_str(self.status);
            text.push('\n');
        }
        text
    }
}

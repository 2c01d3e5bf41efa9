//! Authentication, whose result the log names, and admission behind it.

use super::observe::Caller;
use crate::access::Authenticator;
use crate::admission::{Admission, admit};
use crate::http::Problem;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// The middleware of routes that read: [`authenticate`](crate::access::authenticate), which also
/// tells the log who calls.
pub(in crate::server) async fn identify(
    State(authenticator): State<Authenticator>,
    mut request: Request,
    next: Next,
) -> Response {
    match identified(&authenticator, &mut request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// The middleware of routes that post: [`identify`], then [`admit`]. One, as each layer costs.
pub(in crate::server) async fn identify_and_admit(
    State((authenticator, admission)): State<(Authenticator, Admission)>,
    mut request: Request,
    next: Next,
) -> Response {
    match identified(&authenticator, &mut request) {
        Ok(()) => admit(State(admission), request, next).await,
        Err(problem) => problem.into_response(),
    }
}

fn identified(authenticator: &Authenticator, request: &mut Request) -> Result<(), Problem> {
    let principal = authenticator.identify(request)?;
    if let Some(caller) = request.extensions().get::<Caller>() {
        caller.set(&principal.name);
    }
    request.extensions_mut().insert(principal);
    Ok(())
}

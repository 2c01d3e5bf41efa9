//! What all methods that post have in common: admission, then the core of posting.

use super::call::{Call, deadline_exceeded};
use crate::admission::{Admission, Outcome};
use crate::http::Problem;
use crate::post::{IdempotencyKey, NewEvent, PostAnswer, Posting};
use tokio::time::timeout_at;

/// Posts events for callers that are admitted.
#[derive(Clone)]
pub(super) struct Posts {
    pub(super) posting: Posting,
    pub(super) admission: Admission,
}

impl Posts {
    /// Posts the events of a call, if there is room. Gives up at the deadline of the call, or at
    /// that of [`Admission::deadline`] if it is earlier.
    ///
    /// # Errors
    /// Those of [`Admission::try_admit_keyed`] and [`Posting::accept`].
    pub(super) async fn post(
        &self,
        call: &Call,
        events: Vec<NewEvent>,
        key: Option<IdempotencyKey>,
    ) -> Result<PostAnswer, Problem> {
        let (principal, context) = (&call.principal, &call.context);
        let event_id = events.first().and_then(|event| event.id.as_deref());
        let retry_key = key.as_ref().map(|key| key.key.as_str()).or(event_id);
        let permit = self
            .admission
            .try_admit_keyed(principal, context, retry_key)?;
        let accepting = self.posting.accept(principal, context, events, key);
        let deadline = self.admission.deadline(context);
        let result = match timeout_at(deadline, accepting).await {
            Ok(result) => result,
            Err(_) => Err(deadline_exceeded()),
        };
        permit.finish(match &result {
            Ok(_) => Outcome::Accepted,
            Err(problem) => Outcome::of_status(problem.kind.status()),
        });
        result
    }
}

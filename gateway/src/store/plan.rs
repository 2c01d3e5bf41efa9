//! Decides what a group of requests writes.
//!
//! Owns the rules of repetitions: which requests are new, repeated, refused as a reuse, or under
//! way elsewhere. Pure: a store reads what it knows of the group's identities, and writes what
//! the plan says.

use super::error::AcceptError;
use super::port::{AcceptRequest, Accepted, AcceptedEvent, IdempotencyClaim, StoredAnswer};
use evenkeel::event::OutgoingRecord;
use std::collections::{HashMap, HashSet};

/// The answer to one request.
pub(super) type Outcome = Result<Accepted, AcceptError>;

/// A caller and its key, or the source and the id of an event.
type Identity = (String, String);

/// What a store knows of the identities in a group.
#[derive(Debug, Default)]
pub(super) struct Known {
    requests: HashMap<Identity, KnownRequest>,
    /// Keys that another writer is writing now.
    under_way: HashSet<Identity>,
    /// Fingerprints by source and id.
    events: HashMap<Identity, Vec<u8>>,
}

/// An accepted request.
#[derive(Debug, Clone)]
struct KnownRequest {
    fingerprint: Vec<u8>,
    answer: StoredAnswer,
}

impl Known {
    /// Adds an accepted request, as stored.
    ///
    /// # Errors
    /// If the row was written by another program.
    pub(super) fn add_request(
        &mut self,
        identity: (String, String),
        fingerprint: Vec<u8>,
        status: i32,
        headers: &str,
        body: Vec<u8>,
    ) -> Result<(), sqlx::Error> {
        let answer = StoredAnswer {
            status: u16::try_from(status).map_err(|error| sqlx::Error::Decode(error.into()))?,
            headers: serde_json::from_str(headers)
                .map_err(|error| sqlx::Error::Decode(error.into()))?,
            body: body.into(),
        };
        self.requests.insert(
            identity,
            KnownRequest {
                fingerprint,
                answer,
            },
        );
        Ok(())
    }

    /// Adds a key that another writer has locked.
    pub(super) fn add_under_way(&mut self, claim: &IdempotencyClaim) {
        self.under_way.insert(identity_of_claim(claim));
    }

    /// Adds an accepted event.
    pub(super) fn add_event(&mut self, identity: (String, String), fingerprint: Vec<u8>) {
        self.events.insert(identity, fingerprint);
    }

    /// The answer to a request whose key is known; `None` if the key is new.
    fn answer(&self, claim: &IdempotencyClaim) -> Option<Outcome> {
        let identity = identity_of_claim(claim);
        if self.under_way.contains(&identity) {
            return Some(Err(AcceptError::InProgress));
        }
        let known = self.requests.get(&identity)?;
        Some(match known.fingerprint == claim.fingerprint {
            true => Ok(Accepted::Repeated(known.answer.clone())),
            false => Err(reused("the Idempotency-Key".to_owned())),
        })
    }
}

/// What a group writes, and the answer to each of its requests.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    /// One for each request, in order; valid once the rest is committed.
    pub(super) outcomes: Vec<Outcome>,
    /// The keys to keep, with their answers.
    pub(super) requests: Vec<(&'a IdempotencyClaim, &'a StoredAnswer)>,
    /// The events to publish, in order.
    pub(super) events: Vec<&'a AcceptedEvent>,
}

impl<'a> Plan<'a> {
    /// Plans a group, in the order of its requests. A later request sees the earlier ones.
    pub(super) fn of(requests: impl Iterator<Item = &'a AcceptRequest>, mut known: Known) -> Self {
        let mut plan = Self::default();
        for request in requests {
            let outcome = plan.add(request, &mut known);
            plan.outcomes.push(outcome);
        }
        plan
    }

    /// Whether nothing is to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.events.is_empty()
    }

    /// Copies of the records to publish, in order.
    pub(super) fn records(&self) -> Vec<OutgoingRecord> {
        let records = self.events.iter().map(|event| event.record.clone());
        records.collect()
    }

    fn add(&mut self, request: &'a AcceptRequest, known: &mut Known) -> Outcome {
        if let Some(claim) = &request.idempotency
            && let Some(outcome) = known.answer(claim)
        {
            return outcome;
        }
        let events = new_events(request, known)?;
        for event in &events {
            known.add_event(identity_of_event(event), event.fingerprint.to_vec());
        }
        self.events.extend(events);
        // Only an accepted request is repeated with the same answer.
        if let Some(claim) = &request.idempotency
            && (200..300).contains(&request.answer.status)
        {
            let accepted = KnownRequest {
                fingerprint: claim.fingerprint.to_vec(),
                answer: request.answer.clone(),
            };
            known.requests.insert(identity_of_claim(claim), accepted);
            self.requests.push((claim, &request.answer));
        }
        Ok(Accepted::New)
    }
}

/// The events of a request that were not accepted before.
///
/// # Errors
/// [`AcceptError::Reused`] if an id was used for another event, [`AcceptError::Unavailable`] for an
/// event without a fingerprint: it would equal any other one.
fn new_events<'a>(
    request: &'a AcceptRequest,
    known: &Known,
) -> Result<Vec<&'a AcceptedEvent>, AcceptError> {
    let mut events = Vec::with_capacity(request.events.len());
    let mut seen: HashMap<(&str, &str), &[u8; 32]> = HashMap::new();
    for (index, event) in request.events.iter().enumerate() {
        if event.fingerprint == [0; 32] {
            return Err(AcceptError::Unavailable {
                doing: "telling a repeated event from another one",
                source: "the event has no fingerprint, although the store keeps identities".into(),
            });
        }
        let identity = (event.source.as_str(), event.id.as_str());
        let earlier = match seen.insert(identity, &event.fingerprint) {
            Some(of_request) => Some(of_request.as_slice()),
            None => known
                .events
                .get(&identity_of_event(event))
                .map(Vec::as_slice),
        };
        match earlier {
            None => events.push(event),
            Some(fingerprint) if fingerprint == event.fingerprint => {}
            Some(_) if request.events.len() == 1 => {
                return Err(reused("the id of the event".to_owned()));
            }
            Some(_) => return Err(reused(format!("the id of event {index} (from 0)"))),
        }
    }
    Ok(events)
}

fn reused(what: String) -> AcceptError {
    AcceptError::Reused { what }
}

fn identity_of_claim(claim: &IdempotencyClaim) -> Identity {
    (claim.principal.clone(), claim.key.clone())
}

fn identity_of_event(event: &AcceptedEvent) -> Identity {
    (event.source.clone(), event.id.clone())
}

/// The headers of an answer as text, for a column.
pub(super) fn encode_headers(answer: &StoredAnswer) -> String {
    serde_json::to_string(&answer.headers)
        .unwrap_or_else(|_| unreachable!("strings always serialise"))
}

/// Refuses text that neither database can hold as it is.
///
/// # Errors
/// [`AcceptError::Rejected`] if an attribute or the key contains a zero character.
pub(super) fn check_text(request: &AcceptRequest) -> Result<(), AcceptError> {
    let of_events = request.events.iter().flat_map(|event| {
        let AcceptedEvent { source, id, ty, .. } = event;
        [source, id, ty]
    });
    let of_claim = request
        .idempotency
        .iter()
        .flat_map(|claim| [&claim.principal, &claim.key]);
    match of_events.chain(of_claim).any(|text| text.contains('\0')) {
        true => Err(AcceptError::Rejected(
            "an attribute of an event or the Idempotency-Key has a zero character".to_owned(),
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{answer, claim, event, request};
    use super::*;

    fn kinds(plan: &Plan<'_>) -> Vec<&'static str> {
        let kind = |outcome: &Outcome| match outcome {
            Ok(Accepted::New) => "new",
            Ok(Accepted::Repeated(_)) => "repeated",
            Err(AcceptError::Reused { .. }) => "reused",
            Err(AcceptError::InProgress) => "in progress",
            Err(_) => "other",
        };
        plan.outcomes.iter().map(kind).collect()
    }

    #[test]
    fn an_event_without_a_fingerprint_is_refused() {
        let mut request = request(vec![event("k", "1", "1")]);
        request.events[0].fingerprint = [0; 32];
        let plan = Plan::of([&request].into_iter(), Known::default());
        assert_eq!((kinds(&plan), plan.events.len()), (vec!["other"], 0));
    }

    #[test]
    fn later_requests_of_a_group_see_the_earlier_ones() {
        let keyed = |key: &str, content: u8, id: &str| {
            let mut request = request(vec![event("k", id, "1")]);
            request.idempotency = Some(claim("caller", key, content));
            request
        };
        let group = [
            keyed("a", 1, "1"),
            keyed("a", 1, "1"),
            keyed("a", 2, "2"),
            keyed("b", 1, "1"),
            keyed("busy", 1, "3"),
        ];
        let mut known = Known::default();
        known.add_under_way(&claim("caller", "busy", 1));
        let plan = Plan::of(group.iter(), known);
        assert_eq!(
            kinds(&plan),
            ["new", "repeated", "reused", "new", "in progress"]
        );
        // The second request with another key has the same event: its key is kept, and no record.
        assert_eq!((plan.requests.len(), plan.events.len()), (2, 1));
    }

    #[test]
    fn a_batch_with_a_reused_id_writes_nothing() {
        let group = [
            request(vec![event("k", "1", "one")]),
            request(vec![event("k", "2", "two"), event("k", "1", "other")]),
            request(vec![event("k", "3", "a"), event("k", "3", "b")]),
            request(vec![event("k", "4", "a"), event("k", "4", "a")]),
        ];
        let plan = Plan::of(group.iter(), Known::default());
        assert_eq!(kinds(&plan), ["new", "reused", "reused", "new"]);
        let ids: Vec<_> = plan.events.iter().map(|event| event.id.as_str()).collect();
        assert_eq!(ids, ["1", "4"]);
        let reason = plan.outcomes[1]
            .as_ref()
            .expect_err("it is reused")
            .to_string();
        assert!(reason.contains("event 1"), "{reason}");
    }

    #[test]
    fn only_an_accepting_answer_is_kept() {
        for (status, kept) in [(202, 1), (200, 1), (503, 0), (422, 0), (199, 0)] {
            let mut refused = request(vec![event("k", "1", "one")]);
            refused.idempotency = Some(claim("caller", "a", 1));
            refused.answer = StoredAnswer { status, ..answer() };
            let group = [refused];
            let plan = Plan::of(group.iter(), Known::default());
            assert_eq!(plan.requests.len(), kept, "{status}");
        }
    }

    #[test]
    fn stored_headers_are_restored_or_refused() {
        let mut known = Known::default();
        let identity = || ("caller".to_owned(), "a".to_owned());
        for (status, headers, is_ok) in [
            (202, encode_headers(&answer()), true),
            (-1, "[]".to_owned(), false),
            (202, "{".to_owned(), false),
        ] {
            let added = known.add_request(identity(), vec![1; 32], status, &headers, Vec::new());
            assert_eq!(added.is_ok(), is_ok, "{status} {headers}");
        }
        let repeated = known.answer(&claim("caller", "a", 1)).expect("a known key");
        let Ok(Accepted::Repeated(stored)) = repeated else {
            panic!("not repeated: {repeated:?}");
        };
        assert_eq!(stored.headers, answer().headers);
    }
}

//! The loop of a writer.
//!
//! Owns the retries of a group, and what a failure means for its requests. Knows no database: a
//! [`GroupStore`] writes a group in one transaction.
//!
//! # Retries
//! Every request has identities (its event ids, at least), so a group may be written again after a
//! commit of unknown result: what was committed is recognised as accepted.

use super::error::AcceptError;
use super::plan::Outcome;
use super::queue::{Group, RecordKey, Waiting};
use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;

/// How often a group is written that collided with another transaction, or whose commit has an
/// unknown result.
const ATTEMPTS_MAX: u32 = 3;

/// Why a group was not written.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) source: Arc<dyn Error + Send + Sync>,
}

/// What a failure means for the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The content of a request is refused. Others of the group may pass alone.
    Refused,
    /// A request waits for a lock of another transaction. Others of the group may pass alone.
    Blocked,
    /// Another transaction was in the way, and is over. The group may pass at once.
    Collided,
    /// The store does not answer, or needs an operator. Nothing was written.
    Unavailable,
    /// The store did not answer the commit.
    Unknown,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let source: Box<dyn Error + Send + Sync> = source.into();
        Self {
            kind,
            source: source.into(),
        }
    }

    fn to_error(&self) -> AcceptError {
        let source = Box::new(Arc::clone(&self.source));
        match self.kind {
            FailureKind::Refused => {
                let reason = "the store cannot hold one of the events; an attribute is too long";
                AcceptError::Rejected(reason.to_owned())
            }
            FailureKind::Unknown => AcceptError::Unknown { source },
            FailureKind::Blocked | FailureKind::Collided | FailureKind::Unavailable => {
                AcceptError::Unavailable {
                    doing: "writing the events",
                    source,
                }
            }
        }
    }

    /// Whether the requests of the group may pass one by one.
    fn is_of_one_request(&self) -> bool {
        use FailureKind::{Blocked, Collided, Refused};
        matches!(self.kind, Blocked | Collided | Refused)
    }
}

/// What a writer needs of its store.
pub(super) trait GroupStore: Send + Sync + 'static {
    /// Its name for logs.
    const NAME: &'static str;

    /// Writes a group in one transaction, and returns the answer to each request that is left in
    /// it. Called by one writer task, or several of them with different groups. Calls
    /// [`Group::claim`] once the transaction has begun. Must return in bounded time.
    fn write(
        &self,
        group: &mut Group,
    ) -> impl Future<Output = Result<Vec<Outcome>, Failure>> + Send;
}

/// Writes groups until the queue is closed and empty.
pub(super) async fn write_groups<S: GroupStore>(store: Arc<S>, mut waiting: Waiting) {
    let mut is_available = true;
    while let Some(group) = waiting.next_group().await {
        let written = Box::pin(write(&*store, group)).await;
        match written {
            Ok(()) if !is_available => {
                tracing::info!(store = S::NAME, "the store accepts events again");
            }
            Err(failure) if is_available => {
                let error = failure.source;
                tracing::error!(store = S::NAME, %error, "the store accepts no events");
            }
            _ => {
                continue;
            }
        }
        is_available = !is_available;
    }
}

/// Writes a group and answers it: whole, or request by request if one of them is in the way.
///
/// # Errors
/// The failure of a store that does not answer, for the log.
async fn write<S: GroupStore>(store: &S, group: Group) -> Result<(), Failure> {
    let Err((group, failure)) = attempt(store, group).await else {
        return Ok(());
    };
    if !failure.is_of_one_request() || group.len() < 2 {
        group.fail(|| failure.to_error());
        return if failure.is_of_one_request() {
            Ok(())
        } else {
            Err(failure)
        };
    }
    let mut outage: Option<Failure> = None;
    // By key, so that the requests of one key wait for its lock once.
    let mut blocked: HashMap<RecordKey, Failure> = HashMap::new();
    for one in group.one_by_one() {
        // No result is unknown so far: nothing of this request was written.
        if one.is_abandoned() {
            continue;
        }
        // The others need not find out one after the other.
        if let Some(outage) = &outage {
            let unavailable = Failure {
                kind: FailureKind::Unavailable,
                ..outage.clone()
            };
            one.fail(|| unavailable.to_error());
            continue;
        }
        let earlier = one.record_keys().find_map(|key| blocked.get(&key));
        if let Some(earlier) = earlier {
            one.fail(|| earlier.to_error());
            continue;
        }
        if let Err((one, failure)) = attempt(store, one).await {
            if failure.kind == FailureKind::Blocked {
                blocked.extend(one.record_keys().map(|key| (key, failure.clone())));
            }
            one.fail(|| failure.to_error());
            outage = Some(failure).filter(|failure| !failure.is_of_one_request());
        }
    }
    outage.map_or(Ok(()), Err)
}

/// Writes and answers a group, again after a collision or a commit of unknown result.
///
/// # Errors
/// The unanswered group, and the last failure; [`FailureKind::Unknown`] if any commit was unknown.
async fn attempt<S: GroupStore>(store: &S, mut group: Group) -> Result<(), (Group, Failure)> {
    let mut is_unknown = false;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let mut failure = match Box::pin(store.write(&mut group)).await {
            Ok(outcomes) => {
                group.answer(outcomes);
                return Ok(());
            }
            Err(failure) => failure,
        };
        is_unknown |= failure.kind == FailureKind::Unknown;
        let may_pass = matches!(failure.kind, FailureKind::Collided | FailureKind::Unknown);
        if !may_pass || attempts == ATTEMPTS_MAX {
            if is_unknown {
                failure.kind = FailureKind::Unknown;
            }
            return Err((group, failure));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{event, request};
    use super::super::port::{AcceptRequest, Accepted};
    use super::super::queue::{Queue, Room, size};
    use super::*;
    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::time::Duration;
    use tokio::time::Instant;

    /// A store that takes a second for a group, and fails as told.
    #[derive(Default)]
    struct Slow {
        failures: Mutex<VecDeque<FailureKind>>,
        /// The ids of each group that was written.
        written: Mutex<Vec<Vec<String>>>,
        /// The id that it refuses.
        refused: Option<&'static str>,
        /// The record key whose lock another transaction has.
        blocked: Option<&'static str>,
    }

    impl GroupStore for Slow {
        const NAME: &'static str = "slow";

        async fn write(&self, group: &mut Group) -> Result<Vec<Outcome>, Failure> {
            group.claim();
            let ids = group.requests().map(|request| request.events[0].id.clone());
            let ids: Vec<String> = ids.collect();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let failure = self.failures.lock().expect("no panic").pop_front();
            if let Some(kind) = failure {
                return Err(Failure::new(kind, "as told"));
            }
            if ids.iter().any(|id| Some(id.as_str()) == self.refused) {
                return Err(Failure::new(FailureKind::Refused, "as told"));
            }
            let is_blocked = group.record_keys().any(|(_, key)| {
                let blocked = self.blocked.map(str::as_bytes);
                blocked.is_some() && key.as_deref() == blocked
            });
            if is_blocked {
                return Err(Failure::new(FailureKind::Blocked, "as told"));
            }
            self.written.lock().expect("no panic").push(ids);
            Ok(group.requests().map(|_| Ok(Accepted::New)).collect())
        }
    }

    fn start(store: Slow, requests_max: usize, bytes_max: usize) -> (Arc<Slow>, Queue) {
        let store = Arc::new(store);
        let (queue, waiting) = Queue::new(requests_max, Arc::new(Room::new(bytes_max)));
        tokio::spawn(write_groups(Arc::clone(&store), waiting));
        (store, queue)
    }

    fn of_id(id: &str) -> AcceptRequest {
        request(vec![event("k", id, "1")])
    }

    fn kind(outcome: &Outcome) -> &'static str {
        match outcome {
            Ok(_) => "accepted",
            Err(AcceptError::Full { .. }) => "full",
            Err(AcceptError::DeadlineExceeded) => "deadline",
            Err(AcceptError::Rejected(_)) => "rejected",
            Err(AcceptError::Unavailable { .. }) => "unavailable",
            Err(AcceptError::Unknown { .. }) => "unknown",
            Err(_) => "other",
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_wait_share_a_transaction_in_order() {
        let (store, queue) = start(Slow::default(), 100, 1 << 20);
        let requests = (0..5).map(|n| queue.submit(of_id(&n.to_string())));
        let outcomes = join_all(requests).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        let written = store.written.lock().expect("no panic").concat();
        assert_eq!(written, ["0", "1", "2", "3", "4"]);
        assert!(
            store.written.lock().expect("no panic").len() < 5,
            "they were grouped"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_at_once() {
        for (requests_max, bytes_max) in [(2, 1 << 20), (100, 2 * size(&of_id("0")))] {
            let (_store, queue) = start(Slow::default(), requests_max, bytes_max);
            let outcomes = join_all((0..4).map(|n| queue.submit(of_id(&n.to_string())))).await;
            let kinds: Vec<_> = outcomes.iter().map(kind).collect();
            assert_eq!(kinds, ["accepted", "accepted", "full", "full"]);
            // Room that was used is free again.
            assert_eq!(kind(&queue.submit(of_id("5")).await), "accepted");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_withdraws_only_what_is_not_taken() {
        for (first_within_ms, second_within_ms, expected) in [
            (5_000, 5_000, ["accepted", "accepted"]),
            (500, 5_000, ["unknown", "accepted"]),
            (5_000, 500, ["accepted", "deadline"]),
            (0, 5_000, ["deadline", "accepted"]),
        ] {
            let (_store, queue) = start(Slow::default(), 100, 1 << 20);
            let within = |id: &str, millis| {
                let mut request = of_id(id);
                request.deadline = Some(Instant::now() + Duration::from_millis(millis));
                request
            };
            let second = within("2", second_within_ms);
            let first = queue.submit(within("1", first_within_ms));
            let second = async {
                // The writer has taken the first meanwhile.
                tokio::time::sleep(Duration::from_millis(100)).await;
                queue.submit(second).await
            };
            let (first, second) = tokio::join!(first, second);
            assert_eq!([kind(&first), kind(&second)], expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_request_is_withdrawn() {
        let (store, queue) = start(Slow::default(), 100, 1 << 20);
        let first = queue.submit(of_id("1"));
        let dropped = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let waiting = queue.submit(of_id("2")).now_or_never();
            assert!(waiting.is_none(), "it is queued");
            queue.submit(of_id("3")).await
        };
        let (first, third) = tokio::join!(first, dropped);
        assert_eq!([kind(&first), kind(&third)], ["accepted", "accepted"]);
        let written = store.written.lock().expect("no panic").concat();
        assert_eq!(written, ["1", "3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_refused_request_does_not_fail_its_group() {
        let store = Slow {
            refused: Some("1"),
            ..Slow::default()
        };
        let (_store, queue) = start(store, 100, 1 << 20);
        let outcomes = join_all((0..4).map(|n| queue.submit(of_id(&n.to_string())))).await;
        let kinds: Vec<_> = outcomes.iter().map(kind).collect();
        assert_eq!(kinds, ["accepted", "rejected", "accepted", "accepted"]);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_a_blocked_key_wait_for_it_once() {
        let store = Slow {
            blocked: Some("busy"),
            ..Slow::default()
        };
        let (_store, queue) = start(store, 100, 1 << 20);
        let began = Instant::now();
        let keys = [("free", "1"), ("busy", "2"), ("busy", "3"), ("free", "4")];
        let requests = keys.map(|(key, id)| queue.submit(request(vec![event(key, id, "1")])));
        let outcomes = join_all(requests).await;
        let kinds: Vec<_> = outcomes.iter().map(kind).collect();
        assert_eq!(
            kinds,
            ["accepted", "unavailable", "unavailable", "accepted"]
        );
        // The group, two that are free, and one of the key, a second each.
        assert_eq!(began.elapsed().as_secs(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_caller_is_not_tried_alone() {
        let store = Slow {
            refused: Some("1"),
            ..Slow::default()
        };
        let (store, queue) = start(store, 100, 1 << 20);
        let mut impatient = of_id("2");
        // It ends while the first is tried alone.
        impatient.deadline = Some(Instant::now() + Duration::from_millis(1_500));
        let requests = [of_id("1"), impatient, of_id("3")].map(|request| queue.submit(request));
        let outcomes = join_all(requests).await;
        let kinds: Vec<_> = outcomes.iter().map(kind).collect();
        assert_eq!(kinds, ["rejected", "unknown", "accepted"]);
        assert_eq!(store.written.lock().expect("no panic").concat(), ["3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_repeated_only_if_that_may_help() {
        use FailureKind::{Blocked, Collided, Refused, Unavailable, Unknown};
        for (failures, expected) in [
            (vec![Collided, Collided], "accepted"),
            (vec![Collided, Collided, Collided], "unavailable"),
            (vec![Unknown], "accepted"),
            (vec![Unknown, Unavailable], "unknown"),
            (vec![Unavailable], "unavailable"),
            (vec![Blocked], "unavailable"),
            (vec![Refused], "rejected"),
        ] {
            let told = failures.clone();
            let store = Slow {
                failures: Mutex::new(failures.into()),
                ..Slow::default()
            };
            let (_store, queue) = start(store, 100, 1 << 20);
            assert_eq!(kind(&queue.submit(of_id("1")).await), expected, "{told:?}");
            assert_eq!(
                kind(&queue.submit(of_id("2")).await),
                "accepted",
                "{told:?}"
            );
        }
    }
}

//! [`Admission`] and its permits: the locks and the clock around the decisions.
//!
//! Knows the principal and the context of a request; knows no route, and of a body only that it has
//! a place.

use super::concurrency_limit::Sample;
use super::decision::{Candidate, Decision};
use super::rate_limit::RateLimit;
use super::refusal::Refusal;
use super::retry_after::RetryKey;
use super::settings::AdmissionSettings;
use super::telemetry::{ConcurrencyMeasured, Telemetry};
use super::uploads::{NoPlace, UploadPlace, Uploads};
use crate::access::Principal;
use crate::http::{Problem, RequestContext};
use crate::store::Backlog;
use axum::http::StatusCode;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The shortest wait of a caller whose body finds no place. The longest is three times as long.
const UPLOAD_WAIT: Duration = Duration::from_secs(1);

/// Decides which requests are served. Clones share everything.
///
/// A decision takes one short lock, two with a rate, and no await.
///
/// ```
/// use evenkeel_gateway::access::{Principal, Rights};
/// use evenkeel_gateway::admission::{Admission, AdmissionSettings, Outcome};
/// use evenkeel_gateway::http::RequestContext;
/// use evenkeel_gateway::store::Backlog;
///
/// let admission = Admission::new(AdmissionSettings::outbox(), Backlog::default);
/// let principal = Principal::new("shop", Rights::all());
/// let context = RequestContext::from_headers(&Default::default(), "gateway-1".into())?;
/// let permit = admission.try_admit(&principal, &context)?;
/// assert_eq!(admission.in_flight(), 1);
/// // The request is served.
/// permit.finish(Outcome::Accepted);
/// assert_eq!(admission.in_flight(), 0);
/// # Ok::<(), evenkeel_gateway::http::Problem>(())
/// ```
#[derive(Clone)]
pub struct Admission {
    shared: Arc<Shared>,
}

struct Shared {
    settings: AdmissionSettings,
    backlog: Box<dyn Fn() -> Backlog + Send + Sync>,
    /// Random, so that no caller can choose keys that collide.
    hasher: RandomState,
    decision: Mutex<Decision>,
    rates: Mutex<RateLimit>,
    uploads: Uploads,
    telemetry: Telemetry,
}

impl Admission {
    /// Creates the admission of a gateway. `backlog` is called for every request and must be cheap:
    /// see [`AcceptStore::backlog`](crate::store::AcceptStore::backlog).
    ///
    /// The recorder of metrics must be installed before.
    pub fn new(
        settings: AdmissionSettings,
        backlog: impl Fn() -> Backlog + Send + Sync + 'static,
    ) -> Self {
        let settings = settings.in_range();
        let shared = Shared {
            backlog: Box::new(backlog),
            hasher: RandomState::new(),
            decision: Mutex::new(Decision::new(&settings, Instant::now())),
            rates: Mutex::new(RateLimit::new(&settings)),
            uploads: Uploads::new(&settings),
            telemetry: Telemetry::new(),
            settings,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Admits a request without a key of its own, or refuses it.
    ///
    /// # Errors
    /// See [`try_admit_keyed`](Self::try_admit_keyed).
    pub fn try_admit(
        &self,
        principal: &Principal,
        context: &RequestContext,
    ) -> Result<Permit, Problem> {
        self.try_admit_keyed(principal, context, None)
    }

    /// Admits a request, or refuses it. `key` is its `Idempotency-Key` or the id of its event: a
    /// refused request that comes back with the same key at the time that it was told goes before
    /// new ones. Without a key, any request of the same caller uses the place.
    ///
    /// # Errors
    /// A problem with `Retry-After`, of the kind
    /// [`RateLimited`](crate::http::ProblemKind::RateLimited) or
    /// [`Overloaded`](crate::http::ProblemKind::Overloaded); or
    /// [`DeadlineExceeded`](crate::http::ProblemKind::DeadlineExceeded), if the deadline passed or
    /// is shorter than requests normally take. Nothing was accepted.
    pub fn try_admit_keyed(
        &self,
        principal: &Principal,
        context: &RequestContext,
        key: Option<&str>,
    ) -> Result<Permit, Problem> {
        self.try_rate(principal)?;
        self.try_permit(principal, context, key)
    }

    /// Takes a request of the caller's rate. Needs the head of a request only.
    ///
    /// # Errors
    /// A problem with `Retry-After` if the caller exceeds its rate. Nothing was accepted.
    pub(crate) fn try_rate(&self, principal: &Principal) -> Result<(), Problem> {
        let shared = &*self.shared;
        let Some(rate) = self.rate(principal) else {
            return Ok(());
        };
        let taken = shared
            .rates()
            .try_take(&principal.name, rate, Instant::now());
        taken.map_err(|wait| shared.refused(Refusal::Rate { wait }))
    }

    /// Admits a request that passed [`try_rate`](Self::try_rate), or refuses it. See
    /// [`try_admit_keyed`](Self::try_admit_keyed).
    ///
    /// # Errors
    /// Those of [`try_admit_keyed`](Self::try_admit_keyed), but for the rate.
    pub(crate) fn try_permit(
        &self,
        principal: &Principal,
        context: &RequestContext,
        key: Option<&str>,
    ) -> Result<Permit, Problem> {
        let now = Instant::now();
        if let Err(refusal) = self.decide(principal, context, key, now) {
            self.give_back_rate(principal);
            return Err(self.shared.refused(refusal));
        }
        Ok(Permit {
            admission: self.clone(),
            admitted: now,
            is_released: false,
        })
    }

    /// The time at which a request is given up: its own deadline, or the most that a request may
    /// take.
    pub fn deadline(&self, context: &RequestContext) -> Instant {
        let latest = Instant::now() + self.shared.settings.request_time_max;
        context
            .deadline
            .map_or(latest, |deadline| deadline.min(latest))
    }

    /// The most bytes of a body that is read.
    pub(crate) fn body_bytes_max(&self) -> usize {
        self.shared.settings.body_bytes_max
    }

    /// The settings, with every value in its range.
    pub(super) fn settings(&self) -> &AdmissionSettings {
        &self.shared.settings
    }

    /// A place for a body that arrives, until it is dropped.
    ///
    /// # Errors
    /// A problem with `Retry-After` if there is none, or the caller has its share. Nothing was
    /// accepted.
    pub(super) fn try_upload(&self, principal: &Principal) -> Result<UploadPlace<'_>, Problem> {
        self.shared.uploads.try_take(&principal.name).map_err(|no| {
            let wait = UPLOAD_WAIT.mul_f64(1.0 + 2.0 * rand::random::<f64>());
            self.give_back_rate(principal);
            self.shared.refused(match no {
                NoPlace::Full => Refusal::Uploads { wait },
                NoPlace::CallerFull => Refusal::UploadsOfCaller { wait },
            })
        })
    }

    /// The concurrency limit at present.
    pub fn limit(&self) -> u32 {
        self.shared.decision().measured().limit
    }

    /// Admitted requests in progress.
    pub fn in_flight(&self) -> u32 {
        self.shared.decision().measured().in_flight
    }

    fn decide(
        &self,
        principal: &Principal,
        context: &RequestContext,
        key: Option<&str>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let shared = &*self.shared;
        let candidate = Candidate {
            key: RetryKey {
                hash: shared.hasher.hash_one((&*principal.name, key)),
                is_unique: key.is_some(),
            },
            time_left: context.deadline.map(|at| at.saturating_duration_since(now)),
            backlog: (shared.backlog)(),
            random: rand::random(),
        };
        shared.telemetry.backlog_measured(&candidate.backlog);
        let (decided, measured) = {
            let mut decision = shared.decision();
            (decision.admit(&candidate, now), decision.measured())
        };
        shared.telemetry.concurrency_measured(measured);
        decided
    }

    /// The rate of this caller, if it has one.
    fn rate(&self, principal: &Principal) -> Option<u32> {
        principal.rate.or(self.shared.settings.rate_default)
    }

    /// Returns what a request took of its caller's rate that is refused for another reason. Else a
    /// caller that comes back as told can lack a token.
    fn give_back_rate(&self, principal: &Principal) {
        if self.rate(principal).is_some() {
            self.shared.rates().give_back(&principal.name);
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn decision(&self) -> MutexGuard<'_, Decision> {
        self.decision.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal, and makes its answer.
    fn refused(&self, refusal: Refusal) -> Problem {
        self.telemetry.request_refused(refusal.reason());
        Problem::from(refusal)
    }

    fn rates(&self) -> MutexGuard<'_, RateLimit> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, sample: Sample, now: Instant) {
        let measured: ConcurrencyMeasured = {
            let mut decision = self.decision();
            decision.release(sample, now);
            decision.measured()
        };
        self.telemetry.concurrency_measured(measured);
    }
}

/// How an admitted request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Its events are durable. Its duration counts as a latency.
    Accepted,
    /// The store or the brokers did not take it. The concurrency limit shrinks.
    Refused,
    /// It was not done within its deadline. The limit shrinks, unless the deadline was shorter than
    /// requests normally take.
    TimedOut,
    /// It failed for a reason of its own, such as an invalid event. Counts for nothing.
    Failed,
}

impl Outcome {
    /// The outcome of a request with an answer of this status. For gRPC, the status is that of the
    /// [`ProblemKind`](crate::http::ProblemKind::status).
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::SERVICE_UNAVAILABLE => Self::Refused,
            StatusCode::GATEWAY_TIMEOUT => Self::TimedOut,
            status if status.is_success() => Self::Accepted,
            _ => Self::Failed,
        }
    }
}

/// The right of a request to be served: one place of the concurrency limit. Dropped without
/// [`finish`](Self::finish), the request counts as cancelled, and its duration for nothing.
#[must_use = "a dropped permit cancels its request"]
pub struct Permit {
    admission: Admission,
    admitted: Instant,
    is_released: bool,
}

impl Permit {
    /// Releases the place, and learns from how the request ended.
    pub fn finish(mut self, outcome: Outcome) {
        self.is_released = true;
        let now = Instant::now();
        let duration = now.saturating_duration_since(self.admitted);
        let sample = match outcome {
            Outcome::Accepted => Sample::Latency(duration),
            Outcome::Refused => Sample::Dropped,
            Outcome::TimedOut => Sample::TimedOut(duration),
            Outcome::Failed => Sample::Ignored,
        };
        self.admission.shared.release(sample, now);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_released {
            let now = Instant::now();
            self.admission.shared.release(Sample::Ignored, now);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("admitted", &self.admitted)
            .finish_non_exhaustive()
    }
}

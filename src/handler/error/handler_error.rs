//! Handler errors and their classes.

use crate::failure::panics::{caught, drop_caught};
use crate::failure::{CAUSES_MAX, Class, DeadReason, Stage};
use crate::handler::deadline::TooSlow;
use crate::publisher::PublishError;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Returns the class of an error that its handler did not classify. Set by
/// [`Consumer::with_classifier`](crate::consumer::Consumer::with_classifier); the default is
/// [`default_classifier`](super::default_classifier).
///
/// Called by the consumer's workers when an attempt failed, with the error that the handler
/// returned; its causes are behind [`Error::source`]. It must not block, and must return the same
/// class for the same error: the class decides between a retry, an outage and a dead letter. A
/// panic in it makes the failure permanent.
pub type Classifier = Arc<dyn Fn(&(dyn Error + Send + Sync + 'static)) -> Class + Send + Sync>;

/// A handler's failure: any error, with or without a class.
///
/// `?` converts every standard error (and `anyhow::Error`) into one whose class the consumer's
/// classifier decides. The type does not implement [`Error`] itself, because that would forbid this
/// conversion.
///
/// Printing or dropping it never panics, even if the error inside does.
///
/// | created by | class | the record |
/// |---|---|---|
/// | `?` | of the classifier | by its class |
/// | [`transient`](Self::transient) | transient | retried in place and in the retry topic |
/// | [`permanent`](Self::permanent) | permanent | dead-lettered at once |
/// | [`outage`](Self::outage) | outage | retried until the outage ends |
/// | [`timeout`](Self::timeout) | timeout | retried; as an outage if most records time out |
///
/// Its [`message`](Self::message) is written into the dead letter: keep payloads and secrets out of
/// the texts of errors.
///
/// ```no_run
/// use evenkeel::handler::HandlerError;
///
/// async fn read(path: &str) -> Result<String, HandlerError> {
///     let text = std::fs::read_to_string(path)?; // the classifier decides
///     if text.is_empty() {
///         return Err(HandlerError::permanent("the file is empty"));
///     }
///     Ok(text)
/// }
/// ```
#[must_use = "return it from the handler"]
pub struct HandlerError {
    class: Option<Class>,
    stage: Stage,
    dependency: Option<Cow<'static, str>>,
    source: Source,
    /// Several events failed together, and the one that caused it is not known.
    is_shared: bool,
    /// The store kept nothing of the delivery because of another transaction: it is handled again
    /// at once.
    is_collision: bool,
    /// The minimum wait before the next attempt.
    retry_after: Option<Duration>,
}

/// The error itself. A panic in its drop is caught.
#[derive(Clone)]
struct Source(Option<Arc<dyn Error + Send + Sync>>);

/// Placeholder of an error that was dropped.
#[derive(Debug, thiserror::Error)]
#[error("the error was dropped")]
struct DroppedError;

impl Source {
    fn new(source: Box<dyn Error + Send + Sync>) -> Self {
        Self(Some(source.into()))
    }

    fn get(&self) -> &(dyn Error + Send + Sync + 'static) {
        self.0.as_deref().unwrap_or(&DroppedError)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(source) = self.0.take() {
            drop_caught("dropping an error", source);
        }
    }
}

/// The facts of a failed attempt's error, without the error: after its creation no code of the
/// service runs.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) class: Class,
    /// [`Stage::Panic`] if the error's own code or the classifier panicked.
    pub(crate) stage: Stage,
    pub(crate) message: String,
    pub(crate) dependency: Cow<'static, str>,
    /// The minimum wait before the next attempt.
    pub(crate) retry_after: Option<Duration>,
    /// Why the process must end, if the error requires that.
    pub(crate) fatal: Option<String>,
}

/// The name of a failed dependency that no error names.
const UNNAMED_DEPENDENCY: Cow<'static, str> = Cow::Borrowed("unnamed");

impl HandlerError {
    /// A failure that may pass by itself. The record is retried in place and in the retry topic,
    /// and dead-lettered when its attempts are used up.
    pub fn transient(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::with_class(Class::Transient, source.into())
    }

    /// A failure that would repeat. The record is dead-lettered at once.
    pub fn permanent(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::with_class(Class::Permanent, source.into())
    }

    /// A dependency of the handler is down. The record is retried until the outage ends, and no
    /// attempt is counted. Name the dependency with [`HandlerError::dependency`].
    pub fn outage(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::with_class(Class::Outage, source.into())
    }

    /// A dependency of the handler did not answer in time. The breaker of the dependency decides
    /// whether it is slow for this record only, which counts an attempt, or down. Name it with
    /// [`HandlerError::dependency`].
    pub fn timeout(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::with_class(Class::Timeout, source.into())
    }

    fn with_class(class: Class, source: Box<dyn Error + Send + Sync>) -> Self {
        Self {
            class: Some(class),
            stage: Stage::Handler,
            dependency: None,
            source: Source::new(source),
            is_shared: false,
            is_collision: false,
            retry_after: None,
        }
    }

    /// The same error for one of several events that failed together. The event that caused the
    /// failure is not known, so no event is dead-lettered for it: a permanent error counts as
    /// transient.
    pub(in crate::handler) fn shared(&self) -> Self {
        Self {
            class: self.class,
            stage: self.stage,
            dependency: self.dependency.clone(),
            source: self.source.clone(),
            is_shared: true,
            is_collision: self.is_collision,
            retry_after: self.retry_after,
        }
    }

    /// Marks the failure as a collision with another transaction.
    pub(in crate::handler) fn collided(mut self) -> Self {
        self.is_collision = true;
        self
    }

    /// Whether another transaction was in the way.
    pub(in crate::handler) fn is_collision(&self) -> bool {
        self.is_collision
    }

    /// The handler's error.
    pub(in crate::handler) fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        self.source.get()
    }

    /// Names the dependency that the error is about. Each dependency has a breaker of its own, and
    /// its name appears in logs, health and metrics. Use few fixed names such as
    /// `payment-provider`: each name is a label value of a metric. The library itself uses `inbox`,
    /// `kafka` and `router`.
    ///
    /// ```
    /// use evenkeel::handler::HandlerError;
    ///
    /// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    /// let error = HandlerError::from(refused).dependency("payment-provider");
    /// assert_eq!(error.dependency_name(), "payment-provider");
    /// ```
    pub fn dependency(mut self, dependency: impl Into<Cow<'static, str>>) -> Self {
        self.dependency = Some(dependency.into());
        self
    }

    /// Sets the minimum wait before the next attempt, as a `Retry-After` header requests it. The
    /// wait in place or in the retry topic is at least this long, but no longer than the longest
    /// wait of the [`RetryPolicy`](crate::recovery::RetryPolicy) (10 minutes by default). It does
    /// not change the class, and the attempt counts like any other. After an outage the breaker
    /// decides when to retry, and an operator's `retry-now` retries at once.
    ///
    /// ```
    /// use evenkeel::handler::{HandlerError, HttpStatus};
    /// use std::time::Duration;
    ///
    /// fn too_many_requests(retry_after_s: u64) -> HandlerError {
    ///     HandlerError::from(HttpStatus(429)).retry_after(Duration::from_secs(retry_after_s))
    /// }
    /// # too_many_requests(5);
    /// ```
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The failed dependency, as [`HandlerError::dependency`] named it. Errors without a name share
    /// the name `unnamed`.
    pub fn dependency_name(&self) -> &str {
        self.dependency.as_deref().unwrap_or(&UNNAMED_DEPENDENCY)
    }

    /// Sets the stage at which the error happened. Default: [`Stage::Handler`], and
    /// [`Stage::Timeout`] for a timeout of the consumer or of a `tower` layer. The dead letter
    /// names it; it does not change the class.
    pub fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    /// The class that the handler set, or else the class that `classifier` returns.
    pub fn class(&self, classifier: &Classifier) -> Class {
        let class = self.class;
        match class.unwrap_or_else(|| classifier(self.source.get())) {
            Class::Permanent if self.is_shared => Class::Transient,
            class => class,
        }
    }

    /// The facts that the consumer needs. Everything that runs code of the service happens here, in
    /// one place, with each panic caught. A known class is kept if the error's own code panics. If
    /// the classifier panics, the failure is permanent, because the classifier would panic again.
    pub(crate) fn into_failure(mut self, classifier: &Classifier) -> Failure {
        let mut panics = Vec::new();
        let class = caught("the classifier", || self.class(classifier));
        let class = class.unwrap_or_else(|reason| {
            panics.push(reason.message);
            Class::Permanent
        });
        let mut message = self.render().unwrap_or_else(|reason| {
            panics.push(reason.message);
            String::new()
        });
        let fatal = match self.source.get().downcast_ref::<PublishError>() {
            Some(error @ PublishError::Fatal(_)) => Some(error.to_string()),
            _ => None,
        };
        let source = self.source.0.take();
        if let Err(reason) = caught("dropping the error", || drop(source)) {
            panics.push(reason.message);
        }
        let mut stage = self.stage;
        if !panics.is_empty() {
            stage = Stage::Panic;
            panics.extend((!message.is_empty()).then_some(message));
            message = panics.join("; ");
        }
        Failure {
            class,
            stage,
            message,
            dependency: self.dependency.take().unwrap_or(UNNAMED_DEPENDENCY),
            retry_after: self.retry_after,
            fatal,
        }
    }

    /// The stage at which it happened.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The error and its causes in one line, separated by colons. A cause whose text ends the text
    /// before it is omitted, since many errors repeat their source. If its `Display` or `source`
    /// panics, the message of that panic.
    pub fn message(&self) -> String {
        self.render().unwrap_or_else(|reason| reason.message)
    }

    fn render(&self) -> Result<String, DeadReason> {
        caught("the error's own Display or source", || {
            let source = self.source.get();
            let mut message = source.to_string();
            let causes = std::iter::successors(source.source(), |error| (*error).source());
            for error in causes.take(CAUSES_MAX) {
                let text = error.to_string();
                if !message.ends_with(&text) {
                    message.push_str(": ");
                    message.push_str(&text);
                }
            }
            message
        })
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for HandlerError {
    fn from(source: E) -> Self {
        let source: Box<dyn Error + Send + Sync> = source.into();
        let is_timeout = source.is::<TooSlow>() || source.is::<tower::timeout::error::Elapsed>();
        let stage = if is_timeout {
            Stage::Timeout
        } else {
            Stage::Handler
        };
        Self {
            class: None,
            stage,
            dependency: None,
            source: Source::new(source),
            is_shared: false,
            is_collision: false,
            retry_after: None,
        }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError")
            .field("class", &self.class)
            .field("stage", &self.stage)
            .field("message", &self.message())
            .finish()
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

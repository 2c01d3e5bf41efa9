//! Handler errors and the classes that decide what becomes of them.

use super::deadline::TooSlow;
use super::panics::{caught, drop_caught};
use super::{DeadReason, Stage};
use crate::publisher::PublishError;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// What kind of failure an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// May pass by itself: retried with backoff, dead-lettered when the attempts are used up.
    Transient,
    /// Will fail again the same way: dead-lettered at once.
    Permanent,
    /// Something the handler depends on is down: retried until it is back, no attempt is counted.
    Outage,
    /// No answer came in time. Where most attempts that need the same dependency fail like this it is an [`Outage`](Self::Outage);
    /// a record that is slow while others are not is retried as one that failed for now ([`Transient`](Self::Transient)).
    Timeout,
}

impl Class {
    /// The class's name in headers, metrics and listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Outage => "outage",
            Self::Timeout => "timeout",
        }
    }
}

/// Causes of an error that are told and classed, at most: a `source` may lead back to itself.
pub(super) const CAUSES_MAX: usize = 32;

/// Decides the class of an error that its handler did not class itself.
pub type Classifier = Arc<dyn Fn(&(dyn Error + Send + Sync + 'static)) -> Class + Send + Sync>;

/// A handler's failure: any error, with or without a class.
///
/// `?` turns every standard error (and `anyhow::Error`) into one that the consumer's classifier judges. It does not
/// implement [`Error`] itself, as that would forbid the conversion.
///
/// Printing or dropping it never panics, whatever the error in it does.
pub struct HandlerError {
    class: Option<Class>,
    stage: Stage,
    dependency: Option<Cow<'static, str>>,
    source: Source,
    /// Of several events that failed together, which is to blame is not known.
    is_shared: bool,
    /// The store kept nothing of it because of another transaction: it is to be handled again at once.
    is_collision: bool,
}

/// The error itself, whose drop is caught.
#[derive(Clone)]
struct Source(Option<Arc<dyn Error + Send + Sync>>);

/// Stands for an error that was dropped.
#[derive(Debug, thiserror::Error)]
#[error("the error was dropped")]
struct Gone;

impl Source {
    fn new(source: Box<dyn Error + Send + Sync>) -> Self {
        Self(Some(source.into()))
    }

    fn get(&self) -> &(dyn Error + Send + Sync + 'static) {
        self.0.as_deref().unwrap_or(&Gone)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(source) = self.0.take() {
            drop_caught("dropping an error", source);
        }
    }
}

/// All that a failed attempt's error has to say, without the error: none of the service's own code runs after it was made.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) class: Class,
    /// [`Stage::Panic`] where the error's own code or the classifier panicked.
    pub(crate) stage: Stage,
    pub(crate) message: String,
    pub(crate) dependency: Cow<'static, str>,
    /// Why the process has to end, if that is what the error means.
    pub(crate) fatal: Option<String>,
}

/// The name of what is down where no error names it.
const UNNAMED: Cow<'static, str> = Cow::Borrowed("unnamed");

impl HandlerError {
    /// A failure that may pass by itself.
    pub fn transient(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::classed(Class::Transient, source.into())
    }

    /// A failure that will repeat.
    pub fn permanent(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::classed(Class::Permanent, source.into())
    }

    /// Something that the handler depends on is down.
    pub fn outage(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::classed(Class::Outage, source.into())
    }

    /// Something that the handler depends on gave no answer in time; name it with [`HandlerError::of`].
    pub fn timeout(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::classed(Class::Timeout, source.into())
    }

    fn classed(class: Class, source: Box<dyn Error + Send + Sync>) -> Self {
        Self {
            class: Some(class),
            stage: Stage::Handler,
            dependency: None,
            source: Source::new(source),
            is_shared: false,
            is_collision: false,
        }
    }

    /// The same error for one of several events that failed together. Which of them is to blame is not known, so that none is
    /// given up for it: where it is permanent, it counts as transient.
    pub(super) fn shared(&self) -> Self {
        Self {
            class: self.class,
            stage: self.stage,
            dependency: self.dependency.clone(),
            source: self.source.clone(),
            is_shared: true,
            is_collision: self.is_collision,
        }
    }

    /// The same error, of a delivery that another transaction was in the way of.
    pub(super) fn collided(mut self) -> Self {
        self.is_collision = true;
        self
    }

    /// Whether another transaction was in the way.
    pub(super) fn is_collision(&self) -> bool {
        self.is_collision
    }

    /// The error that the handler met.
    pub(super) fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        self.source.get()
    }

    /// The same error, said to be about `dependency`: each has a breaker of its own, and its name stands in logs, health and
    /// metrics. Use few fixed names such as `payment-provider`.
    pub fn of(mut self, dependency: impl Into<Cow<'static, str>>) -> Self {
        self.dependency = Some(dependency.into());
        self
    }

    /// What it depends on and that failed, as [`HandlerError::of`] named it; errors without a name are taken together.
    pub fn dependency(&self) -> &str {
        self.dependency.as_deref().unwrap_or(&UNNAMED)
    }

    /// The same error, said to have happened at `stage`.
    pub fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    /// The class, by the handler's own word or else by `classifier`.
    pub fn class(&self, classifier: &Classifier) -> Class {
        let class = self.class;
        match class.unwrap_or_else(|| classifier(self.source.get())) {
            Class::Permanent if self.is_shared => Class::Transient,
            class => class,
        }
    }

    /// What the consumer has to know of it. A class that is known outlives a panic in the error's own code; where the classifier
    /// panics the failure is permanent, as it would panic again.
    pub(crate) fn judged(mut self, classifier: &Classifier) -> Failure {
        let mut panics = Vec::new();
        let class = caught("the classifier", || self.class(classifier));
        let class = class.unwrap_or_else(|reason| {
            panics.push(reason.message);
            Class::Permanent
        });
        let mut message = self.told().unwrap_or_else(|reason| {
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
            dependency: self.dependency.take().unwrap_or(UNNAMED),
            fatal,
        }
    }

    /// Where it happened.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The error and its causes in one line; what its `Display` or `source` panicked with, if they do.
    pub fn message(&self) -> String {
        self.told().unwrap_or_else(|reason| reason.message)
    }

    fn told(&self) -> Result<String, DeadReason> {
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

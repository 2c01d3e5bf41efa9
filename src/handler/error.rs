//! Handler errors and the classes that decide what becomes of them.

use super::Stage;
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
}

impl Class {
    /// The class's name in headers, metrics and listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Outage => "outage",
        }
    }
}

/// Decides the class of an error that its handler did not class itself.
pub type Classifier = Arc<dyn Fn(&(dyn Error + Send + Sync + 'static)) -> Class + Send + Sync>;

/// A handler's failure: any error, with or without a class.
///
/// `?` turns every standard error (and `anyhow::Error`) into one that the consumer's classifier judges. It does not
/// implement [`Error`] itself, as that would forbid the conversion.
pub struct HandlerError {
    class: Option<Class>,
    stage: Stage,
    dependency: Option<Cow<'static, str>>,
    source: Arc<dyn Error + Send + Sync>,
    /// Of several events that failed together, which is to blame is not known.
    is_shared: bool,
}

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

    fn classed(class: Class, source: Box<dyn Error + Send + Sync>) -> Self {
        Self {
            class: Some(class),
            stage: Stage::Handler,
            dependency: None,
            source: source.into(),
            is_shared: false,
        }
    }

    /// The same error for one of several events that failed together. Which of them is to blame is not known, so that none is
    /// given up for it: where it is permanent, it counts as transient.
    pub(super) fn shared(&self) -> Self {
        Self {
            class: self.class,
            stage: self.stage,
            dependency: self.dependency.clone(),
            source: Arc::clone(&self.source),
            is_shared: true,
        }
    }

    /// The same error, said to be about `dependency`: each has a breaker of its own, and its name stands in logs, health and
    /// metrics. Use few fixed names such as `payment-provider`.
    pub fn of(mut self, dependency: impl Into<Cow<'static, str>>) -> Self {
        self.dependency = Some(dependency.into());
        self
    }

    /// What it depends on and that failed, as [`HandlerError::of`] named it; errors without a name are taken together.
    pub fn dependency(&self) -> &str {
        self.dependency.as_deref().unwrap_or("unnamed")
    }

    /// The same error, said to have happened at `stage`.
    pub fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    /// The class, by the handler's own word or else by `classifier`.
    pub fn class(&self, classifier: &Classifier) -> Class {
        let class = self.class;
        match class.unwrap_or_else(|| classifier(self.source.as_ref())) {
            Class::Permanent if self.is_shared => Class::Transient,
            class => class,
        }
    }

    /// Why the process has to end, if that is what the error means: a producer that failed for good sends nothing any more.
    pub(crate) fn fatal(&self) -> Option<String> {
        match self.source.downcast_ref::<PublishError>() {
            Some(error @ PublishError::Fatal(_)) => Some(error.to_string()),
            _ => None,
        }
    }

    /// Where it happened.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The error and its causes in one line.
    pub fn message(&self) -> String {
        let mut message = self.source.to_string();
        let mut cause = self.source.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = error.source();
        }
        message
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for HandlerError {
    fn from(source: E) -> Self {
        let source: Box<dyn Error + Send + Sync> = source.into();
        let stage = if source.is::<tower::timeout::error::Elapsed>() {
            Stage::Timeout
        } else {
            Stage::Handler
        };
        Self {
            class: None,
            stage,
            dependency: None,
            source: source.into(),
            is_shared: false,
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

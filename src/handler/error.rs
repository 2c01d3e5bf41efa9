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
    source: Box<dyn Error + Send + Sync>,
}

impl HandlerError {
    /// A failure that may pass by itself.
    pub fn transient(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            class: Some(Class::Transient),
            stage: Stage::Handler,
            dependency: None,
            source: source.into(),
        }
    }

    /// A failure that will repeat.
    pub fn permanent(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            class: Some(Class::Permanent),
            stage: Stage::Handler,
            dependency: None,
            source: source.into(),
        }
    }

    /// Something that the handler depends on is down.
    pub fn outage(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            class: Some(Class::Outage),
            stage: Stage::Handler,
            dependency: None,
            source: source.into(),
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
        self.class
            .unwrap_or_else(|| classifier(self.source.as_ref()))
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
        let source = source.into();
        let stage = if source.is::<tower::timeout::error::Elapsed>() {
            Stage::Timeout
        } else {
            Stage::Handler
        };
        Self {
            class: None,
            stage,
            dependency: None,
            source,
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

/// The default classifier: JSON errors repeat, refused or lost connections are outages, everything else may pass.
pub(crate) fn default_classifier() -> Classifier {
    Arc::new(|error| {
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(cause) = next {
            if let Some(class) = known(cause) {
                return class;
            }
            next = cause.source();
        }
        Class::Transient
    })
}

fn known(error: &(dyn Error + 'static)) -> Option<Class> {
    use std::io::ErrorKind;
    if error.is::<serde_json::Error>() {
        return Some(Class::Permanent);
    }
    if let Some(io) = error.downcast_ref::<std::io::Error>() {
        let outage = matches!(
            io.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::NotConnected
                | ErrorKind::StorageFull
                | ErrorKind::BrokenPipe
        );
        return Some(if outage {
            Class::Outage
        } else {
            Class::Transient
        });
    }
    #[cfg(feature = "sqlite")]
    if let Some(error) = error.downcast_ref::<sqlx::Error>() {
        return known_sqlx(error);
    }
    None
}

#[cfg(feature = "sqlite")]
fn known_sqlx(error: &sqlx::Error) -> Option<Class> {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            Some(Class::Outage)
        }
        sqlx::Error::Database(error)
            if error.is_unique_violation()
                || error.is_check_violation()
                || error.is_foreign_key_violation() =>
        {
            Some(Class::Permanent)
        }
        // SQLITE_FULL: the disk has to be cleared first.
        sqlx::Error::Database(error) if error.code().as_deref() == Some("13") => {
            Some(Class::Outage)
        }
        _ => None,
    }
}

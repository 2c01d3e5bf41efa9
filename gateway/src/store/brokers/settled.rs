//! The answer to a request, by what became of its events.
//!
//! Pure: knows the errors of the publisher, and no publisher.

use super::super::error::AcceptError;
use super::super::port::Accepted;
use evenkeel::publisher::PublishError;
use std::error::Error;

/// Why no further event of a request was passed to the publisher.
#[derive(Debug)]
pub(super) enum Stopped {
    NoRoom,
    Failed(PublishError),
}

/// What became of the events of a request.
#[derive(Debug, Default)]
pub(super) struct Settled {
    acknowledged: usize,
    /// The gravest error, and the event's index in the request.
    failed: Option<(usize, PublishError)>,
}

/// What an error means for the answer; the gravest decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gravity {
    /// The event is not on the log; a repetition may pass.
    Refused,
    /// The event is not on the log, and never will be.
    Never,
    /// The event may be on the log.
    Unknown,
}

impl Settled {
    /// Counts an acknowledged event.
    pub(super) fn acknowledge(&mut self) {
        self.acknowledged += 1;
    }

    /// Adds the error of the event at this index.
    pub(super) fn fail(&mut self, index: usize, error: PublishError) {
        let is_gravest = match &self.failed {
            Some((_, other)) => gravity(other) < gravity(&error),
            None => true,
        };
        if is_gravest {
            self.failed = Some((index, error));
        }
    }

    /// The answer to a request of this many events, of which one at least was passed to the
    /// publisher.
    pub(super) fn answer(self, events: usize) -> Result<Accepted, AcceptError> {
        let acknowledged = self.acknowledged;
        match self.failed {
            None if acknowledged == events => Ok(Accepted::New),
            None => Err(partial()),
            Some((_, error)) if acknowledged == 0 => Err(refusal(error)),
            Some((index, error)) => match gravity(&error) {
                Gravity::Unknown => Err(unknown(error)),
                Gravity::Refused => Err(partial()),
                Gravity::Never => {
                    let others = events.saturating_sub(1);
                    Err(AcceptError::Rejected(format!(
                        "event {index} (from 0) can never be published: {}; of the {others} \
                         others {acknowledged} were published",
                        reason(error)
                    )))
                }
            },
        }
    }
}

fn gravity(error: &PublishError) -> Gravity {
    match error {
        PublishError::TooLarge { .. } | PublishError::Unfit { .. } => Gravity::Never,
        PublishError::Invalid(_)
        | PublishError::Serialize(_)
        | PublishError::Refused { .. }
        | PublishError::NoTopic { .. }
        | PublishError::NoPartition { .. } => Gravity::Refused,
        _ => Gravity::Unknown,
    }
}

/// The cause and its remedy.
fn reason(error: PublishError) -> String {
    match error {
        PublishError::TooLarge { reason, .. } | PublishError::Unfit { reason, .. } => reason,
        other => other.to_string(),
    }
}

/// The error of a request of which nothing was published, or perhaps something.
pub(super) fn refusal(error: PublishError) -> AcceptError {
    match gravity(&error) {
        Gravity::Never => AcceptError::Rejected(reason(error)),
        Gravity::Unknown => unknown(error),
        Gravity::Refused => AcceptError::Unavailable {
            doing: "publishing the events",
            source: error.into(),
        },
    }
}

/// The error of a request that meets a producer which failed permanently. Nothing was sent.
pub(super) fn unusable(reason: String) -> AcceptError {
    AcceptError::Unavailable {
        doing: "publishing the events",
        source: PublishError::Fatal(reason).into(),
    }
}

/// The error of a request of which some events were published, and others were not.
fn partial() -> AcceptError {
    unknown("only some events of the request were published")
}

/// The error of a request with an unknown result.
pub(super) fn unknown(source: impl Into<Box<dyn Error + Send + Sync>>) -> AcceptError {
    AcceptError::Unknown {
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(name: &str) -> PublishError {
        let (topic, reason) = ("t".to_owned(), "as told".to_owned());
        match name {
            "large" => PublishError::TooLarge { topic, reason },
            "unfit" => PublishError::Unfit { topic, reason },
            "topic" => PublishError::NoTopic { topic },
            "fatal" => PublishError::Fatal(reason),
            _ => PublishError::Unknown { topic, reason },
        }
    }

    #[test]
    fn the_gravest_error_of_a_request_decides() {
        for (events, expected) in [
            (vec!["ok", "ok"], "accepted"),
            (vec!["large"], "rejected: as told"),
            (vec!["topic", "topic"], "unavailable"),
            (vec!["topic", "large"], "rejected: as told"),
            (vec!["ok", "topic"], "unknown"),
            (vec!["ok", "time-out", "large"], "unknown"),
            (vec!["fatal"], "unknown"),
            (
                vec!["ok", "topic", "unfit", "large", "ok"],
                "rejected: event 2 (from 0) can never be published: as told; of the 4 others 2 \
                 were published",
            ),
        ] {
            let mut settled = Settled::default();
            for (index, name) in events.iter().enumerate() {
                match *name {
                    "ok" => settled.acknowledge(),
                    name => settled.fail(index, error(name)),
                }
            }
            let answer = match settled.answer(events.len()) {
                Ok(_) => "accepted".to_owned(),
                Err(AcceptError::Rejected(reason)) => format!("rejected: {reason}"),
                Err(AcceptError::Unavailable { .. }) => "unavailable".to_owned(),
                Err(AcceptError::Unknown { .. }) => "unknown".to_owned(),
                Err(other) => other.to_string(),
            };
            assert_eq!(answer, expected, "{events:?}");
        }
    }

    #[test]
    fn events_that_found_no_room_are_not_accepted() {
        let mut settled = Settled::default();
        settled.acknowledge();
        let answer = settled.answer(2);
        assert!(
            matches!(answer, Err(AcceptError::Unknown { .. })),
            "{answer:?}"
        );
    }
}

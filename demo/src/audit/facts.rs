//! What the audit judges: facts read afresh from topics, stores and the producers' journals.
//!
//! Knows neither Kafka nor SQLite: the readers turn what they find into these.

use std::collections::BTreeMap;
use std::fmt;

/// What makes an event the same one wherever it turns up: CloudEvents source and id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) source: String,
    pub(crate) id: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.source, self.id)
    }
}

/// A place on the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition, self.offset)
    }
}

/// An event found on a topic. One identity may stand there several times: a redelivery publishes again.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) identity: Identity,
    pub(crate) ty: String,
    pub(crate) at: Position,
}

/// An event whose acknowledgement a producer command wrote into its journal.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledged {
    pub(crate) identity: Identity,
    pub(crate) ty: String,
    pub(crate) topic: String,
    /// Where it came among the events of its key, for producers that say so.
    pub(crate) sent: Option<Sent>,
}

/// An event's place among the events of its key, as its producer sent them and as the brokers acknowledged it.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) key: String,
    pub(crate) number: u64,
    pub(crate) offset: i64,
}

/// A committed effect of a service, in the order of its commits.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) identity: Identity,
    pub(crate) at: Position,
    pub(crate) key: String,
    /// Whether the record stood on the log before the run began: it explains itself, and is not counted.
    pub(crate) before_run: bool,
}

/// A record that a service gave up, and why, as its dead letter says.
#[derive(Debug, Clone)]
pub(crate) struct Dead {
    pub(crate) identity: Identity,
    pub(crate) cause: Cause,
}

/// What dead letters of one kind have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cause {
    pub(crate) ty: String,
    pub(crate) class: String,
    pub(crate) stage: String,
    pub(crate) message: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ty,
            class,
            stage,
            message,
        } = self;
        write!(f, "{ty}: {message} ({class}, {stage})")
    }
}

/// Everything the audit looks at. Services are named by their consumer group.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) published: Vec<Published>,
    pub(crate) acknowledged: Vec<Acknowledged>,
    pub(crate) effects: BTreeMap<String, Vec<Effect>>,
    pub(crate) dead_letters: BTreeMap<String, Vec<Dead>>,
    /// Records that wait on the services' retry topics: they have no effect yet, and are lost unless they get one.
    pub(crate) parked: BTreeMap<String, u64>,
    /// Whether retention took records of the run before the audit could read them.
    pub(crate) log_truncated: bool,
}

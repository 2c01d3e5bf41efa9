//! The input of the audit: facts read from topics, stores and the producers' journals after the
//! run.
//!
//! Independent of Kafka and SQLite: the readers convert their data into these types.

use std::collections::BTreeMap;
use std::fmt;

/// CloudEvents source and id: the identity of an event in every place.
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

/// A position on the log.
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

/// An event on a topic. One identity may appear several times: a redelivery publishes again.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) identity: Identity,
    pub(crate) ty: String,
    /// Key of the record, if it has one.
    pub(crate) key: Option<String>,
    pub(crate) at: Position,
}

/// An event that a producer command recorded as acknowledged in its journal.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledged {
    pub(crate) identity: Identity,
    pub(crate) ty: String,
    pub(crate) topic: String,
    /// Its number among the events of its key, for producers that record it.
    pub(crate) sent: Option<Sent>,
}

/// An event's number among the events of its key, in the order of sending, and its acknowledged
/// offset. `None` if the producer was not told the offset, as callers of a gateway are not.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) key: String,
    pub(crate) number: u64,
    pub(crate) offset: Option<i64>,
}

/// A committed effect of a service, in the order of commits.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) identity: Identity,
    pub(crate) at: Position,
    pub(crate) key: String,
    /// Whether the record was on the log before the run began. It is then neither unexplained nor
    /// counted.
    pub(crate) before_run: bool,
}

/// A dead-lettered record of a service, with the cause from its headers.
#[derive(Debug, Clone)]
pub(crate) struct Dead {
    pub(crate) identity: Identity,
    pub(crate) cause: Cause,
}

/// The attributes that dead letters of one cause share.
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

/// The complete input of the audit. Services are identified by their consumer group.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) published: Vec<Published>,
    pub(crate) acknowledged: Vec<Acknowledged>,
    pub(crate) effects: BTreeMap<String, Vec<Effect>>,
    pub(crate) dead_letters: BTreeMap<String, Vec<Dead>>,
    /// Records that wait in the services' retry topics. They have no effect yet, and are lost
    /// unless they get one.
    pub(crate) parked: BTreeMap<String, u64>,
    /// Whether retention deleted records of the run before the audit read them.
    pub(crate) log_truncated: bool,
}

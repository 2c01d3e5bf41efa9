//! A member to which the brokers assign nothing (KIP-848).
//!
//! Runs on the poll thread. librdkafka tells of an assignment only when it changes, so a member whose first assignment is empty
//! hears nothing: it would count as joining for as long as others own all partitions.

use super::engine::Engine;
use super::rebalance::Member;
use super::settings::Assignment;
use crate::kafka::queue::is_member;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::time::{Duration, Instant};

/// How often the client is asked whether it is a member.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// For how long a member has been given nothing until it counts as one that is given nothing. An assignment reaches the poll
/// thread after the client has looked up the names of its topics.
const EMPTY_FOR: Duration = Duration::from_secs(3);

/// Looks whether the group has taken this member without giving it a partition.
pub(crate) struct Surplus {
    looked_at: Instant,
    member_since: Option<Instant>,
}

impl Surplus {
    pub(crate) fn new() -> Self {
        Self {
            looked_at: Instant::now(),
            member_since: None,
        }
    }

    pub(crate) fn look(&mut self, engine: &Engine, consumer: &BaseConsumer<Member>) {
        if engine.readiness.has_joined() {
            self.member_since = None;
            return;
        }
        if engine.settings.assignment != Assignment::Broker || self.looked_at.elapsed() < LOOK_EVERY
        {
            return;
        }
        self.looked_at = Instant::now();
        if !is_member(consumer) {
            self.member_since = None;
            return;
        }
        let since = *self.member_since.get_or_insert(self.looked_at);
        if since.elapsed() >= EMPTY_FOR {
            {
                let mut assignments = consumer.context().assignments();
                (assignments.joined, assignments.awaited) = (true, false);
            }
            tracing::info!(
                group = engine.group,
                "member of the group without partitions"
            );
            engine.readiness.assigned();
        }
    }
}

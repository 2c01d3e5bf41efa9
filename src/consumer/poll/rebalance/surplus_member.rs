//! Detects a member to which the brokers assign nothing (KIP-848).
//!
//! With the classic protocols every member receives an assignment, possibly an empty one, and is
//! ready from then on. With KIP-848 a member with nothing to do receives none: it would never
//! become ready, and a rolling update would wait for it. So a client that is a member of the group,
//! and has received no assignment for 3 s, counts as joined.
//!
//! Once it has joined it stays ready, whatever it is assigned later, until an assignment is lost.

use crate::consumer::poll::rebalance::RebalanceContext;
use crate::consumer::settings::Assignment;
use crate::consumer::shared::Shared;
use crate::kafka::native::is_member;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::time::{Duration, Instant};

/// How often the client is asked whether it is a member.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// How long a member must have had no partition until it counts as surplus. An assignment reaches
/// the poll thread only after the client has looked up the names of its topics.
const SURPLUS_AFTER: Duration = Duration::from_secs(3);

/// Detects that the group accepted this member without assigning it a partition.
pub(crate) struct SurplusMember {
    /// When the client was asked last.
    checked_at: Instant,
    /// Since when it has been a member without an assignment.
    member_since: Option<Instant>,
}

impl SurplusMember {
    pub(crate) fn new() -> Self {
        Self {
            checked_at: Instant::now(),
            member_since: None,
        }
    }

    /// Called on every turn. Cheap, except every half second until the member has joined.
    pub(crate) fn check(&mut self, shared: &Shared, consumer: &BaseConsumer<RebalanceContext>) {
        if shared.readiness.has_joined() {
            self.member_since = None;
            return;
        }
        if shared.settings.assignment != Assignment::Broker
            || self.checked_at.elapsed() < CHECK_INTERVAL
        {
            return;
        }
        self.checked_at = Instant::now();
        if !is_member(consumer) {
            self.member_since = None;
            return;
        }
        let since = *self.member_since.get_or_insert(self.checked_at);
        if since.elapsed() >= SURPLUS_AFTER {
            {
                let mut assignments = consumer.context().assignments();
                (assignments.joined, assignments.awaited) = (true, false);
            }
            tracing::info!(
                group = shared.group,
                "member of the group without partitions"
            );
            shared.readiness.assigned();
        }
    }
}

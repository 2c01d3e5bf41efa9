//! Checks the group's own topics at an interval while a member runs: their settings, and their
//! partitions, which must keep up with those of their source topics.
//!
//! A source topic that is given partitions while the group runs needs the same in its retry topic:
//! without them, records of the new partitions could not be parked. Failed writes shorten the
//! interval, because a missing topic is the usual cause.

use crate::consumer::group_topics::{
    GroupTopic, GroupTopicKind, GroupTopicState, plan, repair_command, required_topics, telemetry,
    unsafe_retry_topic,
};
use crate::consumer::shared::Shared;
use crate::kafka::KafkaError;
use crate::kafka::admin::Admin;
use crate::telemetry::Metric;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// The shortest interval between two checks, also after failed writes.
const INTERVAL_MIN: Duration = Duration::from_secs(2);
/// The health component of unsafe topics.
const COMPONENT: &str = "own_topics";

/// Checks them until the handle is dropped.
pub(in crate::consumer) fn spawn(shared: &Arc<Shared>, admin: Admin) -> AbortOnDropHandle<()> {
    let shared = Arc::clone(shared);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut check = TopicsCheck {
            shared,
            admin,
            logged: Vec::new(),
        };
        loop {
            tokio::time::sleep(INTERVAL_MIN).await;
            let shared = &check.shared;
            let rest = shared
                .settings
                .own_topics_interval
                .saturating_sub(INTERVAL_MIN);
            // A request only shortens the interval.
            let _ = tokio::time::timeout(rest, shared.group_topics_check.notified()).await;
            if let Err(error) = check.check().await {
                tracing::debug!(
                    group = check.shared.group,
                    %error,
                    "the check of the group's own topics failed"
                );
            }
        }
    }))
}

/// The state of the check. Its drop clears the component and the note: the run has ended.
struct TopicsCheck {
    shared: Arc<Shared>,
    admin: Admin,
    /// Faults and errors that were logged: each is logged once.
    logged: Vec<String>,
}

impl TopicsCheck {
    /// One check: reports, then creates and adds what is missing.
    async fn check(&mut self) -> Result<(), KafkaError> {
        let topics = required_topics(&self.shared.settings)
            .describe(&self.admin)
            .await?;
        self.report_faults(&topics);
        let gone = topics.iter().filter(|topic| {
            topic.kind == GroupTopicKind::Retry && topic.state == GroupTopicState::Missing
        });
        let gone = gone.map(|topic| topic.name.as_str());
        self.shared.show_gone_retry_topics(gone);
        if topics.iter().all(GroupTopic::is_complete) {
            return Ok(());
        }
        let created = plan::create_missing(&self.admin, &topics).await;
        if let Err(error) = &created {
            let group = &self.shared.group;
            let message = error.to_string();
            if !self.logged.contains(&message) {
                telemetry::topics_not_repaired(group, error);
                self.logged.push(message);
            }
        }
        created
    }

    /// Reports faults to the gauge, the log, the health and its note. Only a retry topic that loses
    /// records makes the member not ready: parked
    /// records are the only copy that is still to be handled.
    fn report_faults(&mut self, topics: &[GroupTopic]) {
        let group = &self.shared.group;
        for topic in topics {
            let labels = [("group", &**group), ("topic", &*topic.name)];
            let gauge = self.shared.health.gauge(Metric::OwnTopicFaults, &labels);
            gauge.set(topic.faults.len() as f64);
            let message: Vec<String> = topic.faults.iter().map(ToString::to_string).collect();
            let message = format!("{}: {}", topic.name, message.join("; "));
            if !topic.faults.is_empty() && !self.logged.contains(&message) {
                telemetry::topic_checked(group, topic);
                self.logged.push(message);
            }
        }
        let state = match unsafe_retry_topic(topics) {
            None => Ok(()),
            Some((topic, fault)) => Err(format!(
                "parked records are in danger: of {} {fault}; repair it with: {}",
                topic.name,
                repair_command(group)
            )),
        };
        self.shared.health.set_ready(COMPONENT, state);
        let of_others = topics
            .iter()
            .filter(|topic| topic.kind != GroupTopicKind::Retry);
        let note = of_others
            .flat_map(|topic| topic.faults.iter().map(move |fault| (topic, fault)))
            .find(|(_, fault)| fault.loses)
            .map(|(topic, fault)| {
                let command = repair_command(group);
                format!("of {} {fault}; repair it with: {command}", topic.name)
            });
        self.shared.health.set_note(COMPONENT, note);
    }
}

impl Drop for TopicsCheck {
    fn drop(&mut self) {
        self.shared.health.set_ready(COMPONENT, Ok(()));
        self.shared.health.set_note(COMPONENT, None);
    }
}

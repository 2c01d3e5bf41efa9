//! Looks at the group's own topics again and again while a member runs: their settings, and whether they have grown with their
//! sources.

use super::super::engine::Engine;
use super::{OwnTopic, OwnTopicKind, OwnTopicState, command, losing_retry_topic, own, plan, warn};
use crate::kafka::KafkaError;
use crate::kafka::admin::Admin;
use crate::telemetry::Metric;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// How often they are looked at, at most: also when writes fail.
const REST: Duration = Duration::from_secs(2);
/// The component under which an unsafe topic shows in the health.
const COMPONENT: &str = "own_topics";

/// Looks at them until the handle is dropped.
pub(in super::super) fn spawn(engine: &Arc<Engine>, admin: Admin) -> AbortOnDropHandle<()> {
    let engine = Arc::clone(engine);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut watch = Watch {
            engine,
            admin,
            complained: Vec::new(),
        };
        loop {
            tokio::time::sleep(REST).await;
            let engine = &watch.engine;
            let rest = engine.settings.own_topics_interval.saturating_sub(REST);
            // Asked or not, it is time to look.
            let _ = tokio::time::timeout(rest, engine.own_topics_asked.notified()).await;
            if let Err(error) = watch.look().await {
                tracing::debug!(group = watch.engine.group, %error, "the group's own topics cannot be looked at");
            }
        }
    }))
}

struct Watch {
    engine: Arc<Engine>,
    admin: Admin,
    /// What was logged: a fault is told once.
    complained: Vec<String>,
}

impl Watch {
    async fn look(&mut self) -> Result<(), KafkaError> {
        let topics = own(&self.engine.settings).look(&self.admin).await?;
        self.judge(&topics);
        let gone = topics.iter().filter(|topic| {
            topic.kind == OwnTopicKind::Retry && topic.state == OwnTopicState::Missing
        });
        let gone = gone.map(|topic| topic.name.as_str());
        self.engine.show_gone_retry_topics(gone);
        if topics.iter().all(OwnTopic::is_whole) {
            return Ok(());
        }
        let made = plan::make_whole(&self.admin, &topics).await;
        if let Err(error) = &made {
            let group = &self.engine.group;
            let told = error.to_string();
            if !self.complained.contains(&told) {
                tracing::warn!(group, %error, command = command(group), "a topic of the group's own is missing or has fewer partitions than its source, and cannot be mended from here; have it made by the command");
                self.complained.push(told);
            }
        }
        made
    }

    fn judge(&mut self, topics: &[OwnTopic]) {
        let group = &self.engine.group;
        for topic in topics {
            let labels = [("group", &**group), ("topic", &*topic.name)];
            let gauge = self.engine.health.gauge(Metric::OwnTopicFaults, &labels);
            gauge.set(topic.faults.len() as f64);
            let told: Vec<String> = topic.faults.iter().map(ToString::to_string).collect();
            let told = format!("{}: {}", topic.name, told.join("; "));
            if !topic.faults.is_empty() && !self.complained.contains(&told) {
                warn(group, topic);
                self.complained.push(told);
            }
        }
        let state = match losing_retry_topic(topics) {
            None => Ok(()),
            Some((topic, fault)) => Err(format!(
                "parked records are in danger: of {} {fault}; mend it with: {}",
                topic.name,
                command(group)
            )),
        };
        self.engine.health.set_ready(COMPONENT, state);
        let of_others = topics
            .iter()
            .filter(|topic| topic.kind != OwnTopicKind::Retry);
        let note = of_others
            .flat_map(|topic| topic.faults.iter().map(move |fault| (topic, fault)))
            .find(|(_, fault)| fault.loses)
            .map(|(topic, fault)| {
                let command = command(group);
                format!("of {} {fault}; mend it with: {command}", topic.name)
            });
        self.engine.health.set_note(COMPONENT, note);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.engine.health.set_ready(COMPONENT, Ok(()));
        self.engine.health.set_note(COMPONENT, None);
    }
}

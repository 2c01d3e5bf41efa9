//! The checks of the settings: contradictions, names of topics, and durations that are too long.

use crate::consumer::settings::topic_names::collide_in_kafka;
use crate::consumer::settings::{ConsumerSettings, StopWhen};
use crate::control::control_topic;
use crate::durations::{CALL_MAX, bound};
use crate::kafka::{ConfigError, is_topic_name};
use crate::recovery::{DeadLetterTopic, retry_topic};

impl ConsumerSettings {
    /// The same with durations that can be added to instants: [`Duration::MAX`] means for ever.
    pub(crate) fn with_bounded_durations(mut self) -> Self {
        bound([
            &mut self.commit_interval,
            &mut self.drain_timeout,
            &mut self.revoke_timeout,
            &mut self.stuck_handler_after,
            &mut self.retry_topic_retention,
            &mut self.flood_guard.window,
            &mut self.breaker.window,
        ]);
        bound(&mut self.handler_timeout);
        bound(&mut self.retry.park_delays);
        self.retry.backoff = self.retry.backoff.bounded();
        self.breaker.probe = self.breaker.probe.bounded();
        self.startup_timeout = self.startup_timeout.min(CALL_MAX);
        if let StopWhen::Idle(idle) = &mut self.stop_when {
            bound([idle]);
        }
        self
    }

    /// Checks the settings against each other. [`Consumer::new`](crate::consumer::Consumer::new)
    /// calls it, so that a service need not; a tool that only parses settings does.
    ///
    /// # Errors
    /// Returns the name of the setting and the remedy: an empty group or topic list, an invalid
    /// topic name, a topic of the group's own among the sources, a dead-letter topic whose records
    /// would come back, a limit of 0, an in-flight limit below the concurrency, or a commit
    /// interval of 0.
    ///
    /// ```
    /// use evenkeel::consumer::ConsumerSettings;
    ///
    /// let settings = ConsumerSettings::new("payments", ["retry.payments.shop.orders"]);
    /// let error = settings.validate().expect_err("its own retry topic");
    /// assert_eq!(error.setting, "topics");
    /// ```
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.group.is_empty() {
            return Err(ConfigError::new(
                "group",
                "is empty; give the consumer group a name",
            ));
        }
        if self.topics.is_empty() {
            return Err(ConfigError::new(
                "topics",
                "is empty; name at least one topic",
            ));
        }
        if let Some(topic) = self.topics.iter().find(|topic| !is_topic_name(topic)) {
            return Err(ConfigError::new(
                "topics",
                format!(
                    "{topic:?} is not a topic name; use at most 249 letters, digits, dots, underscores and hyphens"
                ),
            ));
        }
        self.validate_own_topics()?;
        let positive = [
            ("concurrency", self.concurrency),
            ("workers", self.workers.unwrap_or(1)),
            ("in_flight_records_max", self.in_flight_records_max()),
            ("in_flight_bytes_max", self.in_flight_bytes_max),
        ];
        if let Some((setting, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::new(*setting, "is 0; it must be at least 1"));
        }
        if self.in_flight_records_max() < self.concurrency {
            return Err(ConfigError::new(
                "in_flight_records_max",
                "is smaller than concurrency; handlers could never all run",
            ));
        }
        if self.commit_interval.is_zero() {
            return Err(ConfigError::new(
                "commit_interval",
                "is 0; commit at an interval such as 1 s, settled records are not lost in between",
            ));
        }
        Ok(())
    }

    /// Checks the names of the group's own topics, and that they are apart from the sources.
    fn validate_own_topics(&self) -> Result<(), ConfigError> {
        if let DeadLetterTopic::One(name) = &self.dead_letter_topic
            && let Some(reason) = self.unfit_for_dead_letters(name)
        {
            return Err(ConfigError::new(
                "dead_letter_topic",
                format!("{name:?} {reason}"),
            ));
        }
        if let Some(topic) = self.topics.iter().find(|topic| self.is_own_topic(topic)) {
            return Err(ConfigError::new(
                "topics",
                format!(
                    "{topic:?} is one of the own topics of the group {}; read it with another group",
                    self.group
                ),
            ));
        }
        let own = |topic: &String| {
            [
                self.dead_letter_topic.of(&self.group, topic),
                retry_topic(&self.group, topic),
            ]
        };
        match self
            .topics
            .iter()
            .flat_map(own)
            .find(|name| !is_topic_name(name))
        {
            None => Ok(()),
            Some(name) => Err(ConfigError::new(
                "group",
                format!(
                    "one of its own topics would be {name:?}, which is not a topic name; use letters, digits, dots, \
                     underscores and hyphens, and keep group and topic short enough for 249 bytes"
                ),
            )),
        }
    }

    /// Why a topic cannot take the group's dead letters. None if it can.
    fn unfit_for_dead_letters(&self, name: &str) -> Option<&'static str> {
        if !is_topic_name(name) {
            Some(
                "is not a topic name; use at most 249 letters, digits, dots, underscores and hyphens",
            )
        } else if self
            .topics
            .iter()
            .any(|topic| collide_in_kafka(topic, name))
        {
            Some(
                "is one of the topics that the group reads; a record that fails there would be redelivered forever",
            )
        } else if name.starts_with("retry.") {
            Some("is a retry topic; the group that owns it would handle the dead letters again")
        } else if name.starts_with("control.") {
            Some("is a control topic, which accepts commands only")
        } else {
            None
        }
    }

    /// Whether a topic is one of the group's own, or would be if the group read other topics.
    fn is_own_topic(&self, topic: &str) -> bool {
        let prefixes = [
            retry_topic(&self.group, ""),
            DeadLetterTopic::PerTopic.of(&self.group, ""),
        ];
        topic == control_topic(&self.group)
            || prefixes.iter().any(|prefix| topic.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The setting that is refused; none where all are accepted.
    fn refused(settings: &ConsumerSettings) -> Option<String> {
        settings.validate().err().map(|error| error.to_string())
    }

    fn of(group: &str, topics: &[&str]) -> ConsumerSettings {
        ConsumerSettings::new(group, topics.iter().copied())
    }

    #[test]
    fn a_group_cannot_read_its_own_topics() {
        for own in [
            "retry.g.orders",
            "dlq.g.orders",
            "control.g",
            "retry.g.other",
        ] {
            let error = refused(&of("g", &["orders", own])).expect("refused");
            assert!(
                error.contains(own) && error.contains("another group"),
                "{error}"
            );
            assert!(refused(&of("g", &[own])).is_some(), "alone, too");
            assert_eq!(refused(&of("watcher", &[own])), None, "{own}");
        }
        assert_eq!(
            refused(&of("g", &["retry.gx.orders", "control.gx", "dlq"])),
            None
        );
    }

    #[test]
    fn dead_letters_cannot_go_to_a_topic_that_redelivers_them() {
        let to = |name: &str| {
            let mut settings = of("g", &["shop.orders"]);
            settings.dead_letter_topic = DeadLetterTopic::One(name.to_owned());
            refused(&settings)
        };
        for bad in [
            "shop.orders",
            "shop_orders",
            "retry.g.shop.orders",
            "retry.other.t",
            "control.g",
            "no topic",
            &"x".repeat(250),
        ] {
            let error = to(bad).expect(bad);
            assert!(error.contains("dead_letter_topic"), "{error}");
        }
        assert_eq!(to("dlq.g.shop.orders"), None);
        assert_eq!(to("graveyard"), None);
    }

    #[test]
    fn names_that_are_too_long_are_refused() {
        let longest = 249 - "retry.g.".len();
        assert_eq!(refused(&of("g", &[&"t".repeat(longest)])), None);
        let error = refused(&of("g", &[&"t".repeat(longest + 1)])).expect("refused");
        assert!(error.contains("249 bytes"), "{error}");
        assert!(refused(&of(&"g".repeat(248), &["t"])).is_some());
    }
}

//! The tables `[admission]` and `[streams]` of the configuration file: the limits that an operator
//! tunes. The settings that they change document them.

use crate::admission::AdmissionSettings;
use crate::stream::StreamSettings;
use evenkeel::kafka::ConfigError;
use evenkeel_program::duration::parse_duration;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

/// The table `[admission]`. See [`AdmissionSettings`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AdmissionTable {
    concurrency_initial: Option<NonZeroU32>,
    concurrency_min: Option<NonZeroU32>,
    concurrency_max: Option<NonZeroU32>,
    latency_tolerance: Option<f64>,
    backlog_events_max: Option<NonZeroU64>,
    #[serde(deserialize_with = "duration")]
    queue_age_max: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    request_time_max: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    body_time_max: Option<Duration>,
    uploads_max: Option<NonZeroUsize>,
    uploads_per_caller_max: Option<NonZeroUsize>,
    #[serde(deserialize_with = "duration")]
    retry_horizon: Option<Duration>,
    rate_default: Option<NonZeroU32>,
    principals_max: Option<NonZeroUsize>,
}

/// The table `[streams]`. See [`StreamSettings`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StreamsTable {
    clients_max: Option<NonZeroUsize>,
    ring_bytes_max: Option<NonZeroUsize>,
    ring_events_max: Option<NonZeroUsize>,
    catch_ups_max: Option<NonZeroUsize>,
    #[serde(deserialize_with = "duration")]
    heartbeat: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    slow_client_timeout: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    reader_idle: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    broker_timeout: Option<Duration>,
}

impl AdmissionTable {
    /// The settings with the values of the table.
    ///
    /// # Errors
    /// If the three limits of concurrency contradict each other.
    pub(super) fn apply(
        &self,
        mut settings: AdmissionSettings,
    ) -> Result<AdmissionSettings, ConfigError> {
        (
            settings.limit_initial,
            settings.limit_min,
            settings.limit_max,
        ) = self.concurrency(&settings)?;
        set(&mut settings.latency_tolerance, self.latency_tolerance);
        let backlog = self.backlog_events_max.map(NonZeroU64::get);
        set(&mut settings.backlog_events_max, backlog);
        set(&mut settings.queue_age_max, self.queue_age_max);
        set(&mut settings.request_time_max, self.request_time_max);
        set(&mut settings.body_time_max, self.body_time_max);
        set(&mut settings.uploads_max, self.uploads_max);
        let per_caller = self.uploads_per_caller_max.map(NonZeroUsize::get);
        set(&mut settings.uploads_per_caller_max, per_caller);
        set(&mut settings.retry_horizon, self.retry_horizon);
        let rate = self.rate_default.map(NonZeroU32::get);
        set(&mut settings.rate_default, rate);
        set(&mut settings.principals_max, self.principals_max);
        Ok(settings)
    }

    /// The concurrency limit: its start, its least and its most. A default gives way to what the
    /// table has.
    fn concurrency(&self, default: &AdmissionSettings) -> Result<(u32, u32, u32), ConfigError> {
        let own = |value: Option<NonZeroU32>| value.map(NonZeroU32::get);
        let (start, least, most) = (
            own(self.concurrency_initial),
            own(self.concurrency_min),
            own(self.concurrency_max),
        );
        let bounds = [least, start, most];
        let set: Vec<u32> = bounds.into_iter().flatten().collect();
        if !set.is_sorted() {
            let reason = "concurrency_min, concurrency_initial and concurrency_max must not \
                          decrease in this order";
            return Err(ConfigError::new("admission", reason));
        }
        let (lowest, highest) = (set.first().copied(), set.last().copied());
        let least = least.unwrap_or(default.limit_min.min(lowest.unwrap_or(u32::MAX)));
        let most = most.unwrap_or(default.limit_max.max(highest.unwrap_or(0)));
        let start = start.unwrap_or(default.limit_initial.clamp(least, most));
        Ok((start, least, most))
    }
}

impl StreamsTable {
    /// The settings with the values of the table.
    pub(super) fn apply(&self, mut settings: StreamSettings) -> StreamSettings {
        set(&mut settings.clients_max, self.clients_max);
        set(&mut settings.ring_bytes_max, self.ring_bytes_max);
        set(&mut settings.ring_events_max, self.ring_events_max);
        set(&mut settings.catch_ups_max, self.catch_ups_max);
        if let Some(heartbeat) = self.heartbeat {
            settings = settings.with_heartbeat(heartbeat);
        }
        set(&mut settings.slow_client_timeout, self.slow_client_timeout);
        set(&mut settings.reader_idle, self.reader_idle);
        set(&mut settings.broker_timeout, self.broker_timeout);
        settings
    }
}

/// Replaces a setting by the value of the file, if there is one.
fn set<T, V: Into<T>>(setting: &mut T, value: Option<V>) {
    if let Some(value) = value {
        *setting = value.into();
    }
}

/// Reads a duration with its unit.
pub(super) fn duration<'de, D: Deserializer<'de>>(text: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(text)?;
    parse_duration(&text).map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(text: &str) -> AdmissionTable {
        toml::from_str(text).expect(text)
    }

    /// The reference names each of these keys, or this does not compile, or fails.
    #[test]
    fn the_reference_file_has_every_limit() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/reference.toml");
        let text = std::fs::read_to_string(path).expect("the reference");
        let mut file: toml::Table = toml::from_str(&text).expect("TOML");
        let mut table = |name: &str| file.remove(name).expect(name);
        let admission: AdmissionTable = table("admission").try_into().expect("known keys");
        let streams: StreamsTable = table("streams").try_into().expect("known keys");
        let AdmissionTable {
            concurrency_initial: Some(_),
            concurrency_min: Some(_),
            concurrency_max: Some(_),
            latency_tolerance: Some(_),
            backlog_events_max: Some(_),
            queue_age_max: Some(_),
            request_time_max: Some(_),
            body_time_max: Some(_),
            uploads_max: Some(_),
            uploads_per_caller_max: Some(_),
            retry_horizon: Some(_),
            rate_default: Some(_),
            principals_max: Some(_),
        } = &admission
        else {
            panic!("a key is missing: {admission:?}");
        };
        let StreamsTable {
            clients_max: Some(_),
            ring_bytes_max: Some(_),
            ring_events_max: Some(_),
            catch_ups_max: Some(_),
            heartbeat: Some(_),
            slow_client_timeout: Some(_),
            reader_idle: Some(_),
            broker_timeout: Some(_),
        } = &streams
        else {
            panic!("a key is missing: {streams:?}");
        };
        // It shows the defaults, but for those that are none.
        let shown = admission.apply(AdmissionSettings::outbox()).expect("sound");
        let expected = AdmissionSettings::outbox()
            .with_queue_age_max(Duration::from_secs(1))
            .with_uploads_per_caller_max(64)
            .with_rate_default(100);
        assert_eq!(shown, expected);
        let shown = streams.apply(StreamSettings::default());
        assert_eq!(shown, StreamSettings::default());
    }

    #[test]
    fn a_single_limit_of_concurrency_moves_the_others() {
        for (text, expected) in [
            ("", Some((50, 10, 1_000))),
            ("concurrency_max = 5", Some((5, 5, 5))),
            ("concurrency_min = 2000", Some((2_000, 2_000, 2_000))),
            ("concurrency_initial = 4", Some((4, 4, 1_000))),
            (
                "concurrency_min = 20\nconcurrency_max = 40",
                Some((40, 20, 40)),
            ),
            ("concurrency_min = 40\nconcurrency_max = 20", None),
            ("concurrency_initial = 40\nconcurrency_max = 20", None),
        ] {
            let applied = admission(text).apply(AdmissionSettings::outbox());
            let limits = applied.ok().map(|settings| {
                (
                    settings.limit_initial,
                    settings.limit_min,
                    settings.limit_max,
                )
            });
            assert_eq!(limits, expected, "{text}");
        }
    }

    #[test]
    fn the_defaults_of_the_store_stay() {
        for default in [AdmissionSettings::outbox(), AdmissionSettings::brokers()] {
            let applied = admission("").apply(default.clone()).expect("sound");
            assert_eq!(applied, default);
            let applied = admission("rate_default = 7\nuploads_max = 9").apply(default.clone());
            let mut expected = default.with_rate_default(7);
            expected.uploads_max = 9;
            assert_eq!(applied.expect("sound"), expected);
        }
    }
}

//! Shared code of turns: the loop of a raw consumer, a run of evenkeel's consumer, a rate.

use crate::measure::usage::{Usage, UsageReading, resident_max_mib};
use crate::spec::{Spec, Turn};
use anyhow::{Context, bail};
use evenkeel::consumer::{Consumer, ConsumerSettings, StopWhen};
use evenkeel::handler::Router;
use evenkeel::testing::unique;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::BorrowedMessage;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A turn fails after this time without a record.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A turn fails after this time without an effect.
const EFFECT_MAX: Duration = Duration::from_secs(60);
/// Interval between two counts of the effects.
const COUNT_INTERVAL: Duration = Duration::from_millis(20);

/// Settings of a raw consumer, tuned like evenkeel's.
pub(crate) fn raw_config(spec: &Spec) -> ClientConfig {
    spec.raw(&[
        ("group.id", &unique("bench-raw")),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        ("fetch.queue.backoff.ms", "10"),
    ])
}

/// A program without a framework: polls and handles one record after the other, until `handle`
/// returns true.
pub(crate) fn raw_loop(
    spec: &Spec,
    mut handle: impl FnMut(&BorrowedMessage<'_>) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let consumer: BaseConsumer = raw_config(spec).create()?;
    consumer.subscribe(&[&spec.topic])?;
    let mut silent_since = None;
    loop {
        let Some(record) = consumer.poll(Duration::from_millis(100)) else {
            if silent_since.get_or_insert_with(Instant::now).elapsed() > SILENCE_MAX {
                bail!("no record came for {} s", SILENCE_MAX.as_secs());
            }
            continue;
        };
        silent_since = None;
        if handle(&record.context("cannot read")?)? {
            break;
        }
    }
    consumer.unsubscribe();
    Ok(())
}

/// Handles every record of the topic with evenkeel, with default settings changed by `adjust`.
pub(crate) async fn evenkeel(
    spec: &Spec,
    router: Router,
    adjust: impl FnOnce(&mut ConsumerSettings),
) -> anyhow::Result<()> {
    let mut settings = ConsumerSettings::new(unique("bench-evenkeel"), [spec.topic.clone()]);
    settings.stop_when = StopWhen::UntilEnd;
    adjust(&mut settings);
    let report = Consumer::new(spec.kafka()?, settings, router)?
        .run(CancellationToken::new())
        .await?;
    if report.settled != spec.data.records || !report.clean {
        bail!("wrong answer: {report:?}");
    }
    Ok(())
}

/// A turn whose value is messages per second.
pub(crate) fn rate(messages: u64, spent: Usage) -> anyhow::Result<Turn> {
    Ok(Turn {
        value: messages as f64 / spent.wall.as_secs_f64(),
        us_per_message: Some(spent.processor.as_secs_f64() * 1e6 / messages as f64),
        rss_mib: resident_max_mib()?,
        details: BTreeMap::new(),
    })
}

/// Counts the effects until there is one for each event. Returns the time at which there was.
///
/// # Errors
/// If there are more, or none was added for a minute.
pub(crate) async fn wait_for_effects<F: Future<Output = anyhow::Result<u64>>>(
    events: u64,
    mut count: impl FnMut() -> F,
) -> anyhow::Result<UsageReading> {
    let mut silent_since = (0, Instant::now());
    loop {
        let effects = count().await?;
        match effects.cmp(&events) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(UsageReading::now()),
            Ordering::Greater => bail!("wrong answer: {effects} effects of {events} events"),
        }
        if effects > silent_since.0 {
            silent_since = (effects, Instant::now());
        } else if silent_since.1.elapsed() > EFFECT_MAX {
            bail!("{effects} of {events} events, and then nothing");
        }
        tokio::time::sleep(COUNT_INTERVAL).await;
    }
}

/// The given quantile of the values. Sorts them.
pub(crate) fn quantile(values: &mut [f64], quantile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get((last as f64 * quantile).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let mut values: Vec<f64> = (0..101).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut values, 0.5), 50.0);
        assert_eq!(quantile(&mut values, 0.99), 99.0);
        assert!(quantile(&mut [], 0.5).is_nan());
    }
}

//! Records at a steady rate, and the time of each from its publication to its handler.

use crate::measure::run::quantile;
use anyhow::bail;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// Time limit for the last records to arrive.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);

/// The rate in records per second. Records of the first seconds, while the group forms, do not
/// count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SteadyRate {
    pub(crate) per_second: u64,
    pub(crate) warm_up: Duration,
    pub(crate) counted_time: Duration,
}

/// The publication time and the handler's start time of each record, by number.
pub(crate) struct LatencyTracker {
    rate: SteadyRate,
    begun: Instant,
    /// Nanoseconds since `begun`. 0: not yet.
    sent: Vec<AtomicU64>,
    handled: Vec<AtomicU64>,
    unhandled: AtomicU64,
    duplicates: AtomicU64,
}

impl LatencyTracker {
    pub(crate) fn new(rate: SteadyRate) -> Self {
        let records = rate.per_second * (rate.warm_up + rate.counted_time).as_secs();
        let empty = || (0..records).map(|_| AtomicU64::new(0)).collect();
        Self {
            rate,
            begun: Instant::now(),
            sent: empty(),
            handled: empty(),
            unhandled: AtomicU64::new(records),
            duplicates: AtomicU64::new(0),
        }
    }

    /// The time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Publishes every record at its time.
    pub(crate) async fn publish<F: Future<Output = anyhow::Result<()>>>(
        &self,
        mut publish: impl FnMut(u64) -> F,
    ) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / self.rate.per_second as u32);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 0..self.sent.len() {
            ticks.tick().await;
            self.sent[number].store(self.now(), Ordering::Relaxed);
            publish(number as u64).await?;
        }
        Ok(())
    }

    /// Registers the start of a record's handler. The value is the record's number.
    pub(crate) fn record_handled(&self, value: Option<&[u8]>) {
        let number = std::str::from_utf8(value.unwrap_or_default())
            .ok()
            .and_then(|value| value.parse().ok());
        if let Some(number) = number {
            self.number_handled(number);
        }
    }

    /// [`LatencyTracker::record_handled`] for a record whose number is known. Ignores others.
    pub(crate) fn number_handled(&self, number: u64) {
        let Some(handled) = self.handled.get(number as usize) else {
            return;
        };
        let now = self.now();
        match handled.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => self.unhandled.fetch_sub(1, Ordering::Relaxed),
            Err(_) => self.duplicates.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Waits until every record was handled.
    ///
    /// # Errors
    /// If a record does not arrive, or arrived before it was published: another process writes to
    /// the topic.
    pub(crate) async fn wait_until_handled(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + ARRIVAL_LIMIT;
        while self.unhandled.load(Ordering::Relaxed) > 0 {
            if Instant::now() > deadline {
                let unhandled = self.unhandled.load(Ordering::Relaxed);
                bail!(
                    "wrong answer: {unhandled} of {} records did not come",
                    self.sent.len()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let at = |of: &AtomicU64| of.load(Ordering::Relaxed);
        if (self.handled.iter().zip(&self.sent)).any(|(handled, sent)| at(handled) < at(sent)) {
            bail!("wrong answer: a record came before it was published");
        }
        Ok(())
    }

    /// Fails if a record was handled more than once.
    pub(crate) fn fail_on_duplicates(&self) -> anyhow::Result<()> {
        match self.duplicates() {
            0 => Ok(()),
            duplicates => bail!("wrong answer: {duplicates} records were handled more than once"),
        }
    }

    /// The number of records that were handled more than once.
    pub(crate) fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// The number of all records, also of those that do not count.
    pub(crate) fn records(&self) -> u64 {
        self.sent.len() as u64
    }

    /// The number of records in the counted time.
    pub(crate) fn counted(&self) -> u64 {
        self.rate.per_second * self.rate.counted_time.as_secs()
    }

    /// Milliseconds from publication to handler of the counted records for which `select` is true:
    /// median, 99th percentile and maximum, as details with this prefix.
    pub(crate) fn latency(
        &self,
        prefix: &str,
        select: impl Fn(u64) -> bool,
    ) -> BTreeMap<String, f64> {
        let first = (self.rate.per_second * self.rate.warm_up.as_secs()) as usize;
        let at = |of: &AtomicU64| of.load(Ordering::Relaxed) as f64;
        let mut milliseconds: Vec<f64> = (first..self.sent.len())
            .filter(|number| select(*number as u64))
            .map(|number| (at(&self.handled[number]) - at(&self.sent[number])) / 1e6)
            .collect();
        [("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0)]
            .map(|(name, share)| {
                (
                    format!("{prefix}{name}"),
                    quantile(&mut milliseconds, share),
                )
            })
            .into()
    }

    fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn warm_up_is_not_counted_and_duplicates_are() {
        let tracker = LatencyTracker::new(SteadyRate {
            per_second: 10,
            warm_up: Duration::from_secs(1),
            counted_time: Duration::from_secs(2),
        });
        tracker
            .publish(|number| {
                tracker.record_handled(Some(number.to_string().as_bytes()));
                std::future::ready(Ok(()))
            })
            .await
            .expect("published");
        tracker.wait_until_handled().await.expect("all came");
        tracker.record_handled(Some(b"29"));
        tracker.record_handled(Some(b"nonsense"));
        assert_eq!((tracker.counted(), tracker.duplicates()), (20, 1));
        assert!(tracker.latency("", |_| true)["max_ms"] < 1_000.0);
    }
}

//! A token bucket per caller.
//!
//! Owns the buckets, at most [`AdmissionSettings::principals_max`]. Knows nothing of the load of
//! the gateway.

use super::settings::AdmissionSettings;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The burst: what a caller may use at once, in seconds of its rate.
const BURST_S: f64 = 2.0;
/// Tolerates the rounding of repeated additions.
const EPSILON: f64 = 1e-6;

/// The token buckets of the callers.
#[derive(Debug)]
pub(super) struct RateLimit {
    buckets: HashMap<Arc<str>, Bucket>,
    principals_max: usize,
    wait_max: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Requests per second.
    rate: f64,
    tokens: f64,
    /// Tokens to come that refused requests were told to come back for.
    promised: f64,
    at: Instant,
}

impl RateLimit {
    /// Without any bucket. `settings` are in their range.
    pub(super) fn new(settings: &AdmissionSettings) -> Self {
        Self {
            buckets: HashMap::new(),
            principals_max: settings.principals_max,
            wait_max: settings.retry_horizon,
        }
    }

    /// Takes a token of this caller, whose rate is in requests per second.
    ///
    /// # Errors
    /// The time until a token is there that nobody else was told to come back for.
    pub(super) fn try_take(
        &mut self,
        principal: &Arc<str>,
        rate: u32,
        now: Instant,
    ) -> Result<(), Duration> {
        let wait_max = self.wait_max;
        let rate = f64::from(rate);
        match self.buckets.get_mut(&**principal) {
            Some(bucket) => bucket.try_take(rate, now, wait_max),
            None => {
                self.make_room(now);
                let mut bucket = Bucket::full(rate, now);
                let taken = bucket.try_take(rate, now, wait_max);
                self.buckets.insert(principal.clone(), bucket);
                taken
            }
        }
    }

    /// Returns the token of a request that was refused for another reason.
    pub(super) fn give_back(&mut self, principal: &str) {
        if let Some(bucket) = self.buckets.get_mut(principal) {
            bucket.tokens = (bucket.tokens + 1.0).min(bucket.burst());
        }
    }

    /// Forgets callers when there are too many: those with a full bucket, which loses nothing, and
    /// if that is not enough, an eighth of the rest. An eighth at once keeps the cost low on
    /// average.
    fn make_room(&mut self, now: Instant) {
        if self.buckets.len() < self.principals_max {
            return;
        }
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
        let kept = self.principals_max - self.principals_max / 8;
        if self.buckets.len() <= kept {
            return;
        }
        let excess = self.buckets.len() - kept;
        let mut used: Vec<Instant> = self.buckets.values().map(|bucket| bucket.at).collect();
        let (_, newest_forgotten, _) = used.select_nth_unstable(excess - 1);
        let newest_forgotten = *newest_forgotten;
        self.buckets
            .retain(|_, bucket| bucket.at > newest_forgotten);
    }
}

impl Bucket {
    fn full(rate: f64, now: Instant) -> Self {
        let mut bucket = Self {
            rate,
            tokens: 0.0,
            promised: 0.0,
            at: now,
        };
        bucket.tokens = bucket.burst();
        bucket
    }

    fn burst(&self) -> f64 {
        if self.rate > 0.0 {
            (self.rate * BURST_S).max(1.0)
        } else {
            0.0
        }
    }

    fn refill(&mut self, now: Instant) {
        let new = self.rate * now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + new).min(self.burst());
        self.promised = (self.promised - new).max(0.0);
        self.at = self.at.max(now);
    }

    fn is_full(mut self, now: Instant) -> bool {
        self.refill(now);
        self.promised <= 0.0 && self.tokens >= self.burst()
    }

    fn try_take(&mut self, rate: f64, now: Instant, wait_max: Duration) -> Result<(), Duration> {
        self.refill(now);
        // The rate of a caller can change while the gateway runs.
        self.rate = rate;
        self.tokens = self.tokens.min(self.burst());
        if self.tokens >= 1.0 - EPSILON {
            self.tokens = (self.tokens - 1.0).max(0.0);
            return Ok(());
        }
        let wait_s = (self.promised + 1.0 - self.tokens) / self.rate;
        let promised_max = self.rate * wait_max.as_secs_f64();
        self.promised = (self.promised + 1.0).min(promised_max);
        // Infinite for a rate of 0.
        Err(Duration::try_from_secs_f64(wait_s).map_or(wait_max, |wait| wait.min(wait_max)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(principals_max: usize) -> RateLimit {
        let settings = AdmissionSettings::default().with_principals_max(principals_max);
        RateLimit::new(&settings.in_range())
    }

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    #[test]
    fn a_caller_has_two_seconds_of_its_rate_at_once() {
        let (mut limit, now, caller) = (limit(10), Instant::now(), name("a"));
        for _ in 0..20 {
            assert_eq!(limit.try_take(&caller, 10, now), Ok(()));
        }
        assert_eq!(
            limit.try_take(&caller, 10, now),
            Err(Duration::from_millis(100))
        );
        assert_eq!(limit.try_take(&name("b"), 10, now), Ok(()));
    }

    #[test]
    fn refused_callers_find_a_token_when_they_come_back() {
        let (mut limit, start, caller) = (limit(10), Instant::now(), name("a"));
        while limit.try_take(&caller, 10, start).is_ok() {}
        let mut waits: Vec<u64> = (0..100)
            .map(|_| {
                let wait = limit.try_take(&caller, 10, start).expect_err("no token");
                wait.as_millis().div_ceil(1_000) as u64
            })
            .collect();
        waits.sort_unstable();
        assert!(waits.last() > Some(&9), "{waits:?}");
        for wait in waits {
            // Whole seconds, as the header has them.
            let now = start + Duration::from_secs(wait);
            assert_eq!(limit.try_take(&caller, 10, now), Ok(()), "after {wait} s");
        }
    }

    #[test]
    fn no_wait_exceeds_the_horizon() {
        let now = Instant::now();
        for rate in [0, 1, 3] {
            let (mut limit, caller) = (limit(10), name("a"));
            for _ in 0..1_000 {
                let wait = limit.try_take(&caller, rate, now).err().unwrap_or_default();
                assert!(wait <= Duration::from_secs(60), "{rate}: {wait:?}");
            }
            let wait = limit.try_take(&caller, rate, now);
            assert_eq!(wait, Err(Duration::from_secs(60)), "{rate}");
        }
    }

    #[test]
    fn a_token_that_is_given_back_is_used_again() {
        let (mut limit, now, caller) = (limit(10), Instant::now(), name("a"));
        while limit.try_take(&caller, 1, now).is_ok() {}
        limit.give_back("a");
        limit.give_back("unknown");
        assert_eq!(limit.try_take(&caller, 1, now), Ok(()));
    }

    #[test]
    fn full_buckets_are_forgotten_first() {
        let (mut limit, mut now) = (limit(16), Instant::now());
        let busy = name("busy");
        while limit.try_take(&busy, 1, now).is_ok() {}
        for n in 0..1_000 {
            now += Duration::from_millis(1);
            // These use one token of a thousand, and are full again after a millisecond or two.
            assert_eq!(
                limit.try_take(&name(&format!("idle-{n}")), 1_000, now),
                Ok(())
            );
            assert!(limit.buckets.len() <= 16, "{}", limit.buckets.len());
        }
        assert!(limit.buckets.contains_key("busy"));
    }

    #[test]
    fn callers_that_were_longest_away_are_forgotten_next() {
        let (mut limit, mut now) = (limit(16), Instant::now());
        for n in 0..100 {
            now += Duration::from_millis(1);
            let caller = name(&n.to_string());
            while limit.try_take(&caller, 1, now).is_ok() {}
            assert!(limit.buckets.len() <= 16, "{}", limit.buckets.len());
        }
        assert!(!limit.buckets.contains_key("0"));
        assert!(limit.buckets.contains_key("99"));
    }
}

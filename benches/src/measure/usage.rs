//! Resource usage of this process: wall-clock time, processor time, and peak memory. Reads `/proc`.

use anyhow::Context;
use std::time::{Duration, Instant};

/// Ticks per second in `/proc/self/stat`. On Linux it is 100 for programs of every architecture.
const TICKS_PER_SECOND: u64 = 100;

/// A point in time, with the processor time of all threads so far.
#[derive(Debug, Clone)]
pub(crate) struct UsageReading {
    at: Instant,
    processor: Option<Duration>,
}

/// The difference of two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) wall: Duration,
    pub(crate) processor: Duration,
}

impl UsageReading {
    /// The current moment.
    pub(crate) fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").ok();
        Self {
            at: Instant::now(),
            processor: stat.as_deref().and_then(processor_time),
        }
    }

    /// The difference to `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> anyhow::Result<Usage> {
        let until = self.processor.zip(earlier.processor);
        let (until, from) = until.context("/proc/self/stat cannot be read: this needs Linux")?;
        Ok(Usage {
            wall: self.at.duration_since(earlier.at),
            processor: until.saturating_sub(from),
        })
    }
}

/// User and system time: fields 14 and 15 of `stat`. The second field, in parentheses, may contain
/// any characters.
fn processor_time(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(
        (user + system) * 1_000 / TICKS_PER_SECOND,
    ))
}

/// The peak of this process's resident memory, in MiB.
pub(crate) fn resident_max_mib() -> anyhow::Result<f64> {
    memory_mib("VmHWM:")
}

/// The current resident memory of this process, in MiB.
pub(crate) fn resident_mib() -> anyhow::Result<f64> {
    memory_mib("VmRSS:")
}

fn memory_mib(name: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status");
    let status = status.context("/proc/self/status cannot be read: this needs Linux")?;
    let kib = memory_kib(&status, name);
    let kib = kib.with_context(|| format!("/proc/self/status has no {name}"))?;
    Ok(kib as f64 / 1024.0)
}

fn memory_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_adds_user_and_system_for_any_program_name() {
        let stat = "42 (a) b 7 (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 12345 1 2";
        assert_eq!(processor_time(stat), Some(Duration::from_millis(3_000)));
        assert_eq!(processor_time("nonsense"), None);
    }

    #[test]
    fn memory_is_found_by_its_name() {
        let status = "Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t   512 kB\nVmRSS:\t 400 kB\n";
        assert_eq!(memory_kib(status, "VmHWM:"), Some(512));
        assert_eq!(memory_kib(status, "VmRSS:"), Some(400));
        assert_eq!(memory_kib(status, "VmSwap:"), None);
    }
}

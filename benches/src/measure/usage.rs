//! Resource usage of a process, this one or a child: wall-clock time, processor time, and memory.
//! Reads `/proc`.

use anyhow::Context;
use std::time::{Duration, Instant};

/// Ticks per second in `/proc/PID/stat`. On Linux it is 100 for programs of every architecture.
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
    /// The current moment, and this process.
    pub(crate) fn now() -> Self {
        Self::of("self")
    }

    /// The current moment, and the child with this id. It may have ended, but not been waited for.
    pub(crate) fn of_child(pid: u32) -> Self {
        Self::of(&pid.to_string())
    }

    fn of(process: &str) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok();
        Self {
            at: Instant::now(),
            processor: stat.as_deref().and_then(processor_time),
        }
    }

    /// The difference to `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> anyhow::Result<Usage> {
        let until = self.processor.zip(earlier.processor);
        let (until, from) = until.context("/proc/PID/stat cannot be read: this needs Linux")?;
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
    memory_mib("self", "VmHWM:")
}

/// The peak of the resident memory of the child with this id, in MiB.
pub(crate) fn resident_max_mib_of_child(pid: u32) -> anyhow::Result<f64> {
    memory_mib(&pid.to_string(), "VmHWM:")
}

/// The current resident memory of this process, in MiB.
pub(crate) fn resident_mib() -> anyhow::Result<f64> {
    memory_mib("self", "VmRSS:")
}

fn memory_mib(process: &str, name: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path);
    let status = status.with_context(|| format!("{path} cannot be read: this needs Linux"))?;
    let kib = memory_kib(&status, name);
    let kib = kib.with_context(|| format!("{path} has no {name}"))?;
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
    fn a_child_has_readings_of_its_own() {
        let child = std::process::Command::new("sleep").arg("600").spawn();
        let mut child = child.expect("sleep runs");
        let reading = UsageReading::of_child(child.id());
        let memory = resident_max_mib_of_child(child.id());
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
        assert!(reading.processor.is_some());
        assert!(memory.is_ok());
        assert_eq!(UsageReading::of_child(child.id()).processor, None);
    }

    #[test]
    fn memory_is_found_by_its_name() {
        let status = "Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t   512 kB\nVmRSS:\t 400 kB\n";
        assert_eq!(memory_kib(status, "VmHWM:"), Some(512));
        assert_eq!(memory_kib(status, "VmRSS:"), Some(400));
        assert_eq!(memory_kib(status, "VmSwap:"), None);
    }
}

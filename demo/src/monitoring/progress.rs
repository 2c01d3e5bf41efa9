//! The display during a run, on standard error: redrawn in place on a terminal, a plain line every
//! few seconds elsewhere.

use super::latest::Look;
use super::sample::Progress;
use crate::report::grouped;
use crate::supervisor::{Daemon, State};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::time::{Duration, Instant};

/// Interval between plain lines, if nothing can be redrawn.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// Older numbers are displayed with their age.
const FRESH: Duration = Duration::from_secs(2);
/// Width of a row before the states of its daemons.
const ROW_WIDTH: usize = 58;

/// The display.
pub(crate) struct ProgressDisplay {
    bar: ProgressBar,
    started: Instant,
    plain_due: Instant,
    /// The faults of the last look.
    faults: Vec<String>,
}

impl ProgressDisplay {
    /// Starts the display and its clock.
    pub(crate) fn start() -> Self {
        let style = ProgressStyle::with_template("{msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let now = Instant::now();
        Self {
            bar: ProgressBar::new_spinner().with_style(style),
            started: now,
            plain_due: now + PLAIN_INTERVAL,
            faults: Vec::new(),
        }
    }

    /// Writes a permanent line.
    pub(crate) fn say(&self, line: &str) {
        let line = format!("{:6.1} s  {line}", self.started.elapsed().as_secs_f64());
        if self.bar.is_hidden() {
            tell(&line);
        } else {
            self.bar.println(line);
        }
    }

    /// Displays a look and the states of the processes. A fault that lasts is written once.
    pub(crate) fn show(&mut self, phase: &str, look: &Look, daemons: &[(&Daemon, bool)]) {
        for fault in look.faults.iter().filter(|f| !self.faults.contains(f)) {
            self.say(&format!("no fresh numbers of {fault}"));
        }
        self.faults.clone_from(&look.faults);
        let now = Instant::now();
        if !self.bar.is_hidden() {
            self.bar.set_message(block(phase, look, now, daemons));
            self.bar.tick();
        } else if self.plain_due <= now {
            self.plain_due = now + PLAIN_INTERVAL;
            let up = daemons
                .iter()
                .filter(|(daemon, _)| daemon.state == State::Up)
                .count();
            self.say(&format!(
                "{phase}{}: {}, {} effects, {up} of {} daemons up",
                age(now, look.oldest()),
                traffic(look),
                grouped(look.sample.effects()),
                daemons.len()
            ));
        }
    }

    /// Clears the redrawn lines.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Writes a line to standard error. If its reader is gone, the run continues without it.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn block(phase: &str, look: &Look, now: Instant, daemons: &[(&Daemon, bool)]) -> String {
    let mut block = format!("{phase}: {}\n", traffic(look));
    for (service, progress) in &look.sample.services {
        let lag = look.rates.lag.as_ref();
        let seconds = lag.and_then(|lag| lag.services.get(service).copied());
        let read_at = look.read_at.get(service).copied().unwrap_or(look.began);
        block.push_str(&row(service, *progress, seconds));
        for (daemon, ready) in daemons
            .iter()
            .filter(|(daemon, _)| daemon.service == *service)
        {
            block.push_str(&format!("  {}", state(daemon, *ready)));
        }
        block.push_str(&age(now, read_at));
        block.push('\n');
    }
    // The gateways have no group.
    let is_other = |daemon: &Daemon| !look.sample.services.contains_key(daemon.service);
    let others: Vec<_> = daemons
        .iter()
        .filter(|(daemon, _)| is_other(daemon))
        .collect();
    if let Some((daemon, _)) = others.first() {
        block.push_str(&format!("  {:<ROW_WIDTH$}", daemon.service));
        for (daemon, ready) in others {
            block.push_str(&format!("  {}", state(daemon, *ready)));
        }
        block.push('\n');
    }
    block
}

/// The rate of events, and the lag of all services.
fn traffic(look: &Look) -> String {
    let lag = look.rates.lag.as_ref().map(|lag| lag.all);
    let seconds = lag.map(|lag| format!(" ({lag:.1} s of work)"));
    let seconds = seconds.unwrap_or_default();
    format!(
        "{:.0}/s published, lag {}{seconds}",
        look.rates.published,
        look.sample.lag()
    )
}

/// The row of a service before the states of its daemons.
fn row(service: &str, progress: Progress, lag_seconds: Option<f64>) -> String {
    let seconds = lag_seconds.map(|lag| format!("({lag:.1} s)"));
    let seconds = seconds.unwrap_or_default();
    let Progress { lag, effects, .. } = progress;
    let effects = grouped(effects);
    format!("  {service:<14} {effects:>10} effects  lag {lag:>6} {seconds:>10}  ")
}

/// The age of numbers that are not fresh.
fn age(now: Instant, read_at: Instant) -> String {
    let age = now.saturating_duration_since(read_at);
    match age > FRESH {
        true => format!(" (as of {} s ago)", age.as_secs()),
        false => String::new(),
    }
}

fn state(daemon: &Daemon, ready: bool) -> &'static str {
    match daemon.state {
        State::Up if ready => "ready",
        State::Up => "starting",
        State::Frozen(_) => "frozen",
        State::Ending(..) => "ending",
        State::Down(_) => "down",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::rates::{LagSeconds, Rates};
    use crate::monitoring::sample::Sample;

    fn look(now: Instant, lag: Option<LagSeconds>) -> Look {
        let progress = |lag| Progress {
            lag,
            settled: 1,
            effects: 1_234,
        };
        Look {
            began: now,
            sample: Sample {
                services: [("payments", progress(120)), ("shipping", progress(30))].into(),
                ..Sample::default()
            },
            rates: Rates {
                published: 301.6,
                lag,
            },
            read_at: [
                ("payments", now),
                ("shipping", now - Duration::from_secs(3)),
            ]
            .into(),
            positions_at: Some(now),
            faults: Vec::new(),
        }
    }

    #[test]
    fn lag_is_displayed_in_records_and_seconds_of_work() {
        let now = Instant::now();
        let lag = LagSeconds {
            services: [("payments", 0.44), ("shipping", 1.25)].into(),
            all: 0.5,
        };
        let text = block("placing orders", &look(now, Some(lag)), now, &[]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "placing orders: 302/s published, lag 150 (0.5 s of work)"
        );
        assert!(lines[1].contains("lag    120    (0.4 s)"), "{text}");
        let text = block("placing orders", &look(now, None), now, &[]);
        assert!(text.starts_with("placing orders: 302/s published, lag 150\n"));
    }

    #[test]
    fn only_numbers_that_are_old_have_an_age() {
        let now = Instant::now();
        let text = block("draining", &look(now, None), now, &[]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("  payments") && !lines[1].contains("ago"));
        assert!(lines[2].ends_with(" (as of 3 s ago)"), "{text}");
    }

    #[test]
    fn all_rows_have_the_same_width() {
        let long = row("notifications", Progress::default(), Some(1_234.5));
        assert_eq!(long.len(), 2 + ROW_WIDTH);
        assert_eq!(
            row("payments", Progress::default(), None).len(),
            2 + ROW_WIDTH
        );
    }
}

//! The display during a run, on standard error: redrawn in place on a terminal, a plain line every
//! few seconds elsewhere.

use super::latest::Round;
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
const ROW_WIDTH: usize = 59;

/// The display.
pub(crate) struct ProgressDisplay {
    bar: ProgressBar,
    started: Instant,
    plain_due: Instant,
    /// The faults of the last round.
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

    /// Writes a line that stays, with the time since the start.
    pub(crate) fn write_line(&self, line: &str) {
        let line = format!("{:6.1} s  {line}", self.started.elapsed().as_secs_f64());
        if self.bar.is_hidden() {
            write_to_stderr(&line);
        } else {
            self.bar.println(line);
        }
    }

    /// Displays a round and the states of the processes. A fault that lasts is written once.
    pub(crate) fn show(&mut self, phase: &str, round: &Round, daemons: &[(&Daemon, bool)]) {
        for fault in round.faults.iter().filter(|f| !self.faults.contains(f)) {
            self.write_line(&format!("no fresh numbers from {fault}"));
        }
        self.faults.clone_from(&round.faults);
        let now = Instant::now();
        if !self.bar.is_hidden() {
            self.bar.set_message(block(phase, round, now, daemons));
            self.bar.tick();
        } else if self.plain_due <= now {
            self.plain_due = now + PLAIN_INTERVAL;
            let up = daemons
                .iter()
                .filter(|(daemon, _)| daemon.state == State::Up)
                .count();
            self.write_line(&format!(
                "{phase}{}: {}, {} effects, {up} of {} daemons up",
                age(now, round.oldest()),
                traffic(round),
                grouped(round.sample.effects()),
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
pub(crate) fn write_to_stderr(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn block(phase: &str, round: &Round, now: Instant, daemons: &[(&Daemon, bool)]) -> String {
    let mut block = format!("{phase}: {}\n", traffic(round));
    for (service, progress) in &round.sample.services {
        let lag = round.rates.lag.as_ref();
        let seconds = lag.and_then(|lag| lag.services.get(service).copied());
        let read_at = round.read_at.get(service).copied().unwrap_or(round.ended);
        block.push_str(&row(service, *progress, seconds));
        for (daemon, ready) in daemons
            .iter()
            .filter(|(daemon, _)| daemon.service == *service)
        {
            block.push_str(&format!("  {}", state(daemon, *ready)));
        }
        block.push_str(&age(now, read_at));
        block.push_str(&unknown(progress.unknown));
        block.push('\n');
    }
    // The gateways have no group.
    let is_other = |daemon: &Daemon| !round.sample.services.contains_key(daemon.service);
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
fn traffic(round: &Round) -> String {
    let lag = round.rates.lag.as_ref().map(|lag| lag.all);
    let seconds = lag.map(|lag| format!(" ({lag:.1} s of work)"));
    let seconds = seconds.unwrap_or_default();
    let sample = &round.sample;
    let (_, known) = sample.known();
    format!(
        "{:.0}/s published, lag {}{seconds}{}",
        round.rates.published,
        lag_of(sample.lag(), known),
        unknown(sample.unknown())
    )
}

/// A lag that is the sum of this many partitions.
fn lag_of(lag: i64, known: usize) -> String {
    match known {
        0 => "unknown".to_owned(),
        _ => lag.to_string(),
    }
}

/// The number of partitions that a lag lacks.
fn unknown(partitions: usize) -> String {
    match partitions {
        0 => String::new(),
        _ => format!(", partitions not read yet: {partitions}"),
    }
}

/// The row of a service before the states of its daemons.
fn row(service: &str, progress: Progress, lag_seconds: Option<f64>) -> String {
    let seconds = lag_seconds.map(|lag| format!("({lag:.1} s)"));
    let seconds = seconds.unwrap_or_default();
    let effects = grouped(progress.effects);
    let lag = lag_of(progress.lag, progress.known);
    format!("  {service:<14} {effects:>10} effects  lag {lag:>7} {seconds:>10}  ")
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

    fn round(now: Instant, lag: Option<LagSeconds>) -> Round {
        let progress = |lag| Progress {
            lag,
            settled: 1,
            effects: 1_234,
            known: 12,
            unknown: 0,
        };
        Round {
            ended: now,
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
            gateway_read_at: now,
            listed_at: now,
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
        let text = block("placing orders", &round(now, Some(lag)), now, &[]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "placing orders: 302/s published, lag 150 (0.5 s of work)"
        );
        assert!(lines[1].contains("lag     120    (0.4 s)"), "{text}");
        let text = block("placing orders", &round(now, None), now, &[]);
        assert!(text.starts_with("placing orders: 302/s published, lag 150\n"));
    }

    #[test]
    fn only_numbers_that_are_old_have_an_age() {
        let now = Instant::now();
        let text = block("draining", &round(now, None), now, &[]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("  payments") && !lines[1].contains("ago"));
        assert!(lines[2].ends_with(" (as of 3 s ago)"), "{text}");
    }

    #[test]
    fn a_lag_that_was_never_read_is_unknown_and_not_zero() {
        let now = Instant::now();
        let mut round = round(now, None);
        let payments = round.sample.services.get_mut("payments");
        payments.expect("its progress").unknown = 3;
        let unread = Progress {
            unknown: 12,
            ..Progress::default()
        };
        round.sample.services.insert("shipping", unread);
        let text = block("placing orders", &round, now, &[]);
        let lines: Vec<&str> = text.lines().collect();
        let rest = |partitions| format!(", partitions not read yet: {partitions}");
        let first = format!("placing orders: 302/s published, lag 120{}", rest(15));
        assert_eq!(lines[0], first);
        assert!(lines[1].contains("lag     120 ") && lines[1].ends_with(&rest(3)));
        assert!(lines[2].contains("lag unknown ") && lines[2].ends_with(&rest(12)));
        round.sample = Sample::default();
        assert!(traffic(&round).ends_with("lag unknown"), "{text}");
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

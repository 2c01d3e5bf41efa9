//! The display during a run, on standard error: redrawn in place on a terminal, a plain line every
//! few seconds elsewhere.

use super::sample::Sample;
use crate::report::grouped;
use crate::supervisor::{Daemon, State};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::time::{Duration, Instant};

/// Interval between plain lines, if nothing can be redrawn.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Samples arrive every second. If they do not change for this long, nothing is published.
const STILL: Duration = Duration::from_secs(3);
/// Older numbers are displayed with their age.
const FRESH: Duration = Duration::from_secs(2);

/// The display.
pub(crate) struct ProgressDisplay {
    bar: ProgressBar,
    started: Instant,
    plain_due: Instant,
    before: Option<(Instant, Sample)>,
    rate: f64,
    /// The last failed look that was reported.
    complained: Option<Instant>,
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
            before: None,
            rate: 0.0,
            complained: None,
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

    /// Writes why there is no sample, once for each look.
    pub(crate) fn complain(&mut self, look: Instant, line: &str) {
        if self.complained.replace(look) != Some(look) {
            self.say(line);
        }
    }

    /// Displays a sample and the states of the processes.
    pub(crate) fn show(
        &mut self,
        phase: &str,
        sample: &Sample,
        age: Duration,
        daemons: &[(&Daemon, bool)],
    ) {
        let phase = &match age > FRESH {
            true => format!("{phase} (as of {} s ago)", age.as_secs()),
            false => phase.to_owned(),
        };
        let now = Instant::now();
        let rate = self.rate(now, sample);
        if !self.bar.is_hidden() {
            let block = block(phase, sample, rate, daemons);
            self.bar.set_message(block);
            self.bar.tick();
        } else if self.plain_due <= now {
            self.plain_due = now + PLAIN_INTERVAL;
            let effects = sample
                .services
                .values()
                .map(|progress| progress.effects)
                .sum();
            let up = daemons
                .iter()
                .filter(|(daemon, _)| daemon.state == State::Up)
                .count();
            self.say(&format!(
                "{phase}: {rate}/s published, {} effects, lag {}, {up} of {} daemons up",
                grouped(effects),
                sample.lag(),
                daemons.len()
            ));
        }
    }

    /// Clears the redrawn lines.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// Records published per second between the last two different samples. 0 after a while without
    /// change.
    fn rate(&mut self, now: Instant, sample: &Sample) -> u64 {
        let Some((then, before)) = &self.before else {
            self.before = Some((now, sample.clone()));
            return 0;
        };
        let seconds = now.duration_since(*then).as_secs_f64();
        if before != sample {
            self.rate = (sample.end - before.end).max(0) as f64 / seconds.max(0.001);
            self.before = Some((now, sample.clone()));
        } else if seconds > STILL.as_secs_f64() {
            self.rate = 0.0;
        }
        self.rate.round() as u64
    }
}

/// Writes a line to standard error. If its reader is gone, the run continues without it.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn block(phase: &str, sample: &Sample, rate: u64, daemons: &[(&Daemon, bool)]) -> String {
    let mut block = format!("{phase}: {rate}/s published\n");
    for (service, progress) in &sample.services {
        block.push_str(&format!(
            "  {service:<14} {:>10} effects  lag {:>6}  ",
            grouped(progress.effects),
            progress.lag
        ));
        for (daemon, ready) in daemons
            .iter()
            .filter(|(daemon, _)| daemon.service == *service)
        {
            block.push_str(&format!("  {}", state(daemon, *ready)));
        }
        block.push('\n');
    }
    // The gateways have no group.
    let is_other = |daemon: &Daemon| !sample.services.contains_key(daemon.service);
    let others: Vec<_> = daemons
        .iter()
        .filter(|(daemon, _)| is_other(daemon))
        .collect();
    if let Some((daemon, _)) = others.first() {
        block.push_str(&format!("  {:<47}", daemon.service));
        for (daemon, ready) in others {
            block.push_str(&format!("  {}", state(daemon, *ready)));
        }
        block.push('\n');
    }
    block
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

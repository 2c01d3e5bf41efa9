//! What a watcher sees while the demo runs, on standard error: redrawn in place on a terminal, a plain line every few
//! seconds elsewhere.

use crate::fleet::{Daemon, State};
use crate::ledger::grouped;
use crate::sample::Sample;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::time::{Duration, Instant};

/// How often a plain line is written where nothing can be redrawn.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Samples come every second or two: one that stays the same for that long means that nothing is published.
const STILL: Duration = Duration::from_secs(4);

/// The display.
pub(crate) struct Live {
    bar: ProgressBar,
    started: Instant,
    plain_due: Instant,
    before: Option<(Instant, Sample)>,
    rate: f64,
}

impl Live {
    /// Starts it; its clock starts too.
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
        }
    }

    /// Writes a line that stays.
    pub(crate) fn say(&self, line: &str) {
        let line = format!("{:6.1} s  {line}", self.started.elapsed().as_secs_f64());
        if self.bar.is_hidden() {
            tell(&line);
        } else {
            self.bar.println(line);
        }
    }

    /// Shows a sample and the processes' states.
    pub(crate) fn show(&mut self, phase: &str, sample: &Sample, daemons: &[(&Daemon, bool)]) {
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

    /// Clears what was redrawn.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// Records published a second between the last two samples that differ; none once nothing has changed for a while.
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

/// Writes a line to standard error. Where nobody reads it any more, the run goes on without.
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

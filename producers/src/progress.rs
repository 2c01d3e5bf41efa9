//! Progress on standard error: a bar on a terminal, a line every few seconds elsewhere.
//!
//! Contains counts and time only, nothing about the counted items.

use evenkeel::telemetry::say;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Interval at which a terminal is redrawn.
const TERMINAL_PERIOD: Duration = Duration::from_millis(200);
/// Interval between lines if standard error is no terminal.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// Displays the progress of a command until it is dropped.
#[derive(Debug)]
pub struct ProgressDisplay {
    counts: Arc<Counts>,
    bar: Option<ProgressBar>,
    painter: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    acknowledged: AtomicU64,
    position: AtomicU64,
}

impl ProgressDisplay {
    /// Starts a display towards the position `total`, if that is known. A quiet display shows
    /// messages only.
    pub fn start(quiet: bool, total: Option<u64>) -> Self {
        let counts = Arc::new(Counts::default());
        if quiet {
            return Self {
                counts,
                bar: None,
                painter: None,
            };
        }
        let bar = std::io::stderr().is_terminal().then(|| bar(total));
        let painter = tokio::spawn(paint(counts.clone(), bar.clone(), total));
        Self {
            counts,
            bar,
            painter: Some(painter),
        }
    }

    /// Updates the number of acknowledged events and their position within the total.
    pub fn advance(&self, acknowledged: u64, position: u64) {
        self.counts
            .acknowledged
            .store(acknowledged, Ordering::Relaxed);
        self.counts.position.store(position, Ordering::Relaxed);
    }

    /// Writes a permanent message, above the bar if there is one.
    pub fn say(&self, message: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(message)),
            None => say(message),
        }
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        if let Some(painter) = &self.painter {
            painter.abort();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    match total {
        Some(total) => {
            let style = ProgressStyle::with_template("{bar:24} {msg}")
                .expect("the template is a constant that the tests parse");
            ProgressBar::new(total).with_style(style)
        }
        None => ProgressBar::new_spinner(),
    }
}

async fn paint(counts: Arc<Counts>, bar: Option<ProgressBar>, total: Option<u64>) {
    let started = Instant::now();
    let period = if bar.is_some() {
        TERMINAL_PERIOD
    } else {
        LINE_PERIOD
    };
    let mut ticks = tokio::time::interval(period);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let position = counts.position.load(Ordering::Relaxed);
        let acknowledged = counts.acknowledged.load(Ordering::Relaxed);
        let message = sentence(acknowledged, position, total, started.elapsed());
        match &bar {
            Some(bar) => {
                bar.set_position(position);
                bar.set_message(message);
            }
            None => say(&message),
        }
    }
}

/// The finished work, its rate, and the remaining time at the average rate so far.
fn sentence(acknowledged: u64, position: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = per_second(acknowledged, elapsed);
    let done = format!("{acknowledged} acknowledged, {rate:.0}/s");
    let Some(total) = total.filter(|total| *total > 0) else {
        return done;
    };
    let percent = 100 * position.min(total) / total;
    if acknowledged == 0 {
        return format!("{done}, {percent} %");
    }
    let left = elapsed.as_secs_f64() * total.saturating_sub(position) as f64 / position as f64;
    let left = jiff::SignedDuration::from_secs(left.ceil() as i64);
    format!("{done}, {percent} %, {left:#} left")
}

/// A rate per second. 0 before any time has passed.
pub fn per_second(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() {
        0.0
    } else {
        count as f64 / elapsed.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_shows_rate_and_with_a_total_the_time_left() {
        let check = |acknowledged, position, total, expected: &str| {
            let text = sentence(acknowledged, position, total, Duration::from_secs(10));
            assert_eq!(text, expected);
        };
        check(
            1000,
            250,
            Some(1000),
            "1000 acknowledged, 100/s, 25 %, 30s left",
        );
        check(
            1000,
            100,
            Some(1000),
            "1000 acknowledged, 100/s, 10 %, 1m 30s left",
        );
        check(0, 0, Some(1000), "0 acknowledged, 0/s, 0 %");
        check(1000, 0, None, "1000 acknowledged, 100/s");
        check(5, 5, Some(0), "5 acknowledged, 0/s");
    }

    #[test]
    fn the_bars_template_can_be_parsed() {
        assert_eq!(bar(Some(7)).length(), Some(7));
    }
}

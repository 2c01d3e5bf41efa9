//! What becomes of the lines, in their order: counts, names the bad ones, remembers how far it got.

use super::OnError;
use super::resume::{Progress, ResumeFile};
use crate::display::Display;
use crate::pipeline::Outcome;
use evenkeel::publisher::PublishError;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How often progress is saved: what a kill makes the next run send again.
const SAVE_PERIOD: Duration = Duration::from_secs(1);

/// A line that was read.
#[derive(Debug)]
pub(super) struct Entry {
    /// The number of its first line.
    pub(super) number: u64,
    /// The number of its last line.
    pub(super) last: u64,
    /// Where the next line begins.
    pub(super) end_bytes: u64,
    /// Why it is bad.
    pub(super) bad: Option<String>,
}

/// Settles lines; see [`Settler::settle`].
pub(super) struct Settler {
    start: Progress,
    settled: Settled,
    on_error: OnError,
    display: Display,
    saved_at: Instant,
}

/// How far the lines are settled, and what keeps them from going further.
pub(super) struct Settled {
    /// How far.
    pub(super) progress: Progress,
    /// Where that is kept; none where it cannot be.
    pub(super) resume: Option<ResumeFile>,
    /// The next line is bad and was to stop the import.
    pub(super) stopped_at_bad_line: bool,
    /// The line that the brokers did not take, and why.
    pub(super) failure: Option<(u64, PublishError)>,
}

impl Settler {
    pub(super) fn new(
        start: Progress,
        on_error: OnError,
        display: Display,
        resume: Option<ResumeFile>,
    ) -> Self {
        Self {
            start,
            settled: Settled {
                progress: start,
                resume,
                stopped_at_bad_line: false,
                failure: None,
            },
            on_error,
            display,
            saved_at: Instant::now(),
        }
    }

    /// Counts a line. Breaks where the import cannot go beyond it: progress stays before it then.
    pub(super) fn settle(&mut self, entry: Entry, outcome: Outcome) -> ControlFlow<()> {
        let Entry {
            number,
            last,
            end_bytes,
            bad,
        } = entry;
        if let Some(reason) = bad {
            self.display.say(&format!("line {number}: {reason}"));
            if self.on_error == OnError::Stop {
                self.settled.stopped_at_bad_line = true;
                return ControlFlow::Break(());
            }
            self.settled.progress.bad_lines += 1;
        }
        match outcome {
            Outcome::NotSent => {}
            Outcome::Answered(Ok(_)) => self.settled.progress.acknowledged += 1,
            Outcome::Answered(Err(error)) => {
                self.settled.failure = Some((number, error));
                return ControlFlow::Break(());
            }
            Outcome::Unanswered => return ControlFlow::Break(()),
        }
        self.advance(last, end_bytes);
        ControlFlow::Continue(())
    }

    /// How it ended; takes the display off the terminal.
    pub(super) fn finish(self) -> Settled {
        self.settled
    }

    fn advance(&mut self, line: u64, end_bytes: u64) {
        let progress = &mut self.settled.progress;
        progress.line = line;
        progress.end_bytes = end_bytes;
        self.display.advance(
            progress.acknowledged - self.start.acknowledged,
            end_bytes - self.start.end_bytes,
        );
        if self.saved_at.elapsed() < SAVE_PERIOD {
            return;
        }
        self.saved_at = Instant::now();
        if let Err(reason) = self.settled.save() {
            self.display.say(&reason);
        }
    }
}

impl Settled {
    /// Saves how far it got. Where that is impossible, says why and tries no more.
    pub(super) fn save(&mut self) -> Result<(), String> {
        let Some(resume) = self.resume.take() else {
            return Ok(());
        };
        resume.save(self.progress).map_err(|error| {
            let path = resume.path().display();
            format!("cannot write {path}: {error}; an interrupted import begins at line 1 again, with the same ids")
        })?;
        self.resume = Some(resume);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::publisher::Receipt;

    fn entry(number: u64, bad: Option<&str>) -> Entry {
        Entry {
            number,
            last: number,
            end_bytes: 10 * number,
            bad: bad.map(str::to_owned),
        }
    }

    fn acknowledged() -> Outcome {
        Outcome::Answered(Ok(Receipt {
            topic: "topic".to_owned(),
            partition: 0,
            offset: 0,
        }))
    }

    fn unknown() -> Outcome {
        Outcome::Answered(Err(PublishError::Unknown {
            topic: "topic".to_owned(),
            reason: "timed out".to_owned(),
        }))
    }

    /// Settles until a break; the progress and whether there was one.
    fn settled(on_error: OnError, entries: Vec<(Entry, Outcome)>) -> (Progress, bool) {
        let mut settler = Settler::new(
            Progress::default(),
            on_error,
            Display::start(true, None),
            None,
        );
        let broke = entries
            .into_iter()
            .any(|(entry, outcome)| settler.settle(entry, outcome).is_break());
        (settler.finish().progress, broke)
    }

    #[test]
    fn bad_lines_are_counted_and_passed_by() {
        let entries = vec![
            (entry(1, None), Outcome::NotSent),
            (entry(2, Some("no order")), Outcome::NotSent),
            (entry(3, None), acknowledged()),
        ];
        let expected = Progress {
            line: 3,
            end_bytes: 30,
            acknowledged: 1,
            bad_lines: 1,
        };
        assert_eq!(settled(OnError::Continue, entries), (expected, false));
    }

    #[test]
    fn progress_stays_before_a_bad_line_that_stops_the_import() {
        let entries = vec![
            (entry(1, None), acknowledged()),
            (entry(2, Some("no order")), Outcome::NotSent),
        ];
        let (progress, broke) = settled(OnError::Stop, entries);
        assert_eq!((progress.line, broke), (1, true));
    }

    #[test]
    fn progress_stays_before_a_line_that_was_not_acknowledged_though_later_ones_were() {
        for outcome in [unknown(), Outcome::Unanswered] {
            let entries = vec![
                (entry(1, None), acknowledged()),
                (entry(2, None), outcome),
                (entry(3, None), acknowledged()),
            ];
            let (progress, broke) = settled(OnError::Continue, entries);
            assert_eq!((progress.line, progress.acknowledged, broke), (1, 1, true));
        }
    }
}

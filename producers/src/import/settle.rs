//! Settles lines in order: counts them, reports bad ones, and stores the progress.

use super::OnError;
use super::lines::At;
use super::resume::{Progress, ResumeFile};
use crate::pipeline::Outcome;
use crate::progress::ProgressDisplay;
use evenkeel::publisher::PublishError;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Interval at which progress is saved. After a kill, the next run sends the lines of one interval
/// again.
const SAVE_PERIOD: Duration = Duration::from_secs(1);

/// A line that was read.
#[derive(Debug)]
pub(super) struct Entry {
    /// Number of its first line.
    pub(super) number: u64,
    /// Position after it.
    pub(super) end: At,
    /// The reason why it is bad.
    pub(super) bad: Option<String>,
}

/// Settles lines; see [`Settler::settle`].
pub(super) struct Settler {
    start: Progress,
    settled: Settled,
    on_error: OnError,
    display: ProgressDisplay,
    saved_at: Instant,
}

/// The progress of settling, and the reason why it stopped.
pub(super) struct Settled {
    /// The progress.
    pub(super) progress: Progress,
    /// The progress file. `None` if there is none or it cannot be written.
    pub(super) resume: Option<ResumeFile>,
    /// Whether the next line is bad and stops the import.
    pub(super) stopped_at_bad_line: bool,
    /// The line that the brokers rejected, with the error.
    pub(super) failure: Option<(u64, PublishError)>,
}

impl Settler {
    pub(super) fn new(
        start: Progress,
        on_error: OnError,
        display: ProgressDisplay,
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

    /// Counts a line. Breaks if the import cannot continue after it; the progress then remains
    /// before it.
    pub(super) fn settle(&mut self, entry: Entry, outcome: Outcome) -> ControlFlow<()> {
        let Entry { number, end, bad } = entry;
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
        self.advance(end);
        ControlFlow::Continue(())
    }

    /// Returns the result and removes the progress display from the terminal.
    pub(super) fn finish(self) -> Settled {
        self.settled
    }

    fn advance(&mut self, end: At) {
        let progress = &mut self.settled.progress;
        progress.at = end;
        self.display.advance(
            progress.acknowledged - self.start.acknowledged,
            end.bytes - self.start.at.bytes,
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
    /// Saves the progress. If that fails, returns the reason and never tries again.
    pub(super) fn save(&mut self) -> Result<(), String> {
        let Some(resume) = self.resume.take() else {
            return Ok(());
        };
        resume.save(self.progress).map_err(|error| {
            let path = resume.path().display();
            format!(
                "cannot write {path}: {error}; an interrupted import will start at line 1 again, \
                 with the same ids"
            )
        })?;
        self.resume = Some(resume);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::publisher::Receipt;

    fn at(line: u64) -> At {
        At {
            line,
            bytes: 10 * line,
            digest: 0,
        }
    }

    fn entry(number: u64, bad: Option<&str>) -> Entry {
        Entry {
            number,
            end: at(number),
            bad: bad.map(str::to_owned),
        }
    }

    fn acknowledged() -> Outcome {
        Outcome::Answered(Ok(Receipt::new("topic", 0, 0)))
    }

    fn unknown() -> Outcome {
        Outcome::Answered(Err(PublishError::Unknown {
            topic: "topic".to_owned(),
            reason: "timed out".to_owned(),
        }))
    }

    /// Settles until a break. Returns the progress and whether there was a break.
    fn settled(on_error: OnError, entries: Vec<(Entry, Outcome)>) -> (Progress, bool) {
        let mut settler = Settler::new(
            Progress::default(),
            on_error,
            ProgressDisplay::start(true, None),
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
            at: at(3),
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
        assert_eq!((progress.at.line, broke), (1, true));
    }

    /// Also where later lines were acknowledged.
    #[test]
    fn progress_stays_before_the_first_unacknowledged_line() {
        for outcome in [unknown(), Outcome::Unanswered] {
            let entries = vec![
                (entry(1, None), acknowledged()),
                (entry(2, None), outcome),
                (entry(3, None), acknowledged()),
            ];
            let (progress, broke) = settled(OnError::Continue, entries);
            assert_eq!(
                (progress.at.line, progress.acknowledged, broke),
                (1, 1, true)
            );
        }
    }
}

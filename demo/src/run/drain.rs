//! The drain: waits until every group has settled all records, including those that other groups
//! publish meanwhile.

use super::load::show;
use crate::monitoring::latest::Look;
use crate::monitoring::progress::ProgressDisplay;
use crate::monitoring::sample::Sample;
use crate::monitoring::sampler::Watch;
use crate::supervisor::Supervisor;
use std::time::{Duration, Instant};

/// The drain fails after this time without progress. It is longer than a dead member's session and
/// a rebalance.
const STILL_MAX: Duration = Duration::from_secs(90);
/// The drain fails after this time, even with progress.
const DRAIN_MAX: Duration = Duration::from_secs(3_600);

/// Waits until the groups are drained. Returns the problem if they are not by the deadline.
pub(super) async fn until_drained(
    supervisor: &mut Supervisor,
    watch: &mut Watch,
    display: &mut ProgressDisplay,
) -> anyhow::Result<Vec<String>> {
    let started = Instant::now();
    watch.read_whole();
    let mut moved = started;
    let mut last: Option<Sample> = None;
    let mut before: Option<Sample> = None;
    loop {
        for line in supervisor.tick().await? {
            display.say(&line);
        }
        let Ok(next) = tokio::time::timeout(Duration::from_millis(100), watch.next()).await else {
            continue;
        };
        let look = next?;
        if last.as_ref() != Some(&look.sample) {
            moved = Instant::now();
            last = Some(look.sample.clone());
        }
        if counts(&look, started) {
            if drained(before.as_ref(), &look.sample) {
                display.say(&format!(
                    "drained after {:.1} s",
                    started.elapsed().as_secs_f64()
                ));
                return Ok(Vec::new());
            }
            before = Some(look.sample);
        }
        show("draining", supervisor, watch, display);
        if moved.elapsed() > STILL_MAX || started.elapsed() > DRAIN_MAX {
            return Ok(vec![given_up(last.as_ref(), started.elapsed())]);
        }
    }
}

/// Whether a look tells the state of the drain: all of its numbers are of one round, and that began
/// after the drain did, as the last orders may be newer than an earlier one.
fn counts(look: &Look, started: Instant) -> bool {
    look.is_complete() && look.began >= started
}

/// Two looks without lag, with the same end offsets, and without unpublished events. Between them
/// the groups had settled all records: nothing was written from the first to the second. One look
/// is not sufficient: its positions are not of one time, and the group that was read last may have
/// published records for the one that was read first.
fn drained(before: Option<&Sample>, sample: &Sample) -> bool {
    let is_done = |sample: &Sample| sample.lag() == 0 && !sample.is_unpublished;
    before.is_some_and(|before| is_done(before) && is_done(sample) && before.end == sample.end)
}

fn given_up(last: Option<&Sample>, waited: Duration) -> String {
    let lags: Vec<String> = last
        .iter()
        .flat_map(|sample| &sample.services)
        .filter(|(_, progress)| progress.lag > 0)
        .map(|(service, progress)| format!("{service} {}", progress.lag))
        .collect();
    format!(
        "not drained after {} s, lag: {}",
        waited.as_secs(),
        lags.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::rates::Rates;
    use crate::monitoring::sample::Progress;

    fn sample(lag: i64, end: i64) -> Sample {
        let progress = Progress {
            lag,
            settled: 7,
            effects: 5,
        };
        Sample {
            services: [("payments", progress)].into(),
            end,
            ..Sample::default()
        }
    }

    #[test]
    fn one_look_without_lag_is_not_enough() {
        assert!(!drained(None, &sample(0, 10)));
        assert!(!drained(Some(&sample(1, 10)), &sample(0, 10)));
        assert!(!drained(Some(&sample(0, 9)), &sample(0, 10)));
        assert!(!drained(Some(&sample(0, 10)), &sample(2, 10)));
        assert!(drained(Some(&sample(0, 10)), &sample(0, 10)));
        let unpublished = Sample {
            is_unpublished: true,
            ..sample(0, 10)
        };
        assert!(!drained(Some(&sample(0, 10)), &unpublished));
        assert!(!drained(Some(&unpublished), &sample(0, 10)));
    }

    #[test]
    fn a_late_part_or_an_earlier_look_does_not_count() {
        let started = Instant::now();
        let later = started + Duration::from_secs(1);
        let look = |began, read_at| Look {
            began,
            sample: sample(0, 10),
            rates: Rates::default(),
            read_at: [("payments", read_at)].into(),
            positions_at: Some(read_at),
            faults: Vec::new(),
        };
        assert!(counts(&look(started, started), started));
        assert!(counts(&look(started, later), started));
        assert!(!counts(&look(later, started), started));
        assert!(!counts(&look(started, later), later));
    }

    #[test]
    fn giving_up_names_the_groups_that_lag() {
        let line = given_up(Some(&sample(3, 10)), Duration::from_secs(91));
        assert_eq!(line, "not drained after 91 s, lag: payments 3");
    }
}

//! The drain: waits until every group has settled all records, including those that other groups
//! publish meanwhile.

use super::load::show;
use crate::monitoring::progress::ProgressDisplay;
use crate::monitoring::sample::{Sample, Watch};
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
    let mut moved = started;
    let mut before: Option<Sample> = None;
    loop {
        for line in supervisor.tick().await? {
            display.say(&line);
        }
        let Ok(next) = tokio::time::timeout(Duration::from_millis(100), watch.next()).await else {
            continue;
        };
        if let Ok(sample) = next? {
            if drained(before.as_ref(), &sample) {
                display.say(&format!(
                    "drained after {:.1} s",
                    started.elapsed().as_secs_f64()
                ));
                return Ok(Vec::new());
            }
            if before.as_ref() != Some(&sample) {
                moved = Instant::now();
            }
            before = Some(sample);
        }
        show("draining", supervisor, watch, display).await;
        if moved.elapsed() > STILL_MAX || started.elapsed() > DRAIN_MAX {
            return Ok(vec![given_up(before.as_ref(), started.elapsed())]);
        }
    }
}

/// Two looks without lag, with the same end offsets, and without unpublished events. One look is
/// not sufficient: the group that was read last may have published records for the one that was
/// read first.
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
    use crate::monitoring::sample::Progress;

    fn sample(lag: i64, end: i64) -> Sample {
        let progress = Progress { lag, effects: 5 };
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
    fn giving_up_names_the_groups_that_lag() {
        let line = given_up(Some(&sample(3, 10)), Duration::from_secs(91));
        assert_eq!(line, "not drained after 91 s, lag: payments 3");
    }
}

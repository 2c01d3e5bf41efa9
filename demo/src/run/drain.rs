//! The drain: waits until every group has settled all records, including those that other groups
//! publish meanwhile.

use super::load::show;
use crate::monitoring::latest::Round;
use crate::monitoring::progress::ProgressDisplay;
use crate::monitoring::sample::Progress;
use crate::monitoring::sampler::watch::Watch;
use crate::supervisor::Supervisor;
use std::time::{Duration, Instant};

/// The drain fails after this time without progress. It is longer than a dead member's session and
/// a rebalance.
const STILL_MAX: Duration = Duration::from_secs(90);
/// The drain fails after this time, even with progress.
const DRAIN_MAX: Duration = Duration::from_secs(3_600);
/// Number of quiet samples that prove the end: see [`Quiet`].
const SAMPLES: u32 = 3;
/// Interval at which the daemons are supervised, and the limits checked, also between samples.
const TICK: Duration = Duration::from_millis(100);

/// Waits until the groups are drained. Returns the problem if they are not by the deadline.
pub(super) async fn until_drained(
    supervisor: &mut Supervisor,
    watch: &mut Watch,
    display: &mut ProgressDisplay,
) -> anyhow::Result<Vec<String>> {
    let started = Instant::now();
    let mut moved = started;
    let mut last = watch.latest();
    // The last orders may be newer than an earlier sample.
    let mut quiet = Quiet::since(started);
    loop {
        for line in supervisor.tick().await? {
            display.write_line(&line);
        }
        if moved.elapsed() > STILL_MAX || started.elapsed() > DRAIN_MAX {
            return Ok(vec![given_up(&last, started.elapsed())]);
        }
        let Ok(next) = tokio::time::timeout(TICK, watch.next()).await else {
            continue;
        };
        let round = next?;
        if round.sample != last.sample {
            moved = Instant::now();
        }
        let is_drained = quiet.is_proven_by(&round);
        last = round;
        if is_drained {
            display.write_line(&format!(
                "drained after {:.1} s",
                started.elapsed().as_secs_f64()
            ));
            return Ok(Vec::new());
        }
        show("draining", supervisor, watch, display);
    }
}

/// Decides when the groups are drained. Pure.
///
/// The parts of a sample are not of one time, and late parts may be of different rounds. So a
/// sample counts only if each of its parts was requested after the end of the one that counted
/// before it. Three in a row without lag, without unpublished events, and with the same end offsets
/// prove the end, whatever the order of the reads within each:
///
/// 1. The end offsets are the same from the first sample to the last, and never decrease. When the
///    first one ends, every group has settled all records before them. No handler runs from then
///    on; the producers and the callers of the gateways have ended before the drain.
/// 2. So no event is added to an outbox after the first sample. The second one finds every outbox
///    empty: when it ends, all events are on their topics.
/// 3. So the end offsets of the third sample are behind all events, and they are those up to which
///    the groups had settled everything.
///
/// The list of partitions is a part too, and a partition on it that was not read makes the lag
/// unknown: no topic that was created meanwhile is left out.
struct Quiet {
    /// Parts that were requested earlier do not count.
    since: Instant,
    /// The end offsets of the last sample that counted.
    end: i64,
    /// Number of quiet samples in a row, with the same end offsets.
    samples: u32,
}

impl Quiet {
    fn since(started: Instant) -> Self {
        Self {
            since: started,
            end: 0,
            samples: 0,
        }
    }

    /// Whether the groups are drained, with this round.
    fn is_proven_by(&mut self, round: &Round) -> bool {
        let sample = &round.sample;
        if !round.is_read_after(self.since) {
            return false;
        }
        let is_quiet = sample.lag() == 0 && !sample.is_unpublished;
        self.samples = match is_quiet {
            true if sample.end == self.end => self.samples + 1,
            true => 1,
            false => 0,
        };
        (self.since, self.end) = (round.ended, sample.end);
        self.samples >= SAMPLES
    }
}

/// The problem of a drain that did not end, with what it waited for at last.
fn given_up(last: &Round, waited: Duration) -> String {
    let mut causes = Vec::new();
    for (service, progress) in &last.sample.services {
        let Progress { lag, unknown, .. } = *progress;
        if lag > 0 {
            causes.push(format!("the lag of {service} is {lag}"));
        }
        if unknown > 0 {
            causes.push(format!("{unknown} partitions of {service} were never read"));
        }
    }
    if last.sample.is_unpublished {
        causes.push("an outbox has unpublished events".to_owned());
    }
    let faults = last.faults.iter();
    causes.extend(faults.map(|fault| format!("no fresh numbers from {fault}")));
    if causes.is_empty() {
        causes.push("the samples were late, or their end offsets differed".to_owned());
    }
    format!(
        "not drained after {} s: {}",
        waited.as_secs(),
        causes.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::rates::Rates;
    use crate::monitoring::sample::Sample;

    fn sample(lag: i64, end: i64) -> Sample {
        let progress = Progress {
            lag,
            settled: 7,
            effects: 5,
            known: 1,
            unknown: 0,
        };
        Sample {
            services: [("payments", progress)].into(),
            end,
            ..Sample::default()
        }
    }

    /// Rounds of one second each, all parts of which are read within it.
    struct Rounds(Instant);

    impl Rounds {
        fn next(&mut self, sample: Sample) -> Round {
            let began = self.0;
            self.0 += Duration::from_secs(1);
            Round {
                ended: self.0,
                sample,
                rates: Rates::default(),
                read_at: [("payments", began)].into(),
                gateway_read_at: began,
                listed_at: began,
                positions_at: Some(began),
                faults: Vec::new(),
            }
        }
    }

    /// The number of rounds with these samples after which the groups are drained.
    fn drained_after(samples: Vec<Sample>) -> Option<usize> {
        let started = Instant::now();
        let (mut quiet, mut rounds) = (Quiet::since(started), Rounds(started));
        let mut samples = samples.into_iter();
        let last = samples.position(|sample| quiet.is_proven_by(&rounds.next(sample)));
        last.map(|last| last + 1)
    }

    #[test]
    fn three_quiet_samples_in_a_row_with_the_same_ends_prove_the_end() {
        let quiet = || sample(0, 10);
        let unpublished = || Sample {
            is_unpublished: true,
            ..quiet()
        };
        let unknown = || {
            let mut unknown = quiet();
            let progress = Progress {
                unknown: 1,
                ..unknown.services["payments"]
            };
            unknown.services.insert("payments", progress);
            unknown
        };
        assert_eq!(drained_after(vec![quiet(), quiet()]), None);
        let check = |first: Vec<Sample>| {
            let rounds = first.len() + 3;
            let rest = [quiet(), quiet(), quiet(), quiet()];
            let samples = first.into_iter().chain(rest).collect();
            assert_eq!(drained_after(samples), Some(rounds));
        };
        check(vec![]);
        check(vec![quiet(), sample(1, 10)]);
        check(vec![quiet(), quiet(), sample(0, 9)]);
        check(vec![quiet(), quiet(), unpublished()]);
        check(vec![unpublished(), unpublished(), unpublished()]);
        check(vec![unknown(), unknown(), unknown()]);
    }

    #[test]
    fn a_part_of_an_earlier_sample_does_not_count() {
        let started = Instant::now();
        let parts: [fn(&mut Round, Instant); 3] = [
            |round, at| round.gateway_read_at = at,
            |round, at| round.listed_at = at,
            |round, at| round.read_at = [("payments", at)].into(),
        ];
        for set_read_at in parts {
            let (mut quiet, mut rounds) = (Quiet::since(started), Rounds(started));
            let mut before = started - Duration::from_millis(1);
            for _ in 0..2 {
                // The first sample of two has a part that was requested for the one before.
                let mut late = rounds.next(sample(0, 10));
                set_read_at(&mut late, before);
                assert!(!quiet.is_proven_by(&late));
                let whole = rounds.next(sample(0, 10));
                assert!(!quiet.is_proven_by(&whole));
                before = whole.ended - Duration::from_millis(1);
            }
            let third = rounds.next(sample(0, 10));
            assert!(quiet.is_proven_by(&third));
        }
    }

    #[test]
    fn giving_up_names_what_the_drain_waited_for() {
        let given_up = |sample: Sample, faults: Vec<String>| {
            let mut round = Rounds(Instant::now()).next(sample);
            round.faults = faults;
            given_up(&round, Duration::from_secs(91))
        };
        let line = given_up(sample(3, 10), Vec::new());
        assert_eq!(line, "not drained after 91 s: the lag of payments is 3");
        let mut late = sample(0, 10);
        late.is_unpublished = true;
        let payments = late.services.get_mut("payments");
        payments.expect("its progress").unknown = 2;
        let line = given_up(late, vec!["the group payments: refused".to_owned()]);
        assert_eq!(
            line,
            "not drained after 91 s: 2 partitions of payments were never read; an outbox has \
             unpublished events; no fresh numbers from the group payments: refused"
        );
        let line = given_up(sample(0, 10), Vec::new());
        assert!(line.ends_with("or their end offsets differed"), "{line}");
    }
}

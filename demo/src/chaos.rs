//! Chaos: when which process is killed, frozen or stopped. Pure: a seed and a span in, a schedule out.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// What is done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Harm {
    /// SIGKILL: nothing is drained, committed or said.
    Kill,
    /// SIGSTOP, and SIGCONT after the blow's span: a process that comes back from the dead.
    Freeze,
    /// SIGTERM: a clean stop in the middle of the load.
    Stop,
}

/// One blow of the schedule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Blow {
    /// When, from the start of the load.
    pub(crate) at: Duration,
    /// What.
    pub(crate) harm: Harm,
    /// Whom: the number of a process. One that is down already passes the blow on to the next that runs.
    pub(crate) victim: usize,
    /// How long it stays frozen, or down after its end before it is started again.
    pub(crate) span: Duration,
}

/// One blow of each kind falls into every slot of this length, at a random moment: the kinds stay frequent in every seed
/// (15 kills a minute), and yet nothing is regular.
const SLOTS: [(Harm, Duration, std::ops::Range<u64>); 3] = [
    (Harm::Kill, Duration::from_secs(4), 200..2_000),
    (Harm::Freeze, Duration::from_secs(9), 1_000..8_000),
    (Harm::Stop, Duration::from_secs(11), 200..2_000),
];

/// The schedule of a run of `load` over `processes` processes, in order of time. The same seed gives the same schedule.
pub(crate) fn schedule(seed: u64, load: Duration, processes: usize) -> Vec<Blow> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut blows = Vec::new();
    for (harm, slot, spans_ms) in SLOTS {
        let slots = (load.as_millis() / slot.as_millis()).max(1);
        let slot_ms = load.as_millis() as u64 / slots as u64;
        for number in 0..slots as u64 {
            blows.push(Blow {
                at: Duration::from_millis(
                    number * slot_ms + random.random_range(0..slot_ms.max(1)),
                ),
                harm,
                victim: random.random_range(0..processes),
                span: Duration::from_millis(random.random_range(spans_ms.clone())),
            });
        }
    }
    blows.sort();
    blows
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const MINUTE: Duration = Duration::from_secs(60);

    fn count(blows: &[Blow], harm: Harm) -> usize {
        blows.iter().filter(|blow| blow.harm == harm).count()
    }

    #[test]
    fn every_seed_kills_at_least_ten_times_a_minute_and_freezes_and_stops_too() {
        for seed in 0..1_000 {
            let blows = schedule(seed, MINUTE, 8);
            assert!(count(&blows, Harm::Kill) >= 10, "seed {seed}");
            assert!(count(&blows, Harm::Freeze) >= 3, "seed {seed}");
            assert!(count(&blows, Harm::Stop) >= 3, "seed {seed}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_seed_another() {
        assert_eq!(schedule(7, MINUTE, 8), schedule(7, MINUTE, 8));
        assert_ne!(schedule(7, MINUTE, 8), schedule(8, MINUTE, 8));
    }

    #[test]
    fn blows_come_in_order_and_within_the_load() {
        for load in [Duration::from_millis(1), Duration::from_secs(5), MINUTE] {
            let blows = schedule(3, load, 8);
            assert!(blows.is_sorted_by_key(|blow| blow.at));
            assert!(blows.iter().all(|blow| blow.at <= load), "{blows:?}");
            assert!(count(&blows, Harm::Kill) >= 1);
        }
    }

    #[test]
    fn no_process_is_safe() {
        let victims: BTreeSet<usize> = (0..20)
            .flat_map(|seed| schedule(seed, MINUTE, 8))
            .map(|blow| blow.victim)
            .collect();
        assert_eq!(victims, (0..8).collect());
    }
}

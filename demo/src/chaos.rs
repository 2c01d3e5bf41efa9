//! Chaos: when each process is killed, frozen or stopped, when the broker is frozen, and how the
//! payment provider behaves. Pure: a seed and a duration in, a schedule out.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// The harm to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Harm {
    /// SIGKILL: no drain, no commit, no output.
    Kill,
    /// SIGSTOP, and SIGCONT after the blow's span.
    Freeze,
    /// SIGTERM: a clean stop during the load.
    Stop,
}

/// One blow of the schedule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Blow {
    /// Time from the start of the load.
    pub(crate) at: Duration,
    /// The kind of harm.
    pub(crate) harm: Harm,
    /// Number of the process. If it is down already, the blow hits the next running process.
    pub(crate) victim: usize,
    /// How long the process stays frozen, or down before it is started again.
    pub(crate) span: Duration,
}

/// One blow of each kind falls into every slot of this length, at a random time. The frequency is
/// the same for every seed (15 kills per minute), but the times are irregular.
const SLOTS: [(Harm, Duration, std::ops::Range<u64>); 3] = [
    (Harm::Kill, Duration::from_secs(4), 200..2_000),
    (Harm::Freeze, Duration::from_secs(9), 1_000..8_000),
    (Harm::Stop, Duration::from_secs(11), 200..2_000),
];

/// The schedule of a run of `load` over `processes` processes, sorted by time. The same seed gives
/// the same schedule.
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

/// The behaviour of the payment provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Conduct {
    /// No fault.
    Normal,
    /// Answers late.
    Slow,
    /// Declines every payment.
    Declining,
    /// Answers this customer with HTTP status 500, a temporary failure.
    FailingFor(u32),
    /// Answers this customer with HTTP status 422, a permanent failure. Its events become dead
    /// letters.
    RejectingOf(u32),
    /// Accepts requests and never answers.
    Hanging,
    /// Answers HTTP status 503.
    Down,
    /// Refuses connections.
    Unreachable,
}

/// A change of the provider's behaviour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Time from the start of the load.
    pub(crate) at: Duration,
    /// The behaviour from then on.
    pub(crate) conduct: Conduct,
}

/// The provider misbehaves once in every slot of this length. Each time ends long before a record
/// runs out of attempts.
const TURN_SLOT: Duration = Duration::from_secs(4);
const TURN_SPAN_MS: std::ops::Range<u64> = 1_000..2_500;

/// The provider's turns in a run of `load` with this many customers: each kind in turn, in an order
/// that depends on the seed, with normal behaviour in between. The same seed gives the same turns.
pub(crate) fn turns(seed: u64, load: Duration, customers: u32) -> Vec<Turn> {
    // Another random stream than that of the blows, so that the number of blows does not affect it.
    let mut random = StdRng::seed_from_u64(!seed);
    let customer = random.random_range(0..customers.max(1));
    let mut kinds = [
        Conduct::Slow,
        Conduct::Declining,
        Conduct::FailingFor(customer),
        Conduct::RejectingOf(customer),
        Conduct::Hanging,
        Conduct::Down,
        Conduct::Unreachable,
    ];
    kinds.shuffle(&mut random);
    // A failure that outlasts the attempts in place parks the record for ten seconds. Place it
    // early, or the drain waits for the record.
    let failing = kinds
        .iter()
        .position(|kind| matches!(kind, Conduct::FailingFor(_)));
    if let Some(place) = failing {
        kinds.swap(place, place % 3);
    }
    let slots = (load.as_millis() / TURN_SLOT.as_millis()) as u32;
    let mut turns = Vec::new();
    for (slot, conduct) in (0..slots).zip(kinds.iter().cycle()) {
        let span = Duration::from_millis(random.random_range(TURN_SPAN_MS));
        let latest = (TURN_SLOT - span).as_millis() as u64;
        let at = TURN_SLOT * slot + Duration::from_millis(random.random_range(0..latest));
        turns.push(Turn {
            at,
            conduct: *conduct,
        });
        turns.push(Turn {
            at: at + span,
            conduct: Conduct::Normal,
        });
    }
    turns
}

/// A standstill of the broker: connections remain open, and no request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standstill {
    /// Time from the start of the load.
    pub(crate) at: Duration,
    /// Duration of the standstill.
    pub(crate) span: Duration,
}

/// The broker is frozen once in every slot of this length, for much less than its clients' session
/// timeouts.
const STANDSTILL_SLOT: Duration = Duration::from_secs(12);
const STANDSTILL_SPAN_MS: std::ops::Range<u64> = 1_000..4_000;

/// The standstills in a run of `load`, at least one. The same seed gives the same times.
pub(crate) fn standstills(seed: u64, load: Duration) -> Vec<Standstill> {
    // Another random stream than the others.
    let mut random = StdRng::seed_from_u64(seed.rotate_left(32));
    let slots = (load.as_millis() / STANDSTILL_SLOT.as_millis()).max(1) as u32;
    let slot = load / slots;
    (0..slots)
        .map(|number| {
            let span = Duration::from_millis(random.random_range(STANDSTILL_SPAN_MS));
            let latest_ms = slot.saturating_sub(span).as_millis() as u64;
            let at = slot * number + Duration::from_millis(random.random_range(0..=latest_ms));
            Standstill { at, span }
        })
        .collect()
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
    fn every_seed_has_enough_kills_freezes_and_stops() {
        for seed in 0..1_000 {
            let blows = schedule(seed, MINUTE, 8);
            assert!(count(&blows, Harm::Kill) >= 10, "seed {seed}");
            assert!(count(&blows, Harm::Freeze) >= 3, "seed {seed}");
            assert!(count(&blows, Harm::Stop) >= 3, "seed {seed}");
        }
    }

    #[test]
    fn equal_seeds_give_equal_schedules_and_others_differ() {
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
    fn the_broker_freezes_in_every_slot_and_never_twice_together() {
        for seed in 0..1_000 {
            let standstills = standstills(seed, MINUTE);
            assert_eq!(standstills.len(), 5);
            for pair in standstills.windows(2) {
                assert!(pair[0].at + pair[0].span <= pair[1].at, "seed {seed}");
            }
        }
        assert_eq!(standstills(7, Duration::from_secs(1)).len(), 1);
        assert_ne!(standstills(7, MINUTE), standstills(8, MINUTE));
    }

    #[test]
    fn no_process_is_safe() {
        let victims: BTreeSet<usize> = (0..20)
            .flat_map(|seed| schedule(seed, MINUTE, 8))
            .map(|blow| blow.victim)
            .collect();
        assert_eq!(victims, (0..8).collect());
    }

    #[test]
    fn the_provider_shows_every_fault_in_30_seconds_and_recovers() {
        for seed in 0..1_000 {
            let load = Duration::from_secs(30);
            let turns = turns(seed, load, 10);
            assert!(turns.is_sorted_by_key(|turn| turn.at), "seed {seed}");
            let bad: BTreeSet<String> = turns
                .iter()
                .step_by(2)
                .map(|turn| format!("{:?}", turn.conduct))
                .collect();
            assert_eq!(bad.len(), 7, "seed {seed}");
            for pair in turns.chunks(2) {
                assert_eq!(pair[1].conduct, Conduct::Normal, "seed {seed}");
                assert!(pair[1].at <= load, "seed {seed}");
            }
        }
        assert_eq!(turns(7, MINUTE, 10), turns(7, MINUTE, 10));
        assert_ne!(turns(7, MINUTE, 10), turns(8, MINUTE, 10));
    }
}

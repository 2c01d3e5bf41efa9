//! Runs seeded schedules over the pure parts (lanes, offset tracker, admission, commit metadata)
//! against a naive model of Kafka.
//!
//! # The model
//!
//! A topic is an ordered map from offset to key, with gaps, and one committed offset with its
//! metadata. Two members with two workers each own its partitions in turn. A step delivers some
//! records, finishes a running one, commits, revokes, assigns, or crashes a member: nothing else
//! can happen to a group. Commits may be refused, and a drain may be cut short.
//!
//! # What must hold
//!
//! - Records of a key take effect in the order of their offsets, whatever happened before.
//! - A commit never falls, and never covers a record that was not handled.
//! - Offsets that the commit of a revoke recorded are not delivered again.
//! - At most `CONCURRENCY` handlers run, and at most `WINDOW` records are in flight.
//! - In the end every record was handled, and everything is committed.
//!
//! A failure prints its seed. `run(seed)` repeats it exactly: no clock, thread or hash decides
//! anything.

mod model;
mod world;

use world::World;

/// Runs one schedule to its end.
fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..150 {
        world.step();
    }
    world.settle_down();
}

/// A number from the environment, for long runs and for the repetition of a seed.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
}

#[test]
fn no_schedule_loses_reorders_or_overruns() {
    if let Some(seed) = setting("EVENKEEL_SIMULATION_SEED") {
        return run(seed);
    }
    let schedules = setting("EVENKEEL_SIMULATION_SCHEDULES").unwrap_or(100_000);
    for seed in 0..schedules {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("the schedule with EVENKEEL_SIMULATION_SEED={seed} fails");
            std::panic::resume_unwind(panic);
        }
    }
}

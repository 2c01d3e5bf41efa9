//! Liveness and readiness, as components report them.
//!
//! Owns the table of components and of loops that have to move. Knows no HTTP and no Kafka: who serves the answer and who
//! reports is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A process's health. Cheap to clone; clones share the state.
///
/// Two questions that must not be mixed: *ready* (may traffic come? depends on stores and brokers, and answers no while the
/// process stops) and *alive* (do the loops move? depends on nothing outside, since a restart would not mend that).
#[derive(Clone)]
pub struct Health {
    state: Arc<Mutex<State>>,
    /// Names of the parts that report here.
    names: Arc<Mutex<BTreeSet<String>>>,
    clock: Clock,
}

/// Time since a fixed moment; never goes back.
type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

#[derive(Default)]
struct State {
    components: BTreeMap<String, Result<(), String>>,
    notes: BTreeMap<String, String>,
    loops: BTreeMap<String, Beat>,
}

struct Beat {
    within: Duration,
    last: Duration,
}

impl Default for Health {
    fn default() -> Self {
        let start = Instant::now();
        Self::with_clock(move || start.elapsed())
    }
}

impl Health {
    /// A health that reads the time from `clock`: the time since any fixed moment, which never goes back.
    pub fn with_clock(clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self {
            state: Arc::default(),
            names: Arc::default(),
            clock: Arc::new(clock),
        }
    }

    /// Says that `component` can serve, or why not.
    pub fn set_ready(&self, component: &str, state: Result<(), String>) {
        let mut this = self.lock();
        match this.components.get_mut(component) {
            Some(known) => *known = state,
            None => {
                this.components.insert(component.to_owned(), state);
            }
        }
    }

    /// Notes what is worth knowing of `component` whether it can serve or not, such as that an operator has paused a part of
    /// it; none takes the note away.
    pub fn set_note(&self, component: &str, note: Option<String>) {
        let mut this = self.lock();
        match note {
            Some(note) => drop(this.notes.insert(component.to_owned(), note)),
            None => drop(this.notes.remove(component)),
        }
    }

    /// What is noted of components, by their names.
    pub fn notes(&self) -> Vec<(String, String)> {
        let this = self.lock();
        let notes = this.notes.iter();
        notes
            .map(|(name, note)| (name.clone(), note.clone()))
            .collect()
    }

    /// Registers a loop that must call [`Health::beat`] at least this often to count as alive. Registering counts as a beat.
    pub fn expect_beat(&self, component: &str, within: Duration) {
        let last = (self.clock)();
        self.lock()
            .loops
            .insert(component.to_owned(), Beat { within, last });
    }

    /// The loop `component` moved. Says nothing about a loop that is not registered, or retired.
    pub fn beat(&self, component: &str) {
        let now = (self.clock)();
        if let Some(beat) = self.lock().loops.get_mut(component) {
            beat.last = now;
        }
    }

    /// The loop ended on purpose: its silence no longer counts. Its readiness stays as it was set last.
    pub fn retire(&self, component: &str) {
        self.lock().loops.remove(component);
    }

    /// Components that are not ready, with the reason; empty when ready. A process without components is ready.
    pub fn not_ready(&self) -> Vec<(String, String)> {
        self.lock()
            .components
            .iter()
            .filter_map(|(name, state)| Some((name.clone(), state.as_ref().err()?.clone())))
            .collect()
    }

    /// Loops that stand still, with the whole seconds since they moved; empty when alive.
    pub fn not_alive(&self) -> Vec<(String, u64)> {
        let now = (self.clock)();
        self.lock()
            .loops
            .iter()
            .filter_map(|(name, beat)| {
                let silent = now.saturating_sub(beat.last);
                (silent > beat.within).then(|| (name.clone(), silent.as_secs()))
            })
            .collect()
    }

    /// The names of all components, ready or not.
    pub fn components(&self) -> Vec<String> {
        self.lock().components.keys().cloned().collect()
    }

    /// The names of all registered loops, moving or not.
    pub fn loops(&self) -> Vec<String> {
        self.lock().loops.keys().cloned().collect()
    }

    /// Shows nothing of this component or loop any more.
    pub(super) fn forget(&self, name: &str) {
        let mut this = self.lock();
        this.components.remove(name);
        this.notes.remove(name);
        this.loops.remove(name);
    }

    /// The names of the running parts that report here, held while one is taken or given back.
    pub(super) fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic elsewhere must not take the health down with it: the table has no invariant that could be half written.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("not_ready", &self.not_ready())
            .field("not_alive", &self.not_alive())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::Health;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    fn health() -> (Health, Arc<AtomicU64>) {
        let now_ms = Arc::new(AtomicU64::new(0));
        let read = now_ms.clone();
        let clock = move || Duration::from_millis(read.load(Ordering::Relaxed));
        (Health::with_clock(clock), now_ms)
    }

    #[test]
    fn a_process_without_components_is_ready_and_alive() {
        let (health, _) = health();
        assert!(health.not_ready().is_empty());
        assert!(health.not_alive().is_empty());
    }

    #[test]
    fn a_component_says_why_it_is_not_ready_until_it_is() {
        let (health, _) = health();
        health.set_ready("store", Ok(()));
        health.set_ready("consumer", Err("no partitions yet".to_owned()));
        assert_eq!(
            health.not_ready(),
            [("consumer".to_owned(), "no partitions yet".to_owned())]
        );
        health.clone().set_ready("consumer", Ok(()));
        assert!(health.not_ready().is_empty());
        assert_eq!(health.components(), ["consumer", "store"]);
    }

    #[test]
    fn a_note_says_nothing_about_whether_a_component_is_ready() {
        let (health, _) = health();
        health.set_ready("consumer", Ok(()));
        health.set_note("consumer", Some("paused".to_owned()));
        assert!(health.not_ready().is_empty());
        assert_eq!(
            health.notes(),
            [("consumer".to_owned(), "paused".to_owned())]
        );
        health.set_note("consumer", None);
        assert!(health.notes().is_empty());
    }

    #[test]
    fn a_loop_that_stands_still_longer_than_it_may_is_named_with_its_silence() {
        let (health, now_ms) = health();
        health.expect_beat("poll", Duration::from_secs(2));
        now_ms.store(2_000, Ordering::Relaxed);
        assert!(
            health.not_alive().is_empty(),
            "exactly at the bound is in time"
        );
        now_ms.store(5_500, Ordering::Relaxed);
        assert_eq!(health.not_alive(), [("poll".to_owned(), 5)]);
        health.beat("poll");
        assert!(health.not_alive().is_empty());
    }

    #[test]
    fn a_retired_loop_is_not_missed_and_its_late_beat_does_not_bring_it_back() {
        let (health, now_ms) = health();
        health.expect_beat("poll", Duration::from_secs(1));
        health.retire("poll");
        health.beat("poll");
        now_ms.store(60_000, Ordering::Relaxed);
        assert!(health.not_alive().is_empty());
        assert!(health.loops().is_empty());
    }
}

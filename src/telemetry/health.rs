//! Liveness and readiness, as reported by components.
//!
//! Owns the table of components and of loops with heartbeats. Knows neither HTTP nor Kafka, nor who
//! serves the answer and who reports.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The health of a process. Cheap to clone: clones share the state.
///
/// It answers two separate questions. *Ready*: may traffic arrive? This depends on stores and
/// brokers, and is false while the process stops. *Alive*: do the loops make progress? This depends
/// on nothing outside, since a restart would not repair that.
///
/// ```
/// use evenkeel::telemetry::Health;
///
/// let health = Health::default();
/// health.set_ready("orders database", Err("connection refused".to_owned()));
/// assert_eq!(health.not_ready().len(), 1);
/// health.set_ready("orders database", Ok(()));
/// assert!(health.not_ready().is_empty());
/// ```
///
/// It never changes by itself, except that a loop without beats stops being alive. Names of
/// components are free; evenkeel's begin with the kind (`consumer`, `handlers`, `relay`) and end
/// with the group.
///
/// Every method locks a table for a moment, and none blocks: they may be called from any thread and
/// any task.
///
/// # A loop of the service
/// ```
/// use evenkeel::telemetry::Health;
/// use std::time::Duration;
///
/// let health = Health::default();
/// health.expect_beat("price import", Duration::from_secs(60));
/// // In the loop, after each unit of work:
/// health.beat("price import");
/// assert!(health.not_alive().is_empty());
/// // At its intended end:
/// health.retire("price import");
/// assert!(health.loops().is_empty());
/// ```
#[derive(Clone)]
pub struct Health {
    state: Arc<Mutex<State>>,
    /// The names of the parts that report here.
    names: Arc<Mutex<BTreeSet<String>>>,
    clock: Clock,
}

/// The time since a fixed instant. Never decreases.
type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

#[derive(Default)]
struct State {
    components: BTreeMap<String, Result<(), String>>,
    notes: BTreeMap<String, String>,
    loops: BTreeMap<String, Beat>,
    admin: Option<SocketAddr>,
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
    /// Creates a health that reads the time from `clock`: the time since any fixed instant, which
    /// must never decrease. For tests; the default reads the monotonic clock.
    ///
    /// ```
    /// use evenkeel::telemetry::Health;
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use std::time::Duration;
    ///
    /// let seconds = Arc::new(AtomicU64::new(0));
    /// let now = Arc::clone(&seconds);
    /// let health = Health::with_clock(move || Duration::from_secs(now.load(Ordering::Relaxed)));
    /// health.expect_beat("import", Duration::from_secs(60));
    /// seconds.store(61, Ordering::Relaxed);
    /// assert_eq!(health.not_alive(), [("import".to_owned(), 61)]);
    /// ```
    pub fn with_clock(clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self {
            state: Arc::default(),
            names: Arc::default(),
            clock: Arc::new(clock),
        }
    }

    /// Reports whether `component` can serve, with the reason if it cannot. The first report adds
    /// the component; there is no way to remove one. The reason is shown by `/readyz`: name what
    /// failed and what to do next, and leave out secrets.
    pub fn set_ready(&self, component: &str, state: Result<(), String>) {
        let mut this = self.lock();
        match this.components.get_mut(component) {
            Some(known) => *known = state,
            None => {
                this.components.insert(component.to_owned(), state);
            }
        }
    }

    /// Sets a note about `component` that does not depend on its readiness, such as a pause by an
    /// operator. None removes the note.
    pub fn set_note(&self, component: &str, note: Option<String>) {
        let mut this = self.lock();
        match note {
            Some(note) => drop(this.notes.insert(component.to_owned(), note)),
            None => drop(this.notes.remove(component)),
        }
    }

    /// The notes, with the names of their components.
    pub fn notes(&self) -> Vec<(String, String)> {
        let this = self.lock();
        let notes = this.notes.iter();
        notes
            .map(|(name, note)| (name.clone(), note.clone()))
            .collect()
    }

    /// Sets the address that serves this health, so that members can report it to operators. A
    /// daemon with an admin server sets it by itself. A program that nests its router must set it
    /// here.
    ///
    /// [`MemberInfo::admin`](crate::control::MemberInfo::admin) carries it to the group's control
    /// topic.
    pub fn set_admin(&self, address: SocketAddr) {
        self.lock().admin = Some(address);
    }

    /// The address that serves this health, if it was set.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.lock().admin
    }

    /// Registers a loop that must call [`Health::beat`] at least this often to count as alive. The
    /// registration counts as a beat.
    ///
    /// If the loop is late, `/livez` fails and a kubelet restarts the process. Choose a time that
    /// no normal wait exceeds.
    pub fn expect_beat(&self, component: &str, within: Duration) {
        let last = (self.clock)();
        self.lock()
            .loops
            .insert(component.to_owned(), Beat { within, last });
    }

    /// Notes progress of the loop `component`. Has no effect for a loop that is not registered, or
    /// retired.
    pub fn beat(&self, component: &str) {
        let now = (self.clock)();
        if let Some(beat) = self.lock().loops.get_mut(component) {
            beat.last = now;
        }
    }

    /// Notes that the loop ended on purpose: it needs no more beats. Its readiness keeps its last
    /// value.
    pub fn retire(&self, component: &str) {
        self.lock().loops.remove(component);
    }

    /// The components that are not ready, with the reason. Empty if the process is ready. A process
    /// without components is ready.
    ///
    /// The names are in alphabetical order.
    pub fn not_ready(&self) -> Vec<(String, String)> {
        self.lock()
            .components
            .iter()
            .filter_map(|(name, state)| Some((name.clone(), state.as_ref().err()?.clone())))
            .collect()
    }

    /// The loops that are stuck, with the whole seconds since their last beat. Empty if the process
    /// is alive.
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

    /// The names of all components, whether ready or not.
    pub fn components(&self) -> Vec<String> {
        self.lock().components.keys().cloned().collect()
    }

    /// The names of all registered loops, whether alive or not.
    pub fn loops(&self) -> Vec<String> {
        self.lock().loops.keys().cloned().collect()
    }

    /// Removes this component or loop.
    pub(super) fn forget(&self, name: &str) {
        let mut this = self.lock();
        this.components.remove(name);
        this.notes.remove(name);
        this.loops.remove(name);
    }

    /// The names of the running parts that report here, locked while a name is claimed or released.
    pub(super) fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic elsewhere must not break the health: the table has no invariant that could be half
    /// written.
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
    fn an_unready_component_gives_its_reason() {
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
    fn a_note_does_not_affect_readiness() {
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
    fn a_stalled_loop_is_named_with_its_silence() {
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
    fn a_retired_loop_is_not_missed_despite_late_beats() {
        let (health, now_ms) = health();
        health.expect_beat("poll", Duration::from_secs(1));
        health.retire("poll");
        health.beat("poll");
        now_ms.store(60_000, Ordering::Relaxed);
        assert!(health.not_alive().is_empty());
        assert!(health.loops().is_empty());
    }
}

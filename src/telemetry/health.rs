//! Liveness and readiness, as components report them.

use std::time::Duration;

/// A process's health. Cheap to clone; clones share the state.
#[derive(Clone, Default)]
pub struct Health {}

impl Health {
    /// Says that `component` can serve, or why not.
    pub fn set_ready(&self, _component: &str, _state: Result<(), String>) {
        todo!()
    }
    /// Registers a loop that must call [`Health::beat`] at least this often to count as alive.
    pub fn expect_beat(&self, _component: &str, _within: Duration) {
        todo!()
    }
    /// The loop `component` moved.
    pub fn beat(&self, _component: &str) {
        todo!()
    }
    /// The loop ended on purpose.
    pub fn retire(&self, _component: &str) {
        todo!()
    }
    /// Components that are not ready, with the reason; empty when ready. A process without components is ready.
    pub fn not_ready(&self) -> Vec<(String, String)> {
        todo!()
    }
    /// Loops that stand still, with the seconds since they moved; empty when alive.
    pub fn not_alive(&self) -> Vec<(String, u64)> {
        todo!()
    }
}

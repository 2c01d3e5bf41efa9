//! A point of a figure.

use crate::workloads::stores::store::StoreKind;

/// A point of a figure: what a contestant measures.
pub(super) struct Point {
    pub(super) contestant: &'static str,
    /// Points of one store are a line. `None` if there is no store.
    pub(super) store: Option<StoreKind>,
    /// The quantity, such as the number of members.
    pub(super) x: u64,
    /// The quantity as the label of the axis.
    pub(super) tick: &'static str,
}

impl Point {
    /// A point without a store.
    pub(super) const fn new(contestant: &'static str, x: u64, tick: &'static str) -> Self {
        Self {
            contestant,
            store: None,
            x,
            tick,
        }
    }

    /// The same on a store.
    pub(super) const fn on(self, store: StoreKind) -> Self {
        Self {
            store: Some(store),
            ..self
        }
    }
}

//! The quantities with which costs grow.

use super::point::Point;
use super::{members, records, rows};
use crate::spec::Data;

/// A quantity with which costs grow: the x axis of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dimension {
    /// Members of one group on one store.
    Members,
    /// Different keys on a topic.
    Keys,
    /// Bytes of a record's value.
    Payload,
    /// Rows that the inbox has already.
    Rows,
}

impl Dimension {
    pub(super) const ALL: [Self; 4] = [Self::Members, Self::Keys, Self::Payload, Self::Rows];

    /// Its points, by line.
    pub(super) fn points(self) -> &'static [Point] {
        match self {
            Self::Members => &members::POINTS,
            Self::Keys => &records::KEYS,
            Self::Payload => &records::PAYLOADS,
            Self::Rows => &rows::POINTS,
        }
    }

    /// The prepared data of a point. `None` if its turn writes.
    pub(super) fn data(self, point: &Point) -> Option<Data> {
        match self {
            Self::Members => None,
            Self::Keys => Some(records::of_keys(point)),
            Self::Payload => Some(records::of_bytes(point)),
            Self::Rows => Some(rows::DATA),
        }
    }

    /// The point that this contestant measures.
    pub(super) fn of(contestant: &str) -> Option<(Self, &'static Point)> {
        Self::ALL.into_iter().find_map(|dimension| {
            let mut points = dimension.points().iter();
            let point = points.find(|point| point.contestant == contestant)?;
            Some((dimension, point))
        })
    }
}

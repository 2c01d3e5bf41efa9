//! Keys and payloads: what a record costs before its handler does anything.

use super::point::Point;
use crate::spec::{Data, Spec, Turn};
use crate::workloads::throughput::consume;

pub(super) const KEYS: [Point; 4] = [
    Point::new("keys-10", 10, "10"),
    Point::new("keys-1000", 1_000, "1,000"),
    Point::new("keys-100000", 100_000, "100,000"),
    Point::new("keys-1000000", 1_000_000, "1,000,000"),
];

pub(super) const PAYLOADS: [Point; 4] = [
    Point::new("payload-100", 100, "100 B"),
    Point::new("payload-1k", 1 << 10, "1 KiB"),
    Point::new("payload-10k", 10 << 10, "10 KiB"),
    Point::new("payload-100k", 100 << 10, "100 KiB"),
];

/// The detail of a payload's turn: 10⁶ bytes of values per second.
pub(super) const MB_PER_SECOND: &str = "mb_per_second";

/// Bytes of a topic, so that large values do not take long to write. Small ones take less.
const BYTES: u64 = 1_024_000_000;
const RECORDS_MAX: u64 = 1_000_000;

/// Each of a million keys has two records, so that their order is checked too.
pub(super) fn of_keys(point: &Point) -> Data {
    Data {
        records: 2_000_000,
        keys: point.x as usize,
        ..consume::DATA
    }
}

pub(super) fn of_bytes(point: &Point) -> Data {
    Data {
        records: (BYTES / point.x).min(RECORDS_MAX),
        size: point.x as usize,
        keys: 1_000,
        ..consume::DATA
    }
}

/// Reads the topic with an empty handler. The rate in bytes is a detail.
pub(super) async fn turn_with_bytes(spec: &Spec) -> anyhow::Result<Turn> {
    let mut turn = consume::turn(spec).await?;
    let bytes = turn.value * spec.data.size as f64;
    turn.details.insert(MB_PER_SECOND.to_owned(), bytes / 1e6);
    Ok(turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_payloads_have_fewer_records() {
        let records = PAYLOADS.each_ref().map(|point| of_bytes(point).records);
        assert_eq!(records, [1_000_000, 1_000_000, 100_000, 10_000]);
    }
}

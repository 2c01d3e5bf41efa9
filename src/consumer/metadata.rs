//! Settled offsets above the watermark, in the commit's metadata.
//!
//! Owns the text form that lets a restart skip what was settled behind a slow record. Pure and total: text that is not
//! ours, is for another partition, is damaged or implausible decodes to nothing, and the consumer then handles again
//! what it may have settled, which is always safe.
//!
//! Form: `ek1.` and base64url of: CRC-32 (little endian) over group, topic, partition and the rest; then varints: the
//! watermark, and the lengths of alternating runs of offsets above it, unsettled first, settled second, and so on.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::ops::Range;

const MAGIC: &str = "ek1.";
/// What brokers take at most by default (`offset.metadata.max.bytes`).
const BYTES_MAX: usize = 4096;
/// What fits into that after the mark, in base64, with the checksum.
const BODY_MAX: usize = (BYTES_MAX - MAGIC.len()) / 4 * 3 - 4;
/// More offsets than this above the watermark are not believable: intake is bounded far below it.
const SPAN_MAX: i64 = 1 << 32;

/// What a partition's metadata is tied to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tag<'a> {
    pub(crate) group: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
}

/// Encodes which offsets from `watermark`, itself the first unsettled one, up to `next` are unsettled; none when nothing
/// is settled above the watermark. Of what is too much the beginning is told: a restart handles the rest again.
pub(crate) fn encode(
    tag: Tag<'_>,
    watermark: i64,
    next: i64,
    unsettled: &[Range<i64>],
) -> Option<String> {
    let last = unsettled
        .last()
        .filter(|last| unsettled.len() > 1 || next > last.end)?;
    let mut body = Vec::with_capacity(16 + unsettled.len() * 2);
    push_varint(&mut body, u64::try_from(watermark).ok()?);
    let (mut at, mut whole) = (watermark, true);
    for (index, range) in unsettled.iter().enumerate() {
        // Also where ranges touch: the runs alternate, so a settled run of none stands between them.
        if index > 0 {
            push_varint(&mut body, u64::try_from(range.start - at).ok()?);
        }
        let told = body.len();
        push_varint(&mut body, u64::try_from(range.end - range.start).ok()?);
        at = range.end;
        // The next run's lengths take two varints of ten bytes at most.
        if body.len() + 20 > BODY_MAX {
            body.truncate(told);
            whole = false;
            break;
        }
    }
    if whole && next > last.end {
        push_varint(&mut body, u64::try_from(next - last.end).ok()?);
    }
    let mut bytes = checksum(tag, &body).to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    Some(format!("{MAGIC}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Decodes the settled offsets above `committed`; empty when in any doubt.
pub(crate) fn decode(tag: Tag<'_>, committed: i64, metadata: &[u8]) -> SettledAbove {
    try_decode(tag, committed, metadata).unwrap_or_default()
}

fn try_decode(tag: Tag<'_>, committed: i64, metadata: &[u8]) -> Option<SettledAbove> {
    let text = metadata.strip_prefix(MAGIC.as_bytes())?;
    let bytes = (text.len() <= BYTES_MAX).then(|| URL_SAFE_NO_PAD.decode(text).ok())??;
    let (check, mut body) = bytes.split_at_checked(4)?;
    if check != checksum(tag, body).to_le_bytes()
        || i64::try_from(take_varint(&mut body)?).ok()? != committed
    {
        return None;
    }
    let mut runs = Vec::new();
    let (mut at, mut settled) = (committed, false);
    while !body.is_empty() {
        let length = i64::try_from(take_varint(&mut body)?)
            .ok()
            .filter(|length| *length <= SPAN_MAX)?;
        let end = at
            .checked_add(length)
            .filter(|end| end - committed <= SPAN_MAX)?;
        if settled && length > 0 {
            runs.push(at..end);
        }
        (at, settled) = (end, !settled);
    }
    Some(SettledAbove { runs })
}

fn checksum(tag: Tag<'_>, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in [
        tag.group.as_bytes(),
        tag.topic.as_bytes(),
        &tag.partition.to_le_bytes(),
        body,
    ] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}

fn push_varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Offsets that an earlier life of the group settled above its committed offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SettledAbove {
    runs: Vec<Range<i64>>,
}

impl SettledAbove {
    /// The settled offsets as ascending ranges.
    pub(crate) fn runs(&self) -> &[Range<i64>] {
        &self.runs
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether `offset` was settled.
    pub(crate) fn contains(&self, offset: i64) -> bool {
        let after = self.runs.partition_point(|run| run.start <= offset);
        after > 0 && self.runs[after - 1].contains(&offset)
    }

    /// Forgets what lies before `offset`, which intake has passed.
    pub(crate) fn forget_before(&mut self, offset: i64) {
        self.runs.retain(|run| run.end > offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const TAG: Tag<'_> = Tag {
        group: "g",
        topic: "t",
        partition: 3,
    };

    fn settled(above: &SettledAbove, from: i64, to: i64) -> BTreeSet<i64> {
        (from..to)
            .filter(|offset| above.contains(*offset))
            .collect()
    }

    #[test]
    fn nothing_is_written_when_nothing_is_settled_above_the_watermark() {
        assert_eq!(encode(TAG, 5, 5, &[]), None);
        assert_eq!(encode(TAG, 5, 9, &[5..9]), None);
    }

    #[test]
    fn metadata_of_another_group_topic_partition_or_offset_is_ignored() {
        let text = encode(TAG, 5, 9, &[5..6]).expect("three offsets are settled");
        assert_eq!(
            settled(&decode(TAG, 5, text.as_bytes()), 0, 20),
            BTreeSet::from([6, 7, 8])
        );
        for tag in [
            Tag { group: "h", ..TAG },
            Tag { topic: "u", ..TAG },
            Tag {
                partition: 4,
                ..TAG
            },
        ] {
            assert!(decode(tag, 5, text.as_bytes()).is_empty());
        }
        assert!(decode(TAG, 6, text.as_bytes()).is_empty());
        assert!(decode(TAG, 5, &text.as_bytes()[..text.len() - 1]).is_empty());
        assert!(decode(TAG, 5, b"").is_empty());
    }

    #[test]
    fn of_too_many_runs_those_are_told_that_the_broker_takes() {
        let unsettled: Vec<_> = (0..10_000).map(|n| n * 2..n * 2 + 1).collect();
        let text = encode(TAG, 0, 20_000, &unsettled).expect("much is settled");
        assert!((4_000..=4_096).contains(&text.len()), "{}", text.len());
        let told = settled(&decode(TAG, 0, text.as_bytes()), 0, 30_000);
        assert!(told.len() > 1_000, "{} offsets told", told.len());
        assert!(told.iter().all(|offset| offset % 2 == 1));
    }

    proptest! {
        #[test]
        fn any_set_of_unsettled_offsets_comes_back(watermark in 0_i64..1 << 40, mut gaps in proptest::collection::vec((0_i64..50, 1_i64..50), 1..100), tail in 0_i64..50) {
            gaps[0].0 = 0;
            let mut at = watermark;
            let unsettled: Vec<_> = gaps.iter().map(|(gap, length)| { let start = at + gap; at = start + length; start..at }).collect();
            let next = at + tail;
            let expected: BTreeSet<i64> = (watermark..next).filter(|offset| !unsettled.iter().any(|range| range.contains(offset))).collect();
            let decoded = encode(TAG, watermark, next, &unsettled).map(|text| { assert!(text.len() <= 4096); decode(TAG, watermark, text.as_bytes()) }).unwrap_or_default();
            prop_assert_eq!(settled(&decoded, watermark, next), expected);
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), prefixed in any::<bool>()) {
            let mut metadata = if prefixed { MAGIC.as_bytes().to_vec() } else { Vec::new() };
            metadata.extend_from_slice(&bytes);
            let _ = decode(TAG, 0, &metadata);
        }
    }
}

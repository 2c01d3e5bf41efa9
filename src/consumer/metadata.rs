//! What a commit's metadata says: which topic the offset is of, and which offsets above it are settled.
//!
//! Owns the text form that lets a restart skip what was settled behind a slow record, and tell that the topic was deleted and
//! created again. Pure and total: text that is not ours, is for another partition, is damaged or implausible decodes to
//! nothing, and the consumer then handles again what it may have settled, which is always safe.
//!
//! Form: `ek1.2.` and base64url of: CRC-32 (little endian) over group, topic, partition and the rest; a byte of flags; the topic's
//! id (16 bytes) if flag 1 is set; the leader epoch (varint) if flag 2 is set; the watermark (varint); and, where something is
//! settled above it, the number of runs (varint) and the lengths of alternating runs of offsets from the watermark on, unsettled
//! first, in bits ([`bits`]). `ek1.`, which earlier releases wrote, has neither flags nor id nor epoch, and each length as a
//! varint; it is still read.

// The paths hold for the benchmark, too, which compiles this file by itself.
#[path = "metadata/bits.rs"]
mod bits;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bits::Lengths;
use std::ops::Range;

const MAGIC: &str = "ek1.2.";
const MAGIC_BEFORE: &str = "ek1.";
const HAS_TOPIC_ID: u8 = 1;
const HAS_LEADER_EPOCH: u8 = 2;
/// What brokers take at most by default (`offset.metadata.max.bytes`).
pub(crate) const BYTES_MAX: usize = 4096;
/// More offsets than this above the watermark are not believable: intake is bounded far below it.
const SPAN_MAX: i64 = 1 << 32;

/// The brokers' id of a topic.
pub(crate) type TopicId = [u8; 16];

/// What a partition's metadata is tied to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tag<'a> {
    pub(crate) group: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
}

/// Which log an offset is of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) topic_id: Option<TopicId>,
    /// The highest leader epoch of the records received: what is appended after a truncation has a higher one.
    pub(crate) leader_epoch: Option<i32>,
}

/// Metadata to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) text: Option<String>,
    /// Whether everything that is settled above the watermark is in it: a restart handles the rest again.
    pub(crate) is_whole: bool,
}

/// Encodes the log, and which offsets from `watermark`, itself the first unsettled one, up to `next` are unsettled, in at most
/// `bytes_max` bytes. Of what is too much the beginning is kept.
pub(crate) fn encode(
    tag: Tag<'_>,
    log: Log,
    watermark: i64,
    next: i64,
    unsettled: &[Range<i64>],
    bytes_max: usize,
) -> Encoded {
    let nothing = |is_whole| Encoded {
        text: None,
        is_whole,
    };
    let runs = runs(watermark, next, unsettled);
    let (Some(head), Some(runs)) = (head(log, watermark), runs) else {
        return nothing(true);
    };
    if runs.is_empty() && log == Log::default() {
        return nothing(true);
    }
    let body_max = (bytes_max.min(BYTES_MAX).saturating_sub(MAGIC.len()) / 4 * 3).saturating_sub(4);
    if head.len() > body_max {
        return nothing(runs.is_empty());
    }
    let mut body = head;
    let told = Lengths::write(&runs, &mut body, body_max);
    let mut bytes = checksum(tag, &body).to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    Encoded {
        text: Some(format!("{MAGIC}{}", URL_SAFE_NO_PAD.encode(bytes))),
        is_whole: told == runs.len(),
    }
}

fn head(log: Log, watermark: i64) -> Option<Vec<u8>> {
    let mut head = vec![0];
    if let Some(id) = log.topic_id {
        head[0] |= HAS_TOPIC_ID;
        head.extend_from_slice(&id);
    }
    if let Some(epoch) = log.leader_epoch.and_then(|epoch| u64::try_from(epoch).ok()) {
        head[0] |= HAS_LEADER_EPOCH;
        push_varint(&mut head, epoch);
    }
    push_varint(&mut head, u64::try_from(watermark).ok()?);
    Some(head)
}

/// The lengths of alternating runs from the watermark on, unsettled first, each at least 1; none settled above it is no run. None
/// for what cannot be.
fn runs(watermark: i64, next: i64, unsettled: &[Range<i64>]) -> Option<Vec<u64>> {
    let mut runs: Vec<u64> = Vec::with_capacity(unsettled.len() * 2);
    let mut at = watermark;
    for range in unsettled {
        let gap = u64::try_from(range.start.checked_sub(at)?).ok()?;
        let length = u64::try_from(range.end.checked_sub(range.start)?).ok()?;
        match runs.last_mut() {
            Some(last) if gap == 0 => *last += length,
            None if gap > 0 => return None,
            None => runs.push(length),
            Some(_) => runs.extend([gap, length]),
        }
        at = range.end;
    }
    match u64::try_from(next.saturating_sub(at)) {
        Ok(rest) if rest > 0 && !runs.is_empty() => runs.push(rest),
        // It ends with an unsettled run, which needs no telling.
        _ => drop(runs.pop()),
    }
    Some(runs)
}

/// What a commit's metadata says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) topic_id: Option<TopicId>,
    pub(crate) settled_above: SettledAbove,
}

/// Decodes what is told of the offset `committed`; nothing when in any doubt.
pub(crate) fn decode(tag: Tag<'_>, committed: i64, metadata: &[u8]) -> Decoded {
    let body = |magic: &str| checked(tag, metadata.strip_prefix(magic.as_bytes())?);
    let decoded = match (body(MAGIC), body(MAGIC_BEFORE)) {
        (Some(body), _) => decode_body(committed, &body),
        (None, Some(body)) => decode_before(committed, &body),
        (None, None) => None,
    };
    decoded.unwrap_or_default()
}

/// The body, if it belongs to the tag and is whole.
fn checked(tag: Tag<'_>, text: &[u8]) -> Option<Vec<u8>> {
    let bytes = (text.len() <= BYTES_MAX).then(|| URL_SAFE_NO_PAD.decode(text).ok())??;
    let (check, body) = bytes.split_at_checked(4)?;
    (check == checksum(tag, body).to_le_bytes()).then(|| body.to_vec())
}

fn decode_body(committed: i64, mut body: &[u8]) -> Option<Decoded> {
    let (flags, rest) = body.split_first()?;
    body = rest;
    let mut topic_id = None;
    if flags & HAS_TOPIC_ID != 0 {
        let (id, rest) = body.split_first_chunk::<16>()?;
        (topic_id, body) = (Some(*id), rest);
    }
    let mut leader_epoch = None;
    if flags & HAS_LEADER_EPOCH != 0 {
        leader_epoch = Some(i32::try_from(take_varint(&mut body)?).ok()?);
    }
    let is_of_it = i64::try_from(take_varint(&mut body)?).ok()? == committed;
    let runs = match is_of_it {
        true => above(committed, Lengths::read(body)?)?,
        // Somebody set another offset and kept the metadata.
        false => Vec::new(),
    };
    Some(Decoded {
        topic_id,
        settled_above: SettledAbove { runs, leader_epoch },
    })
}

fn decode_before(committed: i64, mut body: &[u8]) -> Option<Decoded> {
    if i64::try_from(take_varint(&mut body)?).ok()? != committed {
        return None;
    }
    let lengths = std::iter::from_fn(|| (!body.is_empty()).then(|| take_varint(&mut body)));
    let lengths = lengths.collect::<Option<Vec<u64>>>()?;
    let runs = above(committed, lengths)?;
    Some(Decoded {
        topic_id: None,
        settled_above: SettledAbove {
            runs,
            leader_epoch: None,
        },
    })
}

/// The settled ones of alternating runs.
fn above(committed: i64, lengths: impl IntoIterator<Item = u64>) -> Option<Vec<Range<i64>>> {
    let mut runs = Vec::new();
    let (mut at, mut settled) = (committed, false);
    for length in lengths {
        let length = i64::try_from(length)
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
    Some(runs)
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
    /// The highest leader epoch that the group had seen then; none where it is not known.
    leader_epoch: Option<i32>,
}

impl SettledAbove {
    /// The settled offsets as ascending ranges.
    pub(crate) fn runs(&self) -> &[Range<i64>] {
        &self.runs
    }

    /// The highest leader epoch that the group had seen when it committed them.
    pub(crate) fn leader_epoch(&self) -> Option<i32> {
        self.leader_epoch
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

    /// Whether a record of this leader epoch was appended after they were settled: then they, and everything behind, are offsets
    /// of records that a truncated log has got since.
    pub(crate) fn is_outlived_by(&self, leader_epoch: Option<i32>) -> bool {
        let pair = leader_epoch.zip(self.leader_epoch);
        pair.is_some_and(|(record, settled)| record > settled)
    }

    /// Forgets what lies before `offset`, which intake has passed.
    pub(crate) fn forget_before(&mut self, offset: i64) {
        self.runs.retain(|run| run.end > offset);
    }
}

#[cfg(test)]
#[path = "metadata/tests.rs"]
mod tests;

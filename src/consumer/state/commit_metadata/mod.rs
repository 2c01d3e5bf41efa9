//! Encodes and decodes commit metadata: the topic of a committed offset, and which offsets above it
//! are settled.
//!
//! Owns the text form. With it a restart skips records that were settled behind a slow one, and
//! detects that the topic was deleted and created again. Decoding is pure and total: text that is
//! foreign, damaged, implausible or of another partition decodes to nothing. The consumer then
//! handles again records that it may have settled, which is always safe.
//!
//! Form: `ek1.2.` and base64url of:
//!
//! - CRC-32 (little endian) over group, topic, partition and the rest;
//! - a byte of flags;
//! - the topic's id (16 bytes) if flag 1 is set;
//! - the leader epoch (varint) if flag 2 is set;
//! - the watermark (varint);
//! - if offsets above it are settled: the number of runs (varint), and the lengths of alternating
//!   runs of offsets from the watermark on, unsettled first, in bits ([`bits`]).
//!
//! Earlier releases wrote `ek1.`, which has neither flags nor id nor epoch, and each length as a
//! varint. It is still read.
//!
//! # Why in the metadata
//!
//! An offset commit carries one number per partition. With handlers that finish out of order, the
//! number must stay at the oldest unsettled record, and everything settled above would be repeated
//! after a restart. The metadata is stored atomically with the offset, by the same request, so that
//! neither can be newer than the other; a separate topic could not guarantee that.
//!
//! # Which metadata is used
//!
//! The checksum binds the text to group, topic and partition. The watermark in it must be the
//! committed offset: a tool that sets an offset and keeps the metadata invalidates it. The topic's
//! id tells a recreated topic, the leader epoch (KIP-101) a truncated log. In every other case the
//! text is ignored and records are handled again.
//!
//! # Example
//!
//! The watermark is 100. Of the offsets up to 110, 100, 103 and 104 are unsettled:
//!
//! ```text
//! offset    100 101 102 103 104 105 106 107 108 109
//!           ──┬ ──────┬ ──────┬ ──────────────────┬
//! run         1       2       2                   5
//!           open    settled  open              settled
//! ```
//!
//! The runs are 1, 2, 2, 5. A restart begins at 100 and skips 101, 102 and 105 to 109. If a fifth
//! run were open, it would be left out: what follows the last settled run is unsettled anyway.

// These paths also work for the benchmark, which compiles this file by itself.
#[path = "bits.rs"]
mod bits;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bits::{Lengths, push_varint, take_varint};
use std::ops::Range;

/// The prefix of the present form.
const MAGIC: &str = "ek1.2.";
/// The prefix of the form that earlier releases wrote.
const MAGIC_EK1: &str = "ek1.";
/// Flag: the id of the topic follows.
const HAS_TOPIC_ID: u8 = 1;
/// Flag: the leader epoch follows.
const HAS_LEADER_EPOCH: u8 = 2;
/// The longest metadata that brokers accept by default (`offset.metadata.max.bytes`).
pub(crate) const BYTES_MAX: usize = 4096;
/// A larger span above the watermark is implausible: the in-flight limit is far below it.
const SPAN_MAX: i64 = 1 << 32;

/// A topic's id, as the brokers assign it.
pub(crate) type TopicId = [u8; 16];

/// The partition that metadata belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tag<'a> {
    pub(crate) group: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
}

/// Identifies the log of an offset. The same offset in another log belongs to another record.
///
/// A topic's id (KIP-516) changes with its recreation. A leader epoch (KIP-101) grows with every
/// change of the partition's leader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) topic_id: Option<TopicId>,
    /// The highest leader epoch of the received records. Records appended after a truncation have a
    /// higher one.
    pub(crate) leader_epoch: Option<i32>,
}

/// Encoded commit metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) text: Option<String>,
    /// Whether it contains all settled offsets above the watermark. A restart handles the missing
    /// ones again.
    pub(crate) is_whole: bool,
}

/// Encodes the log and the unsettled offsets from `watermark`, the first unsettled one, up to
/// `next`, in at most `bytes_max` bytes. If they do not fit, the lowest offsets are kept.
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
    let written = Lengths::write(&runs, &mut body, body_max);
    let mut bytes = checksum(tag, &body).to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    Encoded {
        text: Some(format!("{MAGIC}{}", URL_SAFE_NO_PAD.encode(bytes))),
        is_whole: written == runs.len(),
    }
}

/// Flags, topic id, leader epoch and watermark. None for a negative watermark.
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

/// The lengths of alternating runs from the watermark on, unsettled first, each at least 1. No runs
/// if no offset above the watermark is settled. None for contradictory input.
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
        // The last run is unsettled. The decoder does not need it.
        _ => drop(runs.pop()),
    }
    Some(runs)
}

/// The content of commit metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) topic_id: Option<TopicId>,
    pub(crate) settled_above: SettledAbove,
}

/// Decodes the metadata of the offset `committed`. Returns the default on any doubt.
pub(crate) fn decode(tag: Tag<'_>, committed: i64, metadata: &[u8]) -> Decoded {
    let body = |magic: &str| verified_body(tag, metadata.strip_prefix(magic.as_bytes())?);
    let decoded = match (body(MAGIC), body(MAGIC_EK1)) {
        (Some(body), _) => decode_body(committed, &body),
        (None, Some(body)) => decode_ek1(committed, &body),
        (None, None) => None,
    };
    decoded.unwrap_or_default()
}

/// Returns the body if the checksum matches it and the tag.
fn verified_body(tag: Tag<'_>, text: &[u8]) -> Option<Vec<u8>> {
    let bytes = (text.len() <= BYTES_MAX).then(|| URL_SAFE_NO_PAD.decode(text).ok())??;
    let (check, body) = bytes.split_at_checked(4)?;
    (check == checksum(tag, body).to_le_bytes()).then(|| body.to_vec())
}

/// Decodes the present form. None if it is malformed.
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
    let is_same_offset = i64::try_from(take_varint(&mut body)?).ok()? == committed;
    let runs = match is_same_offset {
        true => above(committed, Lengths::read(body)?)?,
        // Another tool set the offset and kept the metadata.
        false => Vec::new(),
    };
    Some(Decoded {
        topic_id,
        settled_above: SettledAbove { runs, leader_epoch },
    })
}

/// Decodes the form of earlier releases. None if it is malformed or of another offset.
fn decode_ek1(committed: i64, mut body: &[u8]) -> Option<Decoded> {
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

/// Returns the settled runs of alternating ones.
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

/// CRC-32 over the tag and the body, each part with its length, so that no two tags have the same
/// bytes.
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

/// Offsets that earlier assignments settled above the group's committed offset. Intake passes over
/// them; every commit carries them on until intake has passed them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SettledAbove {
    runs: Vec<Range<i64>>,
    /// The highest leader epoch that the group had received at the commit. None if unknown.
    leader_epoch: Option<i32>,
}

impl SettledAbove {
    /// The settled offsets as ascending ranges.
    pub(crate) fn runs(&self) -> &[Range<i64>] {
        &self.runs
    }

    /// The highest leader epoch that the group had received at the commit.
    pub(crate) fn leader_epoch(&self) -> Option<i32> {
        self.leader_epoch
    }

    /// Whether no offset is settled.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether `offset` was settled.
    pub(crate) fn contains(&self, offset: i64) -> bool {
        let after = self.runs.partition_point(|run| run.start <= offset);
        after > 0 && self.runs[after - 1].contains(&offset)
    }

    /// Whether a record of this leader epoch was appended after these offsets were settled. If so,
    /// the log was truncated, and the offsets and all later ones belong to other records.
    pub(crate) fn is_invalidated_by(&self, leader_epoch: Option<i32>) -> bool {
        let pair = leader_epoch.zip(self.leader_epoch);
        pair.is_some_and(|(record, settled)| record > settled)
    }

    /// Removes the runs before `offset`, which intake has passed.
    pub(crate) fn forget_before(&mut self, offset: i64) {
        self.runs.retain(|run| run.end > offset);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

//! Encodes lengths of alternating runs in few bits.
//!
//! Each of the two kinds of run has a parameter `k`. A length minus one is written as an
//! exponential Golomb code of that order: `k + 1` bits for values below `2^k`, and two more for
//! each doubling. If every second record of a partition is settled, each costs two bits; if one in
//! a hundred is, about ten.
//!
//! The code: Golomb (1966), in the exponential form of Teuhola (1978). The metadata of a commit has
//! 4,096 bytes by default, so that the code decides how many records may be settled behind a slow
//! one and still survive a restart.
//!
//! # Example
//!
//! With `k` = 1, the length 1 is written as `10`, 2 as `11`, 3 as `0100`, 6 as `0111`, and 7 as
//! `001000`: the length minus one, plus 2^k, in binary, after as many zeros as it has digits beyond
//! `k + 1`.

/// No run is longer than this many bits can express.
const ORDER_MAX: u32 = 33;

/// Reads and writes run lengths.
pub(crate) struct Lengths;

impl Lengths {
    /// Appends as many of these lengths, each at least 1, as fit into `body_max` bytes. Returns
    /// their number. The last one written is of a settled run: the decoder does not need a final
    /// unsettled one.
    pub(crate) fn write(lengths: &[u64], body: &mut Vec<u8>, body_max: usize) -> usize {
        let orders = [0, 1].map(|kind| order(lengths.iter().skip(kind).step_by(2)));
        let head = 2 + 5;
        let room = body_max.saturating_sub(body.len() + head) * 8;
        let (mut written, mut used) = (0, 0);
        for (index, length) in lengths.iter().enumerate() {
            used += cost(*length, orders[index % 2]);
            if used > room {
                break;
            }
            written = index + 1;
        }
        written -= written % 2;
        if written == 0 {
            return 0;
        }
        body.extend(orders.map(|order| order as u8));
        push_varint(body, written as u64);
        let mut bits = BitWriter::new(body);
        for (index, length) in lengths[..written].iter().enumerate() {
            bits.push(*length, orders[index % 2]);
        }
        bits.finish();
        written
    }

    /// Reads lengths that [`Lengths::write`] wrote. None if they are malformed. Allocates no more
    /// than the input can hold, whatever its count says.
    pub(crate) fn read(mut body: &[u8]) -> Option<Vec<u64>> {
        if body.is_empty() {
            return Some(Vec::new());
        }
        let (orders, rest) = body.split_first_chunk::<2>()?;
        body = rest;
        let orders = orders.map(u32::from);
        let count = usize::try_from(take_varint(&mut body)?).ok()?;
        // Every length takes at least one bit.
        if count > body.len() * 8 || orders.iter().any(|order| *order > ORDER_MAX) {
            return None;
        }
        let mut bits = body
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
        let length = |index: usize| read_length(&mut bits, orders[index % 2]);
        (0..count).map(length).collect()
    }
}

/// The order that takes the fewest bits for these lengths, or nearly: it is close to the logarithm
/// of their mean.
fn order<'a>(lengths: impl Iterator<Item = &'a u64> + Clone) -> u32 {
    let (mut sum, mut count) = (0_u64, 0_u64);
    for length in lengths.clone() {
        sum = sum.saturating_add(*length);
        count += 1;
    }
    let near = (sum / count.max(1)).max(1).ilog2().min(20);
    let total = |order: &u32| {
        let costs = lengths.clone().map(|length| cost(*length, *order));
        costs.sum::<usize>()
    };
    let mut orders = near.saturating_sub(1)..=near;
    let first = orders.next().unwrap_or_default();
    orders
        .fold((first, total(&first)), |best, order| {
            let total = total(&order);
            if total < best.1 { (order, total) } else { best }
        })
        .0
}

/// The number of bits that a length takes.
fn cost(length: u64, order: u32) -> usize {
    let shifted = shifted(length, order);
    let width = 64 - shifted.leading_zeros();
    (2 * width - 1 - order) as usize
}

/// A length minus one, shifted so that its width gives the number of the bits that follow.
fn shifted(length: u64, order: u32) -> u64 {
    length.saturating_sub(1).min(1 << 40) + (1 << order)
}

/// Packs bits into whole bytes, the highest bit first.
///
/// `pending` holds fewer than 8 bits between two calls. One code has at most 2 × 41 − 1 bits, which
/// fit beside them into 128.
struct BitWriter<'a> {
    body: &'a mut Vec<u8>,
    pending: u128,
    count: u32,
}

impl<'a> BitWriter<'a> {
    fn new(body: &'a mut Vec<u8>) -> Self {
        Self {
            body,
            pending: 0,
            count: 0,
        }
    }

    /// Appends a number after as many zeros as its width requires.
    fn push(&mut self, length: u64, order: u32) {
        let bits = cost(length, order) as u32;
        self.pending = self.pending << bits | u128::from(shifted(length, order));
        self.count += bits;
        while self.count >= 8 {
            self.count -= 8;
            self.body.push((self.pending >> self.count) as u8);
        }
        self.pending &= (1 << self.count) - 1;
    }

    /// Pads the last byte with zeros. The decoder knows the number of lengths and ignores them.
    fn finish(self) {
        if self.count > 0 {
            self.body.push((self.pending << (8 - self.count)) as u8);
        }
    }
}

/// Reads one length. None at the end of the input, or for a width that no length has.
fn read_length(bits: &mut impl Iterator<Item = bool>, order: u32) -> Option<u64> {
    let mut zeros = 0;
    while !bits.next()? {
        zeros += 1;
        if zeros + order > 41 {
            return None;
        }
    }
    let mut value = 1_u64;
    for _ in 0..zeros + order {
        value = value << 1 | u64::from(bits.next()?);
    }
    Some(value - (1 << order) + 1)
}

/// Appends a number in base 128, the lowest digits first (LEB128).
pub(crate) fn push_varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// Reads a number that [`push_varint`] wrote, and advances the input. None if it is cut off or has
/// more than 64 bits.
pub(crate) fn take_varint(from: &mut &[u8]) -> Option<u64> {
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

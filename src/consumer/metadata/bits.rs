//! Lengths of alternating runs in few bits.
//!
//! Each kind of run has a parameter `k` of its own: a length less one is written in exponential Golomb code of that order, which
//! takes `k + 1` bits for what is below `2^k`, and two more for each doubling. So every second record of a partition costs two
//! bits, and one in a hundred about ten.

use super::{push_varint, take_varint};

/// No run is longer than this many bits can tell.
const ORDER_MAX: u32 = 33;

/// Reads and writes the lengths.
pub(super) struct Lengths;

impl Lengths {
    /// Appends as many of these lengths, each at least 1, as `body_max` bytes have room for; says how many. The last one is a
    /// settled run's: the end of an unsettled one needs no telling.
    pub(super) fn write(lengths: &[u64], body: &mut Vec<u8>, body_max: usize) -> usize {
        let orders = [0, 1].map(|kind| order(lengths.iter().skip(kind).step_by(2)));
        let head = 2 + 5;
        let room = body_max.saturating_sub(body.len() + head) * 8;
        let (mut told, mut used) = (0, 0);
        for (index, length) in lengths.iter().enumerate() {
            used += cost(*length, orders[index % 2]);
            if used > room {
                break;
            }
            told = index + 1;
        }
        told -= told % 2;
        if told == 0 {
            return 0;
        }
        body.extend(orders.map(|order| order as u8));
        push_varint(body, told as u64);
        let mut bits = Bits::onto(body);
        for (index, length) in lengths[..told].iter().enumerate() {
            bits.push(*length, orders[index % 2]);
        }
        bits.end();
        told
    }

    /// The lengths that were written; none where they cannot be read.
    pub(super) fn read(mut body: &[u8]) -> Option<Vec<u64>> {
        if body.is_empty() {
            return Some(Vec::new());
        }
        let (orders, rest) = body.split_first_chunk::<2>()?;
        body = rest;
        let orders = orders.map(u32::from);
        let count = usize::try_from(take_varint(&mut body)?).ok()?;
        // Every length has a bit at least.
        if count > body.len() * 8 || orders.iter().any(|order| *order > ORDER_MAX) {
            return None;
        }
        let mut bits = body
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
        let length = |index: usize| pull(&mut bits, orders[index % 2]);
        (0..count).map(length).collect()
    }
}

/// The order that takes the fewest bits for these, or nearly: it lies about where their mean does.
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

/// How many bits a length takes.
fn cost(length: u64, order: u32) -> usize {
    let shifted = shifted(length, order);
    let width = 64 - shifted.leading_zeros();
    (2 * width - 1 - order) as usize
}

/// A length less one in the form whose width tells how many bits follow.
fn shifted(length: u64, order: u32) -> u64 {
    length.saturating_sub(1).min(1 << 40) + (1 << order)
}

/// Bits on their way into whole bytes, the first one highest.
struct Bits<'a> {
    body: &'a mut Vec<u8>,
    waiting: u128,
    count: u32,
}

impl<'a> Bits<'a> {
    fn onto(body: &'a mut Vec<u8>) -> Self {
        Self {
            body,
            waiting: 0,
            count: 0,
        }
    }

    /// A number behind as many zeros as tell its width.
    fn push(&mut self, length: u64, order: u32) {
        let bits = cost(length, order) as u32;
        self.waiting = self.waiting << bits | u128::from(shifted(length, order));
        self.count += bits;
        while self.count >= 8 {
            self.count -= 8;
            self.body.push((self.waiting >> self.count) as u8);
        }
        self.waiting &= (1 << self.count) - 1;
    }

    fn end(self) {
        if self.count > 0 {
            self.body.push((self.waiting << (8 - self.count)) as u8);
        }
    }
}

fn pull(bits: &mut impl Iterator<Item = bool>, order: u32) -> Option<u64> {
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

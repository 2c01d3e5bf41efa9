//! What is kept in Redis, and the scripts that change it.
//!
//! Owns the form of a key and of its value, and every change from one state to the next. Each script is atomic: it looks at
//! the value and changes it in one step, so that no other owner comes in between. They are sent whole each time, 200 to 400 bytes:
//! by their digest, which saves those, a request would be two whenever Redis has been restarted, and one that is not waited for
//! to its end could stop between the two.
//!
//! A value is the token of the owner that works on the delivery (`o` and random bytes), with the lease as its time to live; or
//! what is kept of the completed delivery, with the retention: `c`, the digest of what its event said and its replies, or `d` and
//! the replies where that is not known, as releases before 0.1 wrote it. No value: nobody has it.

use crate::event::{ContentDigest, OutgoingRecord};
use crate::inbox::{InboxError, InboxKey, digest::digest, replies};
use std::fmt::Write;

/// Takes the delivery for the owner `ARGV[1]` for `ARGV[2]` ms: nil when it is taken, the replies' value when it was completed,
/// or else the milliseconds that the other owner's lease still has.
///
/// An owner that asks again, as it did not hear the first answer, gets it again.
pub(super) const CLAIM: &str = r"
local value = redis.call('GET', KEYS[1])
if not value or value == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return false
end
local kind = string.sub(value, 1, 1)
if kind == 'c' or kind == 'd' then return value end
return redis.call('PTTL', KEYS[1])
";

/// Extends the lease of the owner `ARGV[1]` to `ARGV[2]` ms from now: 1, or 0 when the delivery is another's or completed.
///
/// One that nobody has is taken back: the lease ran out or Redis lost it, and whoever had it since gave it back unhandled.
pub(super) const RENEW: &str = r"
local value = redis.call('GET', KEYS[1])
if value and value ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

/// Notes `ARGV[2]` as the completed delivery's value for `ARGV[3]` ms, if it is the owner `ARGV[1]`'s, or nobody's as for
/// [`RENEW`]: 1, or 0 when it is another's or completed.
pub(super) const COMPLETE: &str = r"
local value = redis.call('GET', KEYS[1])
if value and value ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
";

/// Gives the delivery of the owner `ARGV[1]` back: how many keys went.
pub(super) const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// The key of a delivery: the prefix and the digest in hexadecimal digits.
pub(super) fn redis_key(prefix: &str, key: &InboxKey) -> String {
    let mut text = prefix.to_owned();
    for byte in digest(key) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What tells an owner from every other one.
pub(super) fn token() -> Vec<u8> {
    let mut token = vec![b'o'];
    token.extend(rand::random::<u128>().to_be_bytes());
    token
}

/// The value of a completed delivery.
pub(super) fn done(content: Option<ContentDigest>, replies: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + ContentDigest::BYTES + replies.len());
    match content {
        Some(content) => {
            value.push(b'c');
            value.extend_from_slice(content.as_bytes());
        }
        None => value.push(b'd'),
    }
    value.extend_from_slice(replies);
    value
}

/// What the value of a completed delivery says of `key`: what it left to publish.
pub(super) fn read(key: &InboxKey, value: &[u8]) -> Result<Vec<OutgoingRecord>, InboxError> {
    let (content, replies) = match value {
        [b'c', kept @ ..] => match kept.split_at_checked(ContentDigest::BYTES) {
            Some((content, replies)) => (ContentDigest::from_bytes(content), replies),
            None => (None, kept),
        },
        _ => (None, value.get(1..).unwrap_or_default()),
    };
    match key.is_reused(content) {
        true => Err(InboxError::Reused),
        false => replies::decode(replies),
    }
}

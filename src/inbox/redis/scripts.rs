//! The data in Redis, and the scripts that change it.
//!
//! Owns the format of a key and of its value, and every transition from one state to the next. Each
//! script is atomic: it reads the value and changes it in one step, so no other owner can
//! interfere. A script is sent in full each time, 200 to 400 bytes. By its digest, which saves
//! those bytes, a request would become two after each restart of Redis, and a cancelled request
//! could stop between the two.
//!
//! A value is the token of the delivery's current owner (`o` and random bytes), with the lease as
//! its time to live; or the data of the completed delivery, with the retention: `c`, the digest of
//! its event's content and its replies, or `d` and the replies if the digest is not known, as
//! releases before 0.1 wrote it. Without a value nobody has the delivery.

use crate::event::{ContentDigest, OutgoingRecord};
use crate::inbox::shared::digest::digest;
use crate::inbox::shared::replies;
use crate::inbox::{InboxError, InboxKey};
use std::fmt::Write;

/// Takes the delivery for the owner `ARGV[1]` for `ARGV[2]` ms. Returns nil if it is taken, the
/// stored value if it was completed, or else the remaining milliseconds of the other owner's lease.
///
/// An owner that asks again, because it did not receive the first answer, gets it again.
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

/// Extends the lease of the owner `ARGV[1]` to `ARGV[2]` ms from now. Returns 1, or 0 if the
/// delivery is completed or another owner has it.
///
/// A delivery without an owner is taken back: the lease expired or Redis lost it, and any owner
/// since then released it unhandled.
pub(super) const RENEW: &str = r"
local value = redis.call('GET', KEYS[1])
if value and value ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

/// Stores `ARGV[2]` as the completed delivery's value for `ARGV[3]` ms, if the owner `ARGV[1]` has
/// it, or nobody as for [`RENEW`]. Returns 1, or 0 if it is completed or another owner has it.
pub(super) const COMPLETE: &str = r"
local value = redis.call('GET', KEYS[1])
if value and value ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
";

/// The length of a completed delivery's value without its replies, with and without the digest.
pub(super) const LENGTHS: [usize; 2] = [1 + ContentDigest::BYTES, 1];

/// Truncates the value of a completed delivery to its first `ARGV[1]` bytes or, without the digest,
/// `ARGV[2]` bytes, which removes its replies. Its time to live stays the same.
pub(super) const FORGET_REPLIES: &str = r"
local value = redis.call('GET', KEYS[1])
if not value then return 0 end
local kind, keep = string.sub(value, 1, 1), nil
if kind == 'c' then keep = ARGV[1] elseif kind == 'd' then keep = ARGV[2] else return 0 end
local left = redis.call('PTTL', KEYS[1])
if left > 0 then redis.call('SET', KEYS[1], string.sub(value, 1, tonumber(keep)), 'PX', left) end
return 1
";

/// Releases the delivery of the owner `ARGV[1]`. Returns the number of deleted keys.
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

/// A token that distinguishes an owner from every other one.
pub(super) fn token() -> Vec<u8> {
    let mut token = vec![b'o'];
    token.extend(rand::random::<u128>().to_be_bytes());
    token
}

/// The value of a completed delivery.
pub(super) fn completed_value(content: Option<ContentDigest>, replies: &[u8]) -> Vec<u8> {
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

/// Reads the value of the completed delivery `key`. Returns the events left to publish.
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

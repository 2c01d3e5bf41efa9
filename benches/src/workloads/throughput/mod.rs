//! Events per second.

pub(super) mod consume;
pub(super) mod decode;
pub(super) mod keys;
pub(super) mod publish;
pub(super) mod slow;

//! What tests share: the binary as a child process, dead letters of every family, and members of a
//! group.

pub(crate) mod dead_letters;
pub(crate) mod member;
pub(crate) mod tool;

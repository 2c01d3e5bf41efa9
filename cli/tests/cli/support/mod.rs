//! What tests share: the binary as a child process, and dead letters of every family.

pub(crate) mod dead_letters;
pub(crate) mod tool;

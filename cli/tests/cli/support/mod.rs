//! What tests share: the binary as a child process, members of a group, and dead letters of every
//! family.

pub(crate) mod dead_letters;
pub(crate) mod member;
pub(crate) mod tool;

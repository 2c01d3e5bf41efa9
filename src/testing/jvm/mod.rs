//! Java programs that tests compile and run.

pub(super) mod maven;
pub(super) mod program;

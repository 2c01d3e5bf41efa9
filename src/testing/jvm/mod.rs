//! Jars from Maven Central, and Java programs that tests compile and run.

pub(super) mod maven;
#[cfg(feature = "testing")]
pub(super) mod program;

//! Java programs that tests compile and run.
//!
//! They serve comparisons and checks with Apache Kafka's own client, and with frameworks on top of
//! it. Java runs a single source file directly, so no build tool is involved after the download of
//! the jars.

pub(super) mod maven;
pub(super) mod program;

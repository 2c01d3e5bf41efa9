//! Jars from Maven Central, and Java programs that tests compile and run.
//!
//! The programs serve comparisons and checks with Apache Kafka's own client, and with frameworks on
//! top of it. Java runs a single source file directly, so no build tool is involved after the
//! download of the jars.

pub(super) mod maven;
#[cfg(feature = "testing")]
pub(super) mod program;

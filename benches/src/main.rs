//! Measurements beside raw librdkafka: `cargo run --release -p evenkeel-bench -- WORKLOAD`.
//!
//! - [`workloads`]: one file per workload: its flags, its data, its contestants
//! - [`contest`]: contestants take turns, each turn in a process of its own
//! - [`cluster`]: the Kafka, and data prepared once · [`check`]: a fast wrong answer fails
//! - [`usage`]: processor time and memory of a process · [`report`]: medians, spread and ratio

mod check;
mod cluster;
mod contest;
mod report;
mod usage;
mod workloads;

use clap::Parser;
use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let workload = workloads::Workload::parse();
    workload.run().await.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

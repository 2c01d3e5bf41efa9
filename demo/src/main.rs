//! `cargo demo`: the whole shop on one machine, and an audit at the end.
//!
//! - [`args`]: the command line; [`run`]: the phases of a run, in order
//! - [`cluster`]: the Kafka, and its broker under chaos; [`shop`]: the programs to run, with their
//!   flags
//! - [`callers`]: the callers of the gateways: orders over HTTP, and streams
//! - [`supervisor`]: processes, and the harm to them; [`chaos`]: the schedule of faults
//! - [`monitoring`]: samples and display during a run; [`sources`], [`audit`], [`report`]: reading,
//!   audit and report at the end

mod args;
mod audit;
mod callers;
mod chaos;
mod cluster;
mod monitoring;
mod report;
mod run;
mod shop;
mod sources;
mod supervisor;

use evenkeel_program::exit;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = args::Args::read();
    let result = tokio::runtime::Runtime::new().map(|runtime| {
        let result = runtime.block_on(run::run(&args));
        // Does not wait for requests to brokers that are gone by now.
        runtime.shutdown_background();
        result
    });
    let result = result.map_err(anyhow::Error::from).flatten();
    exit::report(result, |error| format!("error: {}", exit::message(error)))
}

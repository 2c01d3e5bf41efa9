//! `cargo demo`: the whole shop on one machine, and an audit at its end.
//!
//! - [`args`]: the command line · [`run`]: the phases of a run, in order
//! - [`cluster`]: the Kafka · [`binaries`]: the shop's programs · [`shop`]: which of them run, with which flags
//! - [`fleet`]: processes and what is done to them · [`provider`]: whom payments asks
//! - [`broker`]: a broker that stands still · [`chaos`]: when what is done to whom
//! - [`sample`], [`live`]: what a watcher sees · [`read`], [`audit`], [`ledger`]: what is read, judged and said at the end

mod args;
mod audit;
mod binaries;
mod broker;
mod chaos;
mod cluster;
mod fleet;
mod ledger;
mod live;
mod provider;
mod read;
mod run;
mod sample;
mod shop;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = args::Args::read();
    let result = tokio::runtime::Runtime::new().map(|runtime| {
        let result = runtime.block_on(run::run(&args));
        // Requests to brokers that are gone by now are not waited for.
        runtime.shutdown_background();
        result
    });
    match result.map_err(anyhow::Error::from).flatten() {
        Ok(exit) => exit,
        Err(error) => {
            live::tell(&format!("error: {error:#}"));
            run::exit_code(&error)
        }
    }
}

//! `orders simulate`: seeded orders and cancellations at a steady rate.

pub mod content;
pub mod journal;
mod run;
mod simulation;
mod tally;

pub use run::simulate;
pub use simulation::Simulation;

use clap::Args;
use content::Content;
use evenkeel::event::new_id;
use evenkeel_program::duration::parse_duration;
use evenkeel_program::exit::Usage;
use std::path::PathBuf;
use std::time::Duration;

/// What to simulate, as given on the command line.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// Events per second, on average: events that were delayed are sent faster afterwards
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Read the rate from this file every second, once the file exists
    #[arg(long, value_name = "FILE")]
    rate_file: Option<PathBuf>,
    /// Duration of the simulation
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    length: Duration,
    /// Number of customers
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    customers: u32,
    /// Seed: the same seed and run id give the same events [default: random, and printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Name of the run, with which order ids begin. Repeating a run with the same name and seed has
    /// no second effect [default: random, and printed]
    #[arg(long, value_name = "NAME")]
    run_id: Option<String>,
    /// Share of events that cancel an earlier order, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    cancel_share: f64,
    /// Append a JSON line per event with its outcome to this file
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// How long to wait for acknowledgements after Ctrl-C
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    drain_timeout: Duration,
}

impl SimulateArgs {
    /// Validates the arguments. Chooses a seed and a run id if they are missing.
    pub fn build(self) -> Result<Simulation, Usage> {
        if !(0.0..=1.0).contains(&self.cancel_share) {
            return Err(Usage("--cancel-share must be from 0 to 1".to_owned()));
        }
        let run_id = self.run_id.unwrap_or_else(|| format!("run-{}", new_id()));
        Ok(Simulation {
            rate: self.rate,
            rate_file: self.rate_file,
            length: self.length,
            content: Content {
                run_id,
                seed: self.seed.unwrap_or_else(rand::random),
                customers: self.customers,
                cancel_share: self.cancel_share,
            },
            journal: self.journal,
            quiet: self.quiet,
            drain_timeout: self.drain_timeout,
        })
    }
}

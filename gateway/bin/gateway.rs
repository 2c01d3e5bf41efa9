//! The `gateway` program; see [`evenkeel_gateway::server::program`].

use evenkeel_gateway::server::program;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    program::main().await
}

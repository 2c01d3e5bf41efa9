//! The `payments` daemon; see [`shop_consumers::payments`].

use shop_consumers::{daemon, payments};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    daemon::main(&payments::SERVICE).await
}

//! The `inventory` daemon; see [`shop_consumers::inventory`].

use shop_consumers::{daemon, inventory};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    daemon::main(&inventory::SERVICE).await
}

//! The `shipping` daemon; see [`shop_consumers::shipping`].

use shop_consumers::{daemon, shipping};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    daemon::main(&shipping::SERVICE).await
}

//! The `payments` daemon; see [`shop_consumers::payments`].

use shop_consumers::payments;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    payments::main().await
}

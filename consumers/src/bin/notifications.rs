//! The `notifications` daemon; see [`shop_consumers::notifications`].

use shop_consumers::{daemon, notifications};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    daemon::main(&notifications::SERVICE).await
}

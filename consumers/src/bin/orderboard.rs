//! The `orderboard` daemon and its `show` and `list`; see [`shop_consumers::orderboard`].

use shop_consumers::orderboard::command;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    command::main().await
}

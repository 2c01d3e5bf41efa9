//! kcat, which stands for other programs.

use super::WITHIN;
use evenkeel::testing::{ChildProcess, required};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;

/// Runs kcat with these arguments and `input` on standard input, and returns what it prints. `None`
/// if it is not installed, which skips the test.
pub(crate) async fn kcat(brokers: &str, arguments: &[&str], input: &str) -> Option<String> {
    let mut command = ChildProcess::command("kcat");
    command
        .args(["-b", brokers])
        .args(arguments)
        .stdin(Stdio::piped());
    let mut kcat = required(ChildProcess::start(command))?;
    let mut stdin = kcat.stdin().expect("standard input is piped");
    let written = stdin.write_all(input.as_bytes()).await;
    written.expect("kcat reads its input");
    drop(stdin);
    Some(kcat.finished(WITHIN).await.code(0).stdout)
}

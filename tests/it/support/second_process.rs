//! A test of this binary again as a process of its own, which can be killed or given another environment.

use evenkeel::testing::ChildProcess;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Read;
use std::process::Stdio;
use tokio::process::Command;

/// Tells the second process its role.
const ROLE: &str = "EVENKEEL_IT_ROLE";

/// In the second process: its role. `None` in the first one.
pub(crate) fn role<T: DeserializeOwned>() -> Option<T> {
    let role = std::env::var(ROLE).ok()?;
    Some(serde_json::from_str(&role).expect("the role that the first process wrote"))
}

/// A command that runs the test of this name, as libtest lists it, in this role.
pub(crate) fn command(test: &str, role: &impl Serialize) -> Command {
    let role = serde_json::to_string(role).expect("a role can be written as JSON");
    let mut command = Command::new(std::env::current_exe().expect("the path of the test binary"));
    command
        .args([test, "--exact", "--nocapture"])
        .env(ROLE, role)
        .stdin(Stdio::null());
    command
}

/// Starts the test of this name in a role that runs until it is killed, see [`end_with_the_first`].
pub(crate) fn start(test: &str, role: &impl Serialize) -> ChildProcess {
    let mut command = command(test, role);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    ChildProcess::start(command).expect("the test binary starts again")
}

/// In the second process: ends it when its standard input ends, so that a test that dies leaves no process behind.
pub(crate) fn end_with_the_first() {
    std::thread::spawn(|| {
        // Nothing is ever written to it: its end is all there is to read.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
}

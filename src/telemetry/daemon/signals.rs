//! SIGTERM and SIGINT: the first asks the process to stop, the second ends it.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code by convention: 128 and the signal's number.
const EXIT_SIGINT: i32 = 130;
const EXIT_SIGTERM: i32 = 143;

/// Heeds both signals from its return on.
pub(super) fn listen(stop: CancellationToken) -> io::Result<()> {
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(heed(terminate, interrupt, stop));
    Ok(())
}

async fn heed(mut terminate: Signal, mut interrupt: Signal, stop: CancellationToken) {
    loop {
        let (name, exit_code) = tokio::select! {
            _ = terminate.recv() => ("SIGTERM", EXIT_SIGTERM),
            _ = interrupt.recv() => ("SIGINT", EXIT_SIGINT),
        };
        if stop.is_cancelled() {
            tracing::warn!(
                signal = name,
                "ending at once; what is not settled is delivered again"
            );
            std::process::exit(exit_code);
        }
        tracing::info!(
            signal = name,
            "stopping: draining what is running; a second signal ends the process at once"
        );
        stop.cancel();
    }
}

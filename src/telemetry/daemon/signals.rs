//! The daemon's reaction to stop requests: the first cancels, one that insists ends the process.

use crate::signals::{StopRequest, StopRequests};
use std::io;
use tokio_util::sync::CancellationToken;

/// Heeds both signals from its return on.
pub(super) fn listen(stop: CancellationToken) -> io::Result<()> {
    let mut requests = StopRequests::listen()?;
    tokio::spawn(async move {
        loop {
            match requests.next().await {
                StopRequest::Stop(signal) => {
                    tracing::info!(
                        signal = signal.name(),
                        "stopping: draining what is running; a second signal after a second or later ends the process at once"
                    );
                    stop.cancel();
                }
                StopRequest::EndNow(signal) => {
                    tracing::warn!(
                        signal = signal.name(),
                        "ending at once; what is not settled is delivered again"
                    );
                    std::process::exit(signal.exit_code().into());
                }
            }
        }
    });
    Ok(())
}

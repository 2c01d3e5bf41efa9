//! Handles stop requests: the first cancels, a second ends the process.

use crate::signals::{StopRequest, StopRequests};
use std::io;
use tokio_util::sync::CancellationToken;

/// Installs handlers for both signals.
pub(super) fn listen(stop: CancellationToken) -> io::Result<()> {
    let mut requests = StopRequests::listen()?;
    tokio::spawn(async move {
        loop {
            match requests.next().await {
                StopRequest::Stop(signal) => {
                    tracing::info!(
                        signal = signal.name(),
                        "stopping: draining running handlers; a second signal after a second or later ends the process at once"
                    );
                    stop.cancel();
                }
                StopRequest::EndNow(signal) => {
                    tracing::warn!(
                        signal = signal.name(),
                        "ending at once; unsettled records will be redelivered"
                    );
                    std::process::exit(signal.exit_code().into());
                }
            }
        }
    });
    Ok(())
}

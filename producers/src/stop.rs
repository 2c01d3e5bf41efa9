//! Signals: the first one asks to stop, one that comes a second later or after that ends the process at once.

use evenkeel::signals::{StopRequest, StopRequests};
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;

/// Whether and by which signal the process was asked to stop. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    signal: Arc<OnceLock<u8>>,
}

impl Stop {
    /// Listens for SIGINT and SIGTERM from now on; fails when the handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        let stop = Self::default();
        let mut requests = StopRequests::listen()?;
        let handle = stop.clone();
        tokio::spawn(async move {
            loop {
                match requests.next().await {
                    StopRequest::Stop(signal) => {
                        handle.signal.get_or_init(|| signal.number());
                        handle.token.cancel();
                    }
                    StopRequest::EndNow(signal) => std::process::exit(signal.exit_code().into()),
                }
            }
        });
        Ok(stop)
    }

    /// Cancelled when the process was asked to stop.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// The first signal's number, once there was one.
    pub fn signal(&self) -> Option<u8> {
        self.signal.get().copied()
    }
}

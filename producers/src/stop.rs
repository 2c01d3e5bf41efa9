//! Signals: the first one asks to stop, the second ends the process at once.

use std::sync::{Arc, OnceLock};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGINT's number.
const SIGINT: u8 = 2;
/// SIGTERM's number.
const SIGTERM: u8 = 15;

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
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let handle = stop.clone();
        tokio::spawn(async move {
            loop {
                let number = tokio::select! {
                    _ = interrupt.recv() => SIGINT,
                    _ = terminate.recv() => SIGTERM,
                };
                if handle.signal.set(number).is_err() {
                    std::process::exit(i32::from(128 + number));
                }
                handle.token.cancel();
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

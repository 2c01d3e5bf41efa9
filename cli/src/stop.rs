//! The first signal asks a command to stop, the second ends the process.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells whether, and by which signal, the command was asked to stop. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Stop {
    signal: watch::Receiver<Option<u8>>,
}

const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

impl Stop {
    /// Starts listening for SIGINT and SIGTERM.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let (sender, receiver) = watch::channel(None);
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        tokio::spawn(async move {
            loop {
                let number = tokio::select! {
                    _ = interrupts.recv() => SIGINT,
                    _ = terminations.recv() => SIGTERM,
                };
                if sender.send_replace(Some(number)).is_some() {
                    std::process::exit(128 + i32::from(number));
                }
            }
        });
        Ok(Self { signal: receiver })
    }

    /// The signal that came, if one did.
    pub(crate) fn requested(&self) -> Option<u8> {
        *self.signal.borrow()
    }

    /// Waits for a signal.
    pub(crate) async fn signalled(&mut self) -> u8 {
        loop {
            if let Some(number) = self.requested() {
                return number;
            }
            // The listener lives as long as the runtime, so without it no signal can come any more.
            if self.signal.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

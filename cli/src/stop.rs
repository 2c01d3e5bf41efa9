//! The first signal asks a command to stop, one that comes a second later or after that ends the process.

use evenkeel::signals::{StopRequest, StopRequests};
use tokio::sync::watch;

/// Tells whether, and by which signal, the command was asked to stop. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Stop {
    signal: watch::Receiver<Option<u8>>,
}

impl Stop {
    /// Starts listening for SIGINT and SIGTERM.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let (sender, receiver) = watch::channel(None);
        let mut requests = StopRequests::listen()?;
        tokio::spawn(async move {
            loop {
                match requests.next().await {
                    StopRequest::Stop(signal) => drop(sender.send_replace(Some(signal.number()))),
                    StopRequest::EndNow(signal) => std::process::exit(signal.exit_code().into()),
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

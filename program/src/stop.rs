//! SIGINT and SIGTERM. The first one asks the program to stop. One that arrives a second later or
//! after that ends the process.

use crate::exit::Ending;
use evenkeel::signals::{StopRequest, StopRequests};
use std::io;
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;

/// A request to stop the process, and the signal that made it. Clones share it.
///
/// ```no_run
/// use evenkeel_program::exit::Ending;
/// use evenkeel_program::stop::Stop;
/// use tokio_util::sync::CancellationToken;
///
/// # async fn work(_: &CancellationToken) {}
/// # async fn example() -> std::io::Result<Ending> {
/// let stop = Stop::listen()?;
/// work(stop.token()).await;
/// Ok(match stop.requested() {
///     Some(_) => stop.ending(),
///     None => Ending::Done,
/// })
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    signal: Arc<OnceLock<u8>>,
}

impl Stop {
    /// Installs handlers of SIGINT and SIGTERM. Needs a Tokio runtime. The handlers stay until the
    /// process ends, also if this value is dropped.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn listen() -> io::Result<Self> {
        let stop = Self::default();
        let mut requests = StopRequests::listen()?;
        let asked = stop.clone();
        tokio::spawn(async move {
            loop {
                match requests.next().await {
                    StopRequest::Stop(signal) => asked.request(signal.number()),
                    StopRequest::EndNow(signal) => std::process::exit(signal.exit_code().into()),
                }
            }
        });
        Ok(stop)
    }

    fn request(&self, signal: u8) {
        self.signal.get_or_init(|| signal);
        self.token.cancel();
    }

    /// The token that is cancelled when the process is asked to stop.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// The number of the first signal. `None` before that.
    pub fn requested(&self) -> Option<u8> {
        self.signal.get().copied()
    }

    /// The ending of a program that was stopped by the first signal. Only after
    /// [`requested`](Self::requested) returned a signal: before, there is none to name.
    pub fn ending(&self) -> Ending {
        Ending::Stopped(self.requested().unwrap_or_default())
    }

    /// Waits for the first signal and returns its number. Cancel-safe.
    pub async fn signalled(&self) -> u8 {
        loop {
            self.token.cancelled().await;
            if let Some(signal) = self.requested() {
                return signal;
            }
            // The token was cancelled by other code, not by a signal.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_signal_is_the_one_that_counts() {
        let stop = Stop::default();
        assert_eq!(stop.requested(), None);
        assert!(!stop.token().is_cancelled());
        let clone = stop.clone();
        stop.request(15);
        stop.request(2);
        assert_eq!(clone.signalled().await, 15);
        assert!(clone.token().is_cancelled());
        assert_eq!(clone.ending().code(), 143);
    }
}

//! SIGTERM and SIGINT as requests to stop. The first requests a stop, a later one at least a second
//! after it an immediate end.
//!
//! Signals in quick succession have one cause: `timeout` signals its child and then the whole
//! process group, and a supervisor and a terminal do the same with SIGTERM and SIGINT. So signals
//! in the first second after a request belong to that request. Does not know the program that
//! stops.

use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Signals within this time after the first belong to the same request.
const SAME_REQUEST_WITHIN: Duration = Duration::from_secs(1);

/// A signal that requests a stop of the process.
///
/// ```
/// use evenkeel::signals::StopSignal;
///
/// assert_eq!(StopSignal::Terminate.name(), "SIGTERM");
/// assert_eq!(StopSignal::Interrupt.exit_code(), 130);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopSignal {
    /// SIGINT, sent by Ctrl-C.
    Interrupt,
    /// SIGTERM, sent by supervisors.
    Terminate,
}

impl StopSignal {
    /// The name of the signal: `SIGINT` or `SIGTERM`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// The number of the signal.
    pub fn number(self) -> u8 {
        match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }

    /// The exit code of a process that ended because of this signal: 128 plus its number, by
    /// convention.
    pub fn exit_code(self) -> u8 {
        128 + self.number()
    }
}

/// The request that results from the signals so far.
///
/// Exhaustive: a program must handle both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopRequest {
    /// Stop, and complete the work in progress: the first signal.
    Stop(StopSignal),
    /// End at once: a further signal, at least a second after the first. Exit with
    /// [`StopSignal::exit_code`].
    EndNow(StopSignal),
}

/// Receives the stop requests of this process.
///
/// ```no_run
/// use evenkeel::signals::{StopRequest, StopRequests};
///
/// # async fn example() -> std::io::Result<()> {
/// let mut requests = StopRequests::listen()?;
/// match requests.next().await {
///     StopRequest::Stop(signal) => println!("{}: stopping", signal.name()),
///     StopRequest::EndNow(signal) => std::process::exit(signal.exit_code().into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct StopRequests {
    interrupt: Signal,
    terminate: Signal,
    first: Option<Instant>,
}

impl StopRequests {
    /// Installs handlers for both signals. From then on they no longer end the process by
    /// themselves, also after this value is dropped.
    ///
    /// Must be called inside a Tokio runtime. Several values in one process each receive every
    /// signal.
    ///
    /// # Errors
    /// Returns an error if the handlers cannot be installed.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            first: None,
        })
    }

    /// Waits for the next request: the first is always a [`StopRequest::Stop`], all later ones are
    /// [`StopRequest::EndNow`].
    ///
    /// Cancel-safe: a signal that arrives between two calls is returned by the next call.
    pub async fn next(&mut self) -> StopRequest {
        loop {
            let signal = tokio::select! {
                _ = self.interrupt.recv() => StopSignal::Interrupt,
                _ = self.terminate.recv() => StopSignal::Terminate,
            };
            if let Some(request) = request(&mut self.first, signal, Instant::now()) {
                return request;
            }
        }
    }
}

/// The request of a signal received at `now`. None if it belongs to the previous request. Sets
/// `first` on the first signal.
fn request(first: &mut Option<Instant>, signal: StopSignal, now: Instant) -> Option<StopRequest> {
    match *first {
        None => {
            *first = Some(now);
            Some(StopRequest::Stop(signal))
        }
        Some(first) if now.saturating_duration_since(first) < SAME_REQUEST_WITHIN => None,
        Some(_) => Some(StopRequest::EndNow(signal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_within_a_second_are_one_request() {
        use StopSignal::{Interrupt, Terminate};
        let (begun, mut first) = (Instant::now(), None);
        for (after_ms, signal, expected) in [
            (0, Terminate, Some(StopRequest::Stop(Terminate))),
            (0, Terminate, None),
            (3, Interrupt, None),
            (999, Terminate, None),
            (1_000, Interrupt, Some(StopRequest::EndNow(Interrupt))),
            (1_001, Terminate, Some(StopRequest::EndNow(Terminate))),
        ] {
            let now = begun + Duration::from_millis(after_ms);
            assert_eq!(
                request(&mut first, signal, now),
                expected,
                "{after_ms} ms: {signal:?}"
            );
        }
    }
}

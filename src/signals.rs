//! SIGTERM and SIGINT as requests to stop: the first asks, one that comes a second later or after that insists.
//!
//! Signals in quick succession have one cause: `timeout` signals its child and then the whole process group, a supervisor and a
//! terminal do the same with SIGTERM and SIGINT. So the first second after a request belongs to that request. Knows nothing of
//! what is stopped.

use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Signals within this time of the first are the same request.
const SAME_REQUEST_WITHIN: Duration = Duration::from_secs(1);

/// A signal that asks a process to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// SIGTERM, as supervisors send it.
    Terminate,
}

impl StopSignal {
    /// `SIGINT` or `SIGTERM`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// The signal's number.
    pub fn number(self) -> u8 {
        match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }

    /// The exit code of a process that ended for this signal, by convention 128 and its number.
    pub fn exit_code(self) -> u8 {
        128 + self.number()
    }
}

/// What the signals so far ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopRequest {
    /// Stop, and finish what is under way.
    Stop(StopSignal),
    /// End at once.
    EndNow(StopSignal),
}

/// The stop requests of this process.
#[derive(Debug)]
pub struct StopRequests {
    interrupt: Signal,
    terminate: Signal,
    first: Option<Instant>,
}

impl StopRequests {
    /// Handles both signals from its return on: they no longer end the process by themselves.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            first: None,
        })
    }

    /// Waits for the next request. Cancel-safe.
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

/// What a signal asks for that came at `now`; nothing when it belongs to the request before.
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

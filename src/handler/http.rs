//! An HTTP status as an error: what a handler returns when something that it called answered with one.

use super::Class;
use std::fmt;

/// An answer's status that is no success. Handlers return it with `?`, and the default classifier knows what it means:
///
/// | status | class | because |
/// |---|---|---|
/// | 408, 425, 429, 500 | transient | this request may pass a little later |
/// | 502, 503, 504 | outage | nobody's request passes |
/// | other 4xx | permanent | the request itself is refused, and would be again |
/// | any other | transient | nothing is known |
///
/// ```
/// use evenkeel::handler::{HandlerError, HttpStatus};
///
/// fn check(status: u16) -> Result<(), HandlerError> {
///     if !(200..300).contains(&status) {
///         return Err(HandlerError::from(HttpStatus(status)).of("payment-provider"));
///     }
///     Ok(())
/// }
/// # assert!(check(204).is_ok() && check(503).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HttpStatus(pub u16);

impl HttpStatus {
    /// What kind of failure it is.
    pub fn class(self) -> Class {
        match self.0 {
            408 | 425 | 429 | 500 => Class::Transient,
            502..=504 => Class::Outage,
            400..=499 => Class::Permanent,
            _ => Class::Transient,
        }
    }
}

impl fmt::Display for HttpStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answered with HTTP status {}", self.0)
    }
}

impl std::error::Error for HttpStatus {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_decides() {
        for (class, statuses) in [
            (
                Class::Transient,
                &[408, 425, 429, 500, 302, 501, 599, 0][..],
            ),
            (Class::Outage, &[502, 503, 504]),
            (Class::Permanent, &[400, 401, 402, 404, 409, 422, 499]),
        ] {
            for status in statuses {
                assert_eq!(HttpStatus(*status).class(), class, "{status}");
            }
        }
    }
}

//! An HTTP status as an error, for handlers that call HTTP services.

use crate::handler::Class;
use std::fmt;

/// The status of an unsuccessful HTTP answer. Handlers return it with `?`, and the default
/// classifier maps it to a class. For a 429 or 503 with a `Retry-After` header, add
/// [`HandlerError::retry_after`](super::HandlerError::retry_after).
///
/// | status | class | reason |
/// |---|---|---|
/// | 408, 425, 429, 500 | transient | this request may succeed a little later |
/// | 502, 503, 504 | outage | no request succeeds |
/// | other 4xx | permanent | the request itself is refused, and would be refused again |
/// | any other | transient | the cause is unknown |
///
/// ```
/// use evenkeel::handler::{HandlerError, HttpStatus};
///
/// fn check(status: u16) -> Result<(), HandlerError> {
///     if !(200..300).contains(&status) {
///         return Err(HandlerError::from(HttpStatus(status)).dependency("payment-provider"));
///     }
///     Ok(())
/// }
/// # assert!(check(204).is_ok() && check(503).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HttpStatus(pub u16);

impl HttpStatus {
    /// The class of this status, by the table above.
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

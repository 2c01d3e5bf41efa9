//! The address of a store, redacted in messages because it may contain a password.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// Address of a store, such as `postgres://USER:PASSWORD@HOST/DATABASE`, as an argument. It is
/// never printed: its `Debug` form hides it.
///
/// ```
/// use evenkeel_program::redacted_address::RedactedAddress;
///
/// let address: RedactedAddress = "postgres://jane:secret@db/shop".parse()?;
/// assert!(!format!("{address:?}").contains("secret"));
/// # Ok::<(), std::convert::Infallible>(())
/// ```
#[derive(Clone)]
pub struct RedactedAddress(String);

impl RedactedAddress {
    /// The address for connecting. Not for messages.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RedactedAddress {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for RedactedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedactedAddress").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_not_in_its_debug_form() {
        let Ok(address) = "redis://:hunter2@cache".parse::<RedactedAddress>();
        assert!(!format!("{address:?}").contains("hunter2"));
        assert_eq!(address.as_str(), "redis://:hunter2@cache");
    }
}

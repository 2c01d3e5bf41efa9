//! Who may do what: callers, their tokens and rights, and the allow list of event types.
//!
//! Pure, but for reading files: the token file at start, and the key set when it changes.
//! [`AllowList`] says which types exist at all for callers, [`Authenticator`] finds the
//! [`Principal`] of a request, whose [`Rights`] decide.
//!
//! Knows neither Kafka clients nor stores.

mod allow_list;
mod authenticator;
mod caller_name;
mod error;
mod files;
mod jwt;
mod key_set;
mod principal;
mod token_file;
mod url_tokens;

pub use allow_list::{AllowList, AllowListError, EventRoute};
pub use authenticator::{Authenticator, AuthenticatorBuilder, authenticate};
pub use error::AccessError;
pub(crate) use files::FileStamp;
pub use jwt::JwtSettings;
pub use principal::{Principal, Rights};
pub use token_file::{hash_token, new_token};

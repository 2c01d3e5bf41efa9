//! Names and patterns that an operator types.
//!
//! - [`wildcard`]: patterns with `*` and `?`; [`similar_names`]: suggestions for a name that does
//!   not exist; [`unknown_group`]: the error of a group that does not exist

pub mod similar_names;
pub mod unknown_group;
pub mod wildcard;

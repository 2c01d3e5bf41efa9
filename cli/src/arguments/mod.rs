//! Arguments that several commands share, and their parsers.
//!
//! - [`connection`]: the Kafka connection; [`flags_before_command`]: its flags before the command;
//!   [`operator`]: the operator's name
//! - [`group_args`]: groups; [`timestamp`]: times; [`store_address`]: a store; [`catalogue`]:
//!   schemas; [`check_flag`]: `--check`

pub(crate) mod catalogue;
pub(crate) mod check_flag;
pub(crate) mod connection;
pub(crate) mod flags_before_command;
pub(crate) mod group_args;
pub(crate) mod operator;
pub(crate) mod store_address;
pub(crate) mod timestamp;

//! Commands that set up the tool and its environment: `config`, `completions`, `man`, `dev`.

pub(crate) mod completions;
pub(crate) mod config;
#[cfg(feature = "dev")]
pub(crate) mod dev;

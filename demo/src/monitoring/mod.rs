//! A run as it is seen from outside: lag, samples of all services, and the display.

pub(crate) mod lag;
pub(crate) mod progress;
pub(crate) mod sample;

//! One turn of a contestant: what it runs, how its result is checked, and what it used.
//!
//! - [`run`], [`steady_rate`]: shared code of turns; [`result_check`]: a fast wrong answer fails;
//!   [`usage`]: processor time and memory

pub(crate) mod result_check;
pub(crate) mod run;
pub(crate) mod steady_rate;
pub(crate) mod usage;
